"""Texts for people say nothing that only the source explains."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import moyai
from tests.syntax import nodes_of

SOURCE = Path(moyai.__file__).parent
ROOT = Path(__file__).parents[2]
#: Classes of moyai that have the name of a kind of Kubernetes or of a section of cloud.conf: users know the word.
KNOWN = {"LoadBalancer", "LoadBalancerClass", "NetworkPolicy", "PersistentVolume", "StorageClass"}
#: A text with this many words is for people.
SENTENCE = 4
_CLASS = re.compile(r"\b[A-Z][a-z]+(?:[A-Z][a-z0-9]*)+\b")
#: Words of CONTRIBUTING's rule for prose that leave open what is meant.
VAGUE = re.compile(r"\b(anew|whose it is|what is there|in vain|without more ado|us who)\b", re.IGNORECASE)
#: Where the words are quoted as examples.
QUOTED = {"CONTRIBUTING.md"}


def texts() -> Iterator[tuple[str, str]]:
    """(place, text) of each text for people but docstrings; a program that is kept as text is none."""
    for path in sorted(SOURCE.rglob("*.py")):
        if "proto" in path.parts:
            continue
        bodies = (
            one.body
            for one in nodes_of(path)
            if isinstance(one, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        )
        docstrings = {id(body[0].value) for body in bodies if body and isinstance(body[0], ast.Expr)}
        for node in nodes_of(path):
            if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or id(node) in docstrings:
                continue
            if len(node.value.split()) >= SENTENCE and "import " not in node.value:
                yield f"{path.relative_to(SOURCE).as_posix()}:{node.lineno}", node.value


def classes() -> set[str]:
    return {
        node.name.lstrip("_")
        for path in SOURCE.rglob("*.py")
        if "proto" not in path.parts
        for node in nodes_of(path)
        if isinstance(node, ast.ClassDef)
    }


def test_no_message_names_a_class_of_the_source() -> None:
    ours = classes() - KNOWN
    assert [f"{place} {word}" for place, text in texts() for word in _CLASS.findall(text) if word in ours] == []


def test_no_text_has_a_word_that_leaves_open_what_is_meant() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *SOURCE.rglob("*.py")]
    found = {
        path.relative_to(ROOT).as_posix(): [one[0] for one in VAGUE.finditer(path.read_text(encoding="utf-8"))]
        for path in pages
    }
    assert {name: words for name, words in found.items() if words and name not in QUOTED} == {}


@pytest.mark.parametrize("text", ["it is made anew", "a note says whose it is", "What is there stays"])
def test_the_rule_sees_each_word(text: str) -> None:
    assert VAGUE.search(text)


_REFERENCE = re.compile(r"``([a-z_0-9]+(?:\.[A-Za-z_0-9]+)+)``")


def names_in(path: Path) -> set[str]:
    nodes = nodes_of(path)
    defined = {one.name for one in nodes if isinstance(one, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)}
    stored = {one.id for one in nodes if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)}
    imported = {one.asname or one.name for one in nodes if isinstance(one, ast.alias)}
    return defined | stored | imported


def resolves(reference: str) -> bool:
    """Whether a dotted name that begins with a room leads to a module, or to something that the module has."""
    place = SOURCE
    for number, part in enumerate(parts := reference.split(".")):
        if (place / part).is_dir():
            place /= part
        elif (module := place / f"{part}.py").exists():
            return number + 1 == len(parts) or parts[number + 1] in names_in(module)
        else:
            return part in names_in(place / "__init__.py")
    return True


def test_what_a_docstring_refers_to_exists() -> None:
    # `spec.…` is also a path in a spec or in an object of Kubernetes
    rooms = {path.name for path in SOURCE.iterdir() if path.is_dir()} - {"spec"}
    found: list[str] = []
    for path in sorted(SOURCE.rglob("*.py")):
        named = (one[1] for one in _REFERENCE.finditer(path.read_text(encoding="utf-8")))
        lost = (one for one in named if one.partition(".")[0] in rooms and not resolves(one))
        found += [f"{path.relative_to(SOURCE).as_posix()}: {one}" for one in lost]
    assert found == []


@pytest.mark.parametrize(
    ("reference", "exists"),
    [("plan.cluster", True), ("cloud.disks.Disks", True), ("cloud.disks.Volumes", False), ("plan.nothing", False)],
)
def test_the_rule_about_references_sees_each_form(reference: str, exists: bool) -> None:
    assert resolves(reference) is exists
