"""Rules of CONTRIBUTING about modules, data and tests, checked on syntax trees."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.syntax import nodes_of, tree_of

ROOT = Path(__file__).parents[2]
#: The local cloud keeps counts and states of its own in place; nothing of them goes to another room.
IN_PLACE = "src/moyai/localcloud/"
#: Why a test may be left out: what only root can do, and a program that is not moyai's.
CONDITIONS = {"os.geteuid() != 0", "shutil.which('haproxy') is None"}


def files(*tops: str) -> Iterator[Path]:
    for top in tops:
        yield from (file for file in sorted((ROOT / top).rglob("*.py")) if "proto" not in file.parts)


def test_each_module_says_at_its_head_what_it_is_for() -> None:
    silent = [file for file in files("src/moyai", "tests") if tree_of(file).body and not ast.get_docstring(tree_of(file))]
    assert [str(file.relative_to(ROOT)) for file in silent] == []


def test_public_data_are_frozen() -> None:
    found = [
        f"{file.relative_to(ROOT)}: {node.name}"
        for file in files("src/moyai")
        if not str(file.relative_to(ROOT)).startswith(IN_PLACE)
        for node in nodes_of(file)
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
        for decorator in map(ast.unparse, node.decorator_list)
        if decorator.startswith("dataclass") and "frozen=True" not in decorator
    ]
    assert found == []


def left_out(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and reason of what may keep a test from running, or from failing."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).removeprefix("pytest.").removeprefix("mark.")
            if name == "skipif":
                yield node.lineno, ast.unparse(node.args[0])
            elif name in ("xfail", "importorskip", "flaky"):
                yield node.lineno, name
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in ("pytest.mark.skip", "pytest.mark.xfail"):
            yield node.lineno, ast.unparse(node)
        if isinstance(node, ast.If) and any(ast.unparse(one).startswith("pytest.skip(") for one in node.body):
            condition = node.test.values[-1] if isinstance(node.test, ast.BoolOp) else node.test
            yield node.lineno, ast.unparse(condition)


def test_no_skip_hides_a_failure() -> None:
    found = [f"{file.relative_to(ROOT)}:{line} {why}" for file in files("tests") for line, why in left_out(tree_of(file))]
    assert [one for one in found if one.partition(" ")[2] not in CONDITIONS] == []


@pytest.mark.parametrize(
    ("text", "reasons"),
    [
        ("@pytest.mark.skip\ndef test(): pass", ["pytest.mark.skip"]),
        ("@pytest.mark.xfail(strict=False)\ndef test(): pass", ["pytest.mark.xfail", "xfail"]),
        ("@pytest.mark.skipif(os.geteuid() != 0, reason='')\ndef test(): pass", ["os.geteuid() != 0"]),
        ("if slow and os.geteuid() != 0:\n    pytest.skip('root')", ["os.geteuid() != 0"]),
        ("answer = client.skip()", []),
    ],
)
def test_the_rule_against_skips_sees_each_form(text: str, reasons: list[str]) -> None:
    assert sorted(why for _, why in left_out(ast.parse(text))) == reasons
