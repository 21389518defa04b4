"""A text that means something has one name in the source: it stands where it is defined, and nowhere else."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import moyai
from moyai.core import ids
from tests.syntax import nodes_of, tree_of

SOURCE = Path(moyai.__file__).parent

#: (file, name in ``core.ids``): why the text stands there once more.
WRITTEN_AGAIN = {
    ("bootstrap/data/unsealing_key.py", "UNSEALING_KEY"): "a program for a node, which uses the standard library alone",
}


def files() -> Iterator[tuple[str, Path]]:
    for path in sorted(SOURCE.rglob("*.py")):
        if "proto" not in path.parts:
            yield path.relative_to(SOURCE).as_posix(), path


def docstrings(tree: ast.Module) -> set[int]:
    nodes = (tree, *(one for one in ast.walk(tree) if isinstance(one, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)))
    first = (one.body[0] for one in nodes if one.body)
    return {id(one.value) for one in first if isinstance(one, ast.Expr)}


def test_names_and_tags_of_objects_are_written_in_ids_alone() -> None:
    named = {name: value for name, value in vars(ids).items() if name.isupper() and isinstance(value, str)}
    assert len(named) > 10
    found = {
        (name, constant): f"{name}:{node.lineno} {node.value[:80]!r}"
        for name, path in files()
        if name != "core/ids.py"
        for node in nodes_of(path)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings(tree_of(path))
        for constant, value in named.items()
        if value in node.value
    }
    assert {one: where for one, where in found.items() if one not in WRITTEN_AGAIN} == {}
    assert WRITTEN_AGAIN.keys() <= found.keys()
