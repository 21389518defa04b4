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


#: Rooms that speak of the objects of a cluster.
SPEAKERS = tuple(f"src/moyai/{room}" for room in ("agent", "bootstrap", "ccm", "cli", "csi", "diagnose", "lifecycle", "plan"))
#: Module → whose names it takes apart. Of objects, a module does so only with the names that it makes.
TAKEN_APART = {
    "bootstrap/user_data.py": "files",
    "ccm/octavia/annotations.py": "annotations",
    "lifecycle/record_files.py": "files",
    "plan/keys.py": "objects: made here",
    "plan/load_balancer/names.py": "load balancers: made here",
    "plan/load_balancer/words.py": "fields of a change, for people",
    "plan/network_policy/policy_counters.py": "counters: made here",
    "plan/node_ports.py": "rules: made here",
    "plan/nodes.py": "nodes: made here",
}
#: What holds the name of an object.
_NAMES = {"name", "key", "node", "server", "tag", "description"}
_APART = {"split", "rsplit", "partition", "rpartition", "removeprefix", "removesuffix"}


def taken_apart(tree: ast.AST) -> Iterator[int]:
    """Lines that find out what a name means by its parts."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or node.func.attr not in _APART:
            continue
        of = node.func.value
        if (of.attr if isinstance(of, ast.Attribute) else of.id if isinstance(of, ast.Name) else "") in _NAMES:
            yield node.lineno


def test_the_name_of_an_object_is_taken_apart_only_where_it_is_made() -> None:
    found = {
        str(file.relative_to(ROOT / "src/moyai")): list(lines)
        for file in files(*SPEAKERS)
        if (lines := list(taken_apart(tree_of(file))))
    }
    assert found.keys() == TAKEN_APART.keys()


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("pool = server.name.rpartition('-')[0]", [1]),
        ("if key.partition(' ')[0] == 'server': pass", [1]),
        ("words = text.split()", []),
    ],
)
def test_the_rule_about_names_sees_each_form(text: str, lines: list[int]) -> None:
    assert list(taken_apart(ast.parse(text))) == lines


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


def test_a_whole_plan_is_composed_in_one_place() -> None:
    parts = {"plan_up", "choose_mode"}
    called = {
        (str(file.relative_to(ROOT / "src/moyai")), node.func.id)
        for file in files("src/moyai")
        for node in nodes_of(file)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in parts
    }
    assert called == {("bootstrap/cluster_plan.py", part) for part in parts}
