"""Rules of the source that neither ruff nor import-linter can check: length of files, names, arguments by keyword, no sleep."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINES = 400
#: Parts in which no file is longer.
SHORT = (
    "src/moyai",
    *(
        f"tests/{kind}"
        for kind in ("bench", "cloud", "conformance", "contract", "e2e", "fakes", "host", "netns", "peers", "simulate", "unit")
    ),
)
ROOMS = sorted({file.relative_to(ROOT / "src/moyai").parts[0] for file in (ROOT / "src/moyai").glob("*/**/*.py")})
#: A folder with so many modules has an order of its own, which import-linter checks.
ORDERED = 5
#: Names and parameters of these are OpenStack's.
OPENSTACKS = ("drivers/cinder/driver.py", "drivers/nova/driver.py", "drivers/octavia/provider.py")
#: File and function whose caller, a library, hands more arguments over by position.
DICTATED = {("quota_locks.py", "_check_quota_met")}


@pytest.mark.parametrize("part", SHORT)
def test_no_file_is_longer_than_the_limit(part: str) -> None:
    lengths = {
        str(file.relative_to(ROOT)): len(file.read_text().splitlines())
        for file in (ROOT / part).rglob("*.py")
        if "proto" not in file.parts  # generated
    }
    assert lengths, f"no file in {part}"
    assert {name: lines for name, lines in lengths.items() if lines > LINES} == {}


def test_python_stands_in_files_that_style_and_types_check() -> None:
    others = [one for one in (ROOT / "src").rglob("*") if one.is_file() and one.suffix not in (".py", ".pyi", ".pyc", ".go")]
    assert others, "no data files"
    python = re.compile(rb"^(import \w+|from [\w.]+ import .+|def \w+\(.*|class \w+.*:)$", re.MULTILINE)
    assert [str(one) for one in others if python.search(one.read_bytes())] == []


def test_a_folder_of_many_modules_has_layers_that_name_each_of_them() -> None:
    found: set[str] = set()
    for folder in (ROOT / "src/moyai").glob("**/"):
        modules = [one for one in folder.iterdir() if one.name not in ("__init__.py", "__main__.py")]
        modules = [one for one in modules if one.suffix == ".py" or (one / "__init__.py").exists()]
        if len(modules) >= ORDERED:
            found.add(".".join(folder.relative_to(ROOT / "src").parts))
    linter = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    assert linter["exclude_type_checking_imports"] is False
    contracts = [one for one in linter["contracts"] if one["type"] == "layers" and one.get("exhaustive")]
    # the rooms themselves have a contract without a container
    assert found - {container for one in contracts for container in one["containers"]} == {"moyai"}


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
            if (file.name, function.name) in DICTATED:
                continue
            # with *arguments, what stands before them can be handed over by position only
            if not function.args.vararg and _positional(function, method=method) > 2:
                found.append(f"{file.name}:{function.lineno} {function.name}")
    assert found == []


#: The local cloud imports nothing of what runs on clouds, and its drivers run in OpenStack's own environment: behind that wall
#: OpenStack's words mean OpenStack's objects.
WALLED = "localcloud/"
#: File names that say too little: at most one file may have each.
AMBIGUOUS = {"adapter.py", "kind.py", "cloud.py", "access.py", "config.py", "watch.py", "explain.py", "node.py"}


def test_a_class_name_means_one_thing() -> None:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for file in (ROOT / "src/moyai").rglob("*.py"):
        where = str(file.relative_to(ROOT / "src/moyai"))
        if WALLED in where or "proto" in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef):
                found[node.name].append(where)
    assert {name: files for name, files in found.items() if len(files) > 1} == {}


def test_a_file_name_that_says_too_little_stands_for_one_thing() -> None:
    found: defaultdict[str, list[str]] = defaultdict(list)
    for file in (ROOT / "src/moyai").rglob("*.py"):
        if file.name in AMBIGUOUS:
            found[file.name].append(str(file))
    assert {name: files for name, files in found.items() if len(files) > 1} == {}


def _called(node: ast.Call) -> str:
    """The dotted name of the function that is called, "" where it has none."""
    return ast.unparse(node.func) if isinstance(node.func, ast.Attribute | ast.Name) else ""


def _pauses(tree: ast.Module) -> Iterator[int]:
    """Lines that let real time pass: sleeps, and waits for an event that nobody else knows."""
    virtual = any("pytest.mark.virtual_time" in ast.unparse(node) for node in tree.body if isinstance(node, ast.Assign))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module in ("time", "asyncio"):
            if any(name.name == "sleep" for name in node.names):
                yield node.lineno
        elif isinstance(node, ast.Call):
            name, arguments = _called(node), [ast.unparse(one) for one in (*node.args, *(one.value for one in node.keywords))]
            # sleep(0) gives the other tasks a turn; on a virtual loop no second passes
            sleeps = name == "time.sleep" or (name == "asyncio.sleep" and arguments != ["0"] and not virtual)
            if sleeps or (name.endswith("Event().wait") and arguments):
                yield node.lineno


def test_unit_tests_do_not_sleep() -> None:
    found = [
        f"{file.name}:{line}" for file in (ROOT / "tests/unit").glob("*.py") for line in _pauses(ast.parse(file.read_text()))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("import time\ntime.sleep(0.1)", [2]),
        ("from time import sleep", [1]),
        ("await asyncio.sleep(0)\nawait asyncio.sleep(delay=1)", [2]),
        ("pytestmark = pytest.mark.virtual_time\nawait asyncio.sleep(5)\ntime.sleep(5)", [3]),
        ("threading.Event().wait(0.1)\nasyncio.Event().wait()", [1]),
        ("clock.sleep(5)\nclock.asleep(5)", []),
    ],
)
def test_the_rule_against_sleep_sees_each_form(text: str, lines: list[int]) -> None:
    assert list(_pauses(ast.parse(text))) == lines
