"""The operators that stand in the place of a value, once all parts are merged, as Spruce has them ("What are all the Spruce
operators?"): ``grab``, ``concat``, ``join``, ``param``, ``empty`` and ``prune``. Each other one is refused by its name.

An argument is a literal ("text", a number, true, false, nil), ``$VARIABLE`` of the environment, or the path of another value;
``||`` between arguments takes the first that there is. A path goes by names and numbers (``spec.nodePools.workers.replicas``);
an item of a list is found by its number, or by its ``name``, ``key`` or ``id``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from moyai.core.errors import UsageError
from moyai.spec.tree import Location, Tree, short, shown

_ARGUMENT = re.compile(r'\s*("(?:[^"\\]|\\.)*"|\|\||[^\s|]+)\s*')
_KNOWN = "grab, concat, join, param, empty or prune"
_NUMBER = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,18})?")
_NAMES = ("name", "key", "id")
_LITERALS: Mapping[str, bool | None] = {"true": True, "false": False, "nil": None, "null": None, "~": None}
_EMPTY: Mapping[str, str | dict[str, Tree] | list[Tree]] = {"hash": {}, "map": {}, "array": [], "list": [], "string": ""}
#: So many values at most: lists that are made of each other grow without end.
_MOST = 100_000
#: Characters of text and items of lists, all that operators make together: as much as a file may be long.
_MOST_MADE = 1 << 20
#: Values that need each other, or stand in each other.
_DEPTH = 100


def evaluate(tree: Tree, environ: Mapping[str, str] = os.environ) -> Tree:
    """The document without operators. Raises UsageError."""
    _refuse_params(tree, ())
    return _without_pruned(_Evaluation(tree, environ).value(tree, at=()))


def _refuse_params(tree: Tree, at: Location) -> None:
    """What a part demands of the parts behind it, and none of them gives."""
    if (found := tree.operator) and found[0] == "param":
        asked = short(found[1].strip('"'), 200)
        raise UsageError(f"{tree.source}: {shown(at)}: {asked or 'should be given'} (( param )): no later file gives it")
    for part, item in _inside(tree):
        _refuse_params(item, (*at, part))


def _inside(tree: Tree) -> Iterator[tuple[str | int, Tree]]:
    if tree.mapping is not None:
        yield from tree.mapping.items()
    elif tree.items is not None:
        yield from enumerate(tree.items)


class _Size(NamedTuple):
    values: int
    depth: int


class _Evaluation:
    """Values are found out when they are needed, each once; a value that needs itself is refused."""

    def __init__(self, root: Tree, environ: Mapping[str, str]) -> None:
        self._root, self._environ = root, environ
        self._known: dict[Location, Tree] = {}
        self._open: list[Location] = []
        #: By identity, with the list or mapping, which must live as long: one that several others take is counted once.
        self._sizes: dict[int, tuple[_Size, object]] = {}
        #: Likewise: what a path calls each part of a list or mapping.
        self._parts: dict[int, tuple[dict[str, str | int], object]] = {}
        self._made = 0

    def value(self, tree: Tree, *, at: Location) -> Tree:
        if at not in self._known:
            if at in self._open:
                way = " → ".join(shown(one) for one in (*self._open[self._open.index(at) :], at))
                raise UsageError(f"{tree.source}: {shown(at)}: needs itself: {short(way, 200)}")
            if len(self._open) == _DEPTH:
                raise UsageError(f"{tree.source}: {shown(at)}: is one of more than {_DEPTH} values that need each other")
            self._open.append(at)
            self._known[at] = found = self._found(tree, at)
            self._open.pop()
            size = self._size(found)
            if size.values > _MOST:
                raise UsageError(f"{tree.source}: {shown(at)}: has more than {_MOST:,} values")
            if size.depth > _DEPTH:
                raise UsageError(f"{tree.source}: {shown(at)}: is nested more than {_DEPTH} deep")
        return self._known[at]

    def _size(self, tree: Tree) -> _Size:
        """How much it is once it is written out."""
        if tree.mapping is None and tree.items is None:
            return _Size(1, 0)
        if id(tree.value) not in self._sizes:
            inside = [self._size(one) for _, one in _inside(tree)]
            size = _Size(1 + sum(one.values for one in inside), 1 + max((one.depth for one in inside), default=0))
            self._sizes[id(tree.value)] = (size, tree.value)
        return self._sizes[id(tree.value)][0]

    def _make(self, amount: int, tree: Tree, *, at: Location) -> None:
        """Before text or a list is made that is so long."""
        self._made += amount
        if self._made > _MOST_MADE:
            raise _wrong(tree, at, what="the operators make more than a spec can be long")

    def _found(self, tree: Tree, at: Location) -> Tree:
        if tree.mapping is not None:
            return replace(tree, value={key: self.value(item, at=(*at, key)) for key, item in tree.mapping.items()})
        if tree.items is not None:
            return replace(tree, value=[self.value(item, at=(*at, number)) for number, item in enumerate(tree.items)])
        operator = tree.operator
        return self._applied(*operator, tree=tree, at=at) if operator else tree

    def _applied(self, name: str, arguments: str, *, tree: Tree, at: Location) -> Tree:
        if name == "empty":
            if arguments not in _EMPTY:
                raise _wrong(tree, at, what=f"should be one of {', '.join(_EMPTY)} behind empty")
            return Tree(_EMPTY[arguments], tree.source)
        if name not in ("grab", "concat", "join"):
            raise _wrong(tree, at, what=f"should be {_KNOWN}: moyai has no other operator of Spruce")
        found = [self._argument(alternatives, tree=tree, at=at) for alternatives in _arguments(arguments, tree, at=at)]
        if not found:
            raise _wrong(tree, at, what=f"should have an argument behind {name}")
        if name == "grab" and len(found) == 1:
            return found[0]
        between, parts = (_word(found[0], tree, at=at), found[1:]) if name == "join" else ("", found)
        self._make(sum(len(one.items) if one.items is not None else 1 for one in parts), tree, at=at)
        if name == "grab":
            return Tree(_flat(parts), tree.source)
        words = [_word(one, tree, at=at) for one in (_flat(parts) if name == "join" else parts)]
        self._make(sum(map(len, words)) + len(between) * len(words), tree, at=at)
        return Tree(between.join(words), tree.source)

    def _argument(self, alternatives: Sequence[str], *, tree: Tree, at: Location) -> Tree:
        for word in alternatives:
            found = self._one(word, tree)
            if found is not None:
                return replace(found, pruned=False)
        raise _wrong(tree, at, what=f"there is no {short(' or '.join(alternatives))}")

    def _one(self, word: str, tree: Tree) -> Tree | None:
        if word.startswith('"'):
            return Tree(re.sub(r"\\(.)", r"\1", word[1:-1]), tree.source)
        if word in _LITERALS:
            return Tree(_LITERALS[word], tree.source)
        if _NUMBER.fullmatch(word):
            return Tree(float(word) if "." in word else int(word), tree.source)
        if word.startswith("$"):
            text = self._environ.get(word[1:])
            return Tree(text, tree.source) if text else None
        return self._at(re.split(r"[.\[\]]+", word.strip("[]")))

    def _at(self, names: Sequence[str]) -> Tree | None:
        """The value on a path, its operators done. A value on the way that is an operator leads on from what it is."""
        found, at = self._root, tuple[str | int, ...]()
        for name in names:
            if found.operator:
                found = self.value(found, at=at)
            step = self._names(found).get(name)
            if step is None:
                return None
            inside: Any = found.value
            found, at = inside[step], (*at, step)
        return self.value(found, at=at)

    def _names(self, tree: Tree) -> Mapping[str, str | int]:
        """Name in a path → key or number. Of several with one name the first is meant."""
        if id(tree.value) not in self._parts:
            found: dict[str, str | int] = {}
            for part, item in _inside(tree):
                for name in _called(part, item):
                    found.setdefault(name, part)
            self._parts[id(tree.value)] = (found, tree.value)
        return self._parts[id(tree.value)][0]


def _without_pruned(tree: Tree) -> Tree:
    if tree.mapping is not None:
        return replace(tree, value={key: _without_pruned(one) for key, one in tree.mapping.items() if not one.pruned})
    if tree.items is not None:
        return replace(tree, value=[_without_pruned(one) for one in tree.items if not one.pruned])
    return tree


def _arguments(text: str, tree: Tree, *, at: Location) -> list[list[str]]:
    """Each argument as its alternatives."""
    found: list[list[str]] = []
    place, either = 0, False
    while place < len(text):
        word = _ARGUMENT.match(text, place)
        if word is None:
            raise _wrong(tree, at, what=f"cannot be read from {short(text[place:])!r} on")
        place = word.end()
        if word[1] == "||":
            if not found or either:
                raise _wrong(tree, at, what="|| should stand between two arguments")
            either = True
        elif either:
            found[-1].append(word[1])
            either = False
        else:
            found.append([word[1]])
    if either:
        raise _wrong(tree, at, what="|| should stand between two arguments")
    return found


def _called(part: str | int, item: Tree) -> Iterator[str]:
    yield str(part)
    mapping = item.mapping if isinstance(part, int) else None
    if mapping is not None:
        yield from (mapping[key].text for key in _NAMES if key in mapping and mapping[key].text)


def _flat(found: Sequence[Tree]) -> list[Tree]:
    """Of several arguments, with the items of those that are lists."""
    return [item for one in found for item in (one.items if one.items is not None else [one])]


def _word(tree: Tree, operator: Tree, *, at: Location) -> str:
    if tree.mapping is not None or tree.items is not None:
        raise _wrong(operator, at, what="should have no list and no mapping among its arguments")
    if isinstance(tree.value, bool):
        return str(tree.value).lower()
    return "" if tree.value is None else str(tree.value)


def _wrong(tree: Tree, at: Location, *, what: str) -> UsageError:
    return UsageError(f"{tree.source}: {shown(at)}: {short(tree.text, 200)!r}, {what}")
