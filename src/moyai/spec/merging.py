"""Specs from parts: later files are laid on top of earlier ones, as Spruce does ("Merging Rules", "Modifying arrays").

Mappings are merged deep. A list whose items all have a ``name`` is merged by it, any other item by item; an operator as an item
says another way. Anything else is replaced. What an operator cannot do is one line that names file and place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import reduce
from typing import NamedTuple, Protocol

from moyai.core.errors import UsageError
from moyai.spec.operators import evaluate
from moyai.spec.tree import Location, Tree, shown

#: The names of the keys by which Spruce finds an item of a list where none is said.
_DEFAULT_KEY = "name"
_OPERATOR = re.compile(r"\(\(\s*(append|prepend|replace|inline|merge|insert|delete)\b\s*(.*?)\s*\)\)")
_PRUNE = re.compile(r"\(\(\s*prune\s*\)\)")
_ON = re.compile(r"on\s+(\S+)")
_INSERT = re.compile(r"(before|after)\s+(.+)")
_INDEX = re.compile(r"-?\d+")
_BY_KEY = re.compile(r'(?:(\S+)\s+)?"([^"]*)"')


def merge(parts: Sequence[Tree]) -> Tree:
    """One document of all parts, in their order, without operators. Raises UsageError."""
    first, *others = parts
    return evaluate(reduce(lambda below, above: _laid(below, above, at=()), others, _without_operators(first, at=())))


def _laid(below: Tree, above: Tree, *, at: Location) -> Tree:
    if _PRUNE.fullmatch(above.text):
        return replace(below, pruned=True)
    return replace(_over(below, above, at=at), pruned=below.pruned)


def _over(below: Tree, above: Tree, *, at: Location) -> Tree:
    if below.mapping is not None and above.mapping is not None:
        merged = dict(below.mapping)
        for key, item in above.mapping.items():
            here = (*at, key)
            merged[key] = _laid(merged[key], item, at=here) if key in merged else _without_operators(item, at=here)
        return Tree(merged, above.source)
    if below.items is not None and above.items is not None:
        return Tree(_list(list(below.items), above.items, at=at), above.source)
    return _without_operators(above, at=at)


def _without_operators(tree: Tree, *, at: Location) -> Tree:
    """What lies on nothing: operators of lists have an empty list below them."""
    if tree.mapping is not None:
        return Tree({key: _without_operators(item, at=(*at, key)) for key, item in tree.mapping.items()}, tree.source)
    if tree.items is not None:
        if any(_OPERATOR.fullmatch(item.text) for item in tree.items):
            return Tree(_list([], tree.items, at=at), tree.source)
        return Tree([_without_operators(item, at=(*at, number)) for number, item in enumerate(tree.items)], tree.source)
    return Tree(None, tree.source, pruned=True) if _PRUNE.fullmatch(tree.text) else tree


class _ListPart(NamedTuple):
    """An operator of a list, with the items behind it. ``operator`` empty: none stands in front of them."""

    operator: str
    argument: str
    items: list[Tree]
    source: str

    @property
    def shown(self) -> str:
        return f"(( {self.operator} {self.argument} ))"


def _sections(items: Sequence[Tree]) -> Iterator[_ListPart]:
    found = _ListPart("", "", [], items[0].source if items else "")
    for item in items:
        if operator := _OPERATOR.fullmatch(item.text):
            if found.operator or found.items:
                yield found
            found = _ListPart(operator[1], operator[2], [], item.source)
        else:
            found.items.append(item)
    yield found


def _list(below: list[Tree], above: Sequence[Tree], *, at: Location) -> list[Tree]:
    sections = list(_sections(above))
    if len(sections) > 1 and not sections[0].operator:
        raise _wrong(sections[0].source, at, what=f"{len(sections[0].items)} items stand before the first operator")
    for section in sections:
        below = _WAYS[section.operator or "merge"](below, section, at=at)
    return below


def _append(below: list[Tree], section: _ListPart, *, at: Location) -> list[Tree]:
    _plain(section, at)
    return [*below, *_fresh(section, at)]


def _prepend(below: list[Tree], section: _ListPart, *, at: Location) -> list[Tree]:
    _plain(section, at)
    return [*_fresh(section, at), *below]


def _replace(_below: list[Tree], section: _ListPart, *, at: Location) -> list[Tree]:
    _plain(section, at)
    return _fresh(section, at)


def _inline(below: list[Tree], section: _ListPart, *, at: Location) -> list[Tree]:
    """By position."""
    merged = list(below)
    for number, item in enumerate(section.items):
        here = (*at, number)
        if number < len(merged):
            merged[number] = _laid(merged[number], item, at=here)
        else:
            merged.append(_without_operators(item, at=here))
    return merged


def _merge(below: list[Tree], section: _ListPart, *, at: Location) -> list[Tree]:
    """By key. Where no operator asks for it, items without the key are merged by position."""
    on = _ON.fullmatch(section.argument)
    if section.argument and not on:
        raise _wrong(section.source, at, what=f"(( merge {section.argument} )), should be (( merge )) or (( merge on KEY ))")
    key = on[1] if on else _DEFAULT_KEY
    unnamed = next((one for one in (*below, *section.items) if one.mapping is None or key not in one.mapping), None)
    if unnamed is not None:
        if section.operator:
            raise _wrong(unnamed.source, at, what=f"an item without {key!r}, by which the list is merged")
        return _inline(below, section, at=at)
    merged = list(below)
    for item in section.items:
        found = next((number for number, one in enumerate(below) if _key(one, key) == _key(item, key)), None)
        if found is None:
            merged.append(_without_operators(item, at=(*at, len(merged))))
        else:
            merged[found] = _laid(merged[found], item, at=(*at, found))
    return merged


def _insert(below: list[Tree], section: _ListPart, *, at: Location) -> list[Tree]:
    asked = _INSERT.fullmatch(section.argument)
    if not asked:
        should = '(( insert before|after INDEX )) or (( insert before|after [KEY] "NAME" ))'
        raise _wrong(section.source, at, what=f"(( insert {section.argument} )), should be {should}")
    place = _place(below, asked[2], section=section, at=at) + (asked[1] == "after")
    there = {_key(one, _DEFAULT_KEY) for one in below} - {None}
    if twice := next((one for one in section.items if _key(one, _DEFAULT_KEY) in there), None):
        raise _wrong(twice.source, at, what=f"(( insert )), and an item has the name {_key(twice, _DEFAULT_KEY)!r} already")
    return [*below[:place], *_fresh(section, at), *below[place:]]


def _delete(below: list[Tree], section: _ListPart, *, at: Location) -> list[Tree]:
    if section.items:
        raise _wrong(section.source, at, what="items stand behind (( delete )), which takes none")
    place = _place(below, section.argument, section=section, at=at)
    return [*below[:place], *below[place + 1 :]]


class _ListMerge(Protocol):
    def __call__(self, below: list[Tree], section: _ListPart, /, *, at: Location) -> list[Tree]: ...


#: Operator → list below, the operator with its items, where → the list.
_WAYS: dict[str, _ListMerge] = {
    "append": _append,
    "prepend": _prepend,
    "replace": _replace,
    "inline": _inline,
    "merge": _merge,
    "insert": _insert,
    "delete": _delete,
}


def _place(below: list[Tree], wanted: str, *, section: _ListPart, at: Location) -> int:
    """The number of the item that an operator names, by index or by key and value."""
    if _INDEX.fullmatch(wanted):
        number = int(wanted)
        if not 0 <= number < len(below):
            raise _wrong(section.source, at, what=f"{section.shown}, and the list has {len(below)} items")
        return number
    named = _BY_KEY.fullmatch(wanted)
    key, name = (named[1] or _DEFAULT_KEY, named[2]) if named else (_DEFAULT_KEY, wanted)
    found = next((number for number, one in enumerate(below) if _key(one, key) == name), None)
    if found is None:
        raise _wrong(
            section.source, at, what=f"(( {section.operator} {section.argument} )), and no item has the {key} {name!r}"
        )
    return found


def _key(item: Tree, key: str) -> object:
    return item.mapping[key].value if item.mapping is not None and key in item.mapping else None


def _fresh(section: _ListPart, at: Location) -> list[Tree]:
    return [_without_operators(item, at=(*at, number)) for number, item in enumerate(section.items)]


def _plain(section: _ListPart, at: Location) -> None:
    if section.argument:
        raise _wrong(
            section.source, at, what=f"(( {section.operator} {section.argument} )), should be (( {section.operator} ))"
        )


def _wrong(source: str, at: Location, *, what: str) -> UsageError:
    return UsageError(f"{source}: {shown(at)}: {what}")
