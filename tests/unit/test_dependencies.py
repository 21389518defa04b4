"""Every package that moyai imports is declared, and every declared one is imported."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

from tests.syntax import nodes_of

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
#: They run in OpenStack's own environment, whose lock is localcloud/data/openstack.lock.
ELSEWHERE = "src/moyai/localcloud/drivers/"
#: Development tools that no file imports.
PROGRAMS = {"ansible-core", "import-linter", "pyright", "pytest-xdist", "ruff"}


def declared(lines: Iterable[str]) -> set[str]:
    return {canonical(re.split(r"[\[<>=]", line)[0]) for line in lines}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imported(top: str) -> dict[str, set[str]]:
    """Module → names of the packages that bring it, as an index has them, of all modules that files below ``top`` import."""
    modules: set[str] = set()
    for file in (ROOT / top).rglob("*.py"):
        if file.relative_to(ROOT).as_posix().startswith(ELSEWHERE):
            continue
        for node in nodes_of(file):
            if isinstance(node, ast.Import):
                modules |= {name.name.partition(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                modules.add(node.module.partition(".")[0])
    known = packages_distributions()
    return {
        module: {canonical(name) for name in known.get(module, [module])}
        for module in modules - sys.stdlib_module_names - {"moyai", "tests"}
    }


def undeclared(modules: dict[str, set[str]], names: set[str]) -> list[str]:
    return sorted(module for module, packages in modules.items() if not packages & names)


def unused(modules: dict[str, set[str]], names: set[str]) -> set[str]:
    return names - set().union(*modules.values())


def test_what_moyai_imports_is_declared_and_what_is_declared_is_imported() -> None:
    runtime, modules = declared(PROJECT["project"]["dependencies"]), imported("src")
    assert undeclared(modules, runtime) == []
    assert unused(modules, runtime) == set()


def test_what_the_tests_import_is_declared_and_what_is_declared_is_imported() -> None:
    runtime, development = declared(PROJECT["project"]["dependencies"]), declared(PROJECT["dependency-groups"]["dev"])
    modules = imported("tests")
    assert undeclared(modules, runtime | development) == []
    # stubs are for the type checker
    libraries = {name for name in development if "stubs" not in name and not name.startswith("types-")}
    assert unused(modules, libraries) == PROGRAMS
