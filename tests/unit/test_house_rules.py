"""Rules of the source that neither ruff nor import-linter can check: length of files, names, arguments by keyword."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINES = 400
#: Parts in which no file is longer.
SHORT = (
    "src/moyai",
    *(f"tests/{kind}" for kind in ("bench", "cloud", "contract", "e2e", "fakes", "host", "netns", "simulate", "unit")),
)
ROOMS = sorted({file.relative_to(ROOT / "src/moyai").parts[0] for file in (ROOT / "src/moyai").glob("*/**/*.py")})
#: Names and parameters of these are OpenStack's.
OPENSTACKS = ("drivers/cinder/driver.py", "drivers/nova/driver.py", "drivers/octavia/provider.py")


@pytest.mark.parametrize("part", SHORT)
def test_no_file_is_longer_than_the_limit(part: str) -> None:
    lengths = {
        str(file.relative_to(ROOT)): len(file.read_text().splitlines())
        for file in (ROOT / part).rglob("*.py")
        if "proto" not in file.parts  # generated
    }
    assert lengths, f"no file in {part}"
    assert {name: lines for name, lines in lengths.items() if lines > LINES} == {}


def _functions(tree: ast.AST, *, method: bool = False) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, bool]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from _functions(node, method=True)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            static = any(isinstance(one, ast.Name) and one.id == "staticmethod" for one in node.decorator_list)
            yield node, method and not static


def _positional(function: ast.FunctionDef | ast.AsyncFunctionDef, *, method: bool) -> int:
    return len(function.args.posonlyargs) + len(function.args.args) - method


@pytest.mark.parametrize("room", ROOMS)
def test_more_than_two_arguments_go_by_keyword(room: str) -> None:
    found: list[str] = []
    for file in (ROOT / "src/moyai" / room).rglob("*.py"):
        if str(file).endswith(OPENSTACKS):
            continue
        for function, method in _functions(ast.parse(file.read_text())):
            public = not function.name.startswith("_") or function.name == "__init__"
            # with *arguments, what stands before them can be handed over by position only
            if public and not function.args.vararg and _positional(function, method=method) > 2:
                found.append(f"{file.name}:{function.lineno} {function.name}")
    assert found == []


#: The local cloud imports nothing of what runs on clouds, and its drivers run in OpenStack's own environment: behind that wall
#: OpenStack's words mean OpenStack's objects.
WALLED = "localcloud/"
#: File names that had several meanings: whoever uses them says of which object.
AMBIGUOUS = {"cloud.py", "access.py", "config.py", "watch.py", "explain.py", "node.py"}


def test_a_class_name_means_one_thing() -> None:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for file in (ROOT / "src/moyai").rglob("*.py"):
        where = str(file.relative_to(ROOT / "src/moyai"))
        if WALLED in where or "proto" in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(where)
    assert {name: files for name, files in found.items() if len(files) > 1} == {}


def test_a_file_name_that_says_too_little_stands_for_one_thing() -> None:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for file in (ROOT / "src/moyai").rglob("*.py"):
        if file.name in AMBIGUOUS:
            found[file.name].append(str(file))
    assert {name: files for name, files in found.items() if len(files) > 1} == {}
