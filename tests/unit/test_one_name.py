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
    found: dict[tuple[str, str], str] = {}
    for file, path in files():
        texts = docstrings(tree_of(path))
        for node in nodes_of(path):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in texts:
                for name, value in named.items():
                    if value in node.value and file != "core/ids.py":
                        found[file, name] = f"{file}:{node.lineno} {node.value[:80]!r}"
    assert {one: where for one, where in found.items() if one not in WRITTEN_AGAIN} == {}
    assert WRITTEN_AGAIN.keys() <= found.keys()


#: Shorter texts are words of the language, and mean one thing here and another there.
LONG = 8
#: Beginnings of paths between which there is a wall: (why, the paths).
WALLS = {
    "a program for a node uses the standard library alone": ("bootstrap/data/",),
    "the program runs in a pod as text, with the standard library alone": (
        "linux/network_facts.py",
        "linux/packet_watch.py",
        "linux/pod_probe.py",
    ),
    "OpenStack's processes load the drivers and nothing else of moyai but linux": ("localcloud/",),
    "the front is no mirror of the adapter": ("nifcloud_front/",),
}
#: Text → why it has two names although no wall stands between them.
TWO_NAMES = {
    "kube-proxy": "the name of a DaemonSet, and the word for the owner of a rule of the kernel",
    "kubernetes": "the name of the API server's Service, and of a component of the toolchain",
}


def constants() -> Iterator[tuple[str, str, str]]:
    """(value, file, name) of each constant of a module; a click option or argument is a value too."""
    for file, path in files():
        for node in tree_of(path).body:
            if not isinstance(node, ast.Assign):
                continue
            target = node.targets[0]
            names, values = [target], [node.value]
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                names, values = target.elts, node.value.elts
            for name, value in zip(names, values, strict=True):
                if isinstance(value, ast.Constant) and isinstance(value.value, str) and len(value.value) >= LONG:
                    yield value.value, file, ast.unparse(name)
                elif isinstance(value, ast.Call) and ast.unparse(value.func).startswith(("click.", "re.compile")):
                    yield ast.unparse(value), file, ast.unparse(name)


def test_a_text_has_one_name_on_one_side_of_a_wall() -> None:
    walled = tuple(path for paths in WALLS.values() for path in paths)
    found: dict[str, list[str]] = {}
    for value, file, name in constants():
        if not file.startswith(walled):
            found.setdefault(value, []).append(f"{file}: {name}")
    several = {value: places for value, places in found.items() if len(places) > 1}
    assert {value: places for value, places in several.items() if value not in TWO_NAMES} == {}
    assert TWO_NAMES.keys() <= several.keys()
