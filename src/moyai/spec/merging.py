"""Specs from parts: later files are laid on top of earlier ones, as Spruce does ("Merging Rules", "Modifying arrays").

Mappings are merged deep. A list whose items all have a ``name`` is merged by it, any other item by item; an operator as an item
says another way. Anything else is replaced. What an operator cannot do is one line that names file and place, and so are files
whose merging would take long.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import reduce
from typing import NamedTuple, Protocol, cast

from moyai.core.errors import UsageError
from moyai.spec.operators import evaluate
from moyai.spec.tree import Location, Tree, short, shown

#: The names of the keys by which Spruce finds an item of a list where none is said.
_DEFAULT_KEY = "name"
#: Of all files; one alone may have as many.
MOST_VALUES = 100_000
#: A second and a half; 500 pools in 20 files with 1,000 operators need a tenth.
_MOST_LOOKS = 4_000_000
_PRUNE = ("prune", "")
_INDEX = re.compile(r"-?[0-9]{1,9}")
_BY_KEY = re.compile(r'(?:(\S+)\s+)?"([^"]*)"')


def merge(parts: Iterable[Tree]) -> Tree:
    """One document of all parts, in their order, without operators. Raises UsageError."""
    first, *others = _bounded(parts)
    return evaluate(reduce(lambda below, above: _laid(below, above, at=()), others, _without_operators(first, at=())))


def _bounded(parts: Iterable[Tree]) -> list[Tree]:
    """The parts, read no further than they can be merged: each of them, and each operator of a list, may look at all items."""
    found: list[Tree] = []
    values = operators = items = 0
    for part in parts:
        found.append(part)
        waiting = [part]
        while waiting:
            one = waiting.pop()
            values += 1
            operators += _list_operator(one) is not None
            if one.items is not None:
                items += len(one.items)
                waiting += one.items
            elif one.mapping is not None:
                waiting += one.mapping.values()
        if values > MOST_VALUES:
            raise UsageError(f"{part.source}: with this file there are more than {MOST_VALUES:,} values")
        if (len(found) + operators) * items > _MOST_LOOKS:
            what = f"{len(found)} files with {operators} operators in lists of {items} items"
            raise UsageError(f"{part.source}: {what} take too long to merge")
    return found


def _list_operator(tree: Tree) -> tuple[str, str] | None:
    found = tree.operator
    return found if found and found[0] in _WAYS else None


def _laid(below: Tree, above: Tree, *, at: Location) -> Tree:
    if above.operator == _PRUNE:
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
        if any(_list_operator(item) for item in tree.items):
            return Tree(_list([], tree.items, at=at), tree.source)
        return Tree([_without_operators(item, at=(*at, number)) for number, item in enumerate(tree.items)], tree.source)
    return Tree(None, tree.source, pruned=True) if tree.operator == _PRUNE else tree


class _ListPart(NamedTuple):
    """An operator of a list, with the items behind it. ``operator`` empty: none stands in front of them."""

    operator: str
    argument: str
    items: list[Tree]
    source: str

    @property
    def shown(self) -> str:
        return f"(( {self.operator} {short(self.argument)} ))"


def _sections(items: Sequence[Tree]) -> Iterator[_ListPart]:
    found = _ListPart("", "", [], items[0].source if items else "")
    for item in items:
        if operator := _list_operator(item):
            if found.operator or found.items:
                yield found
            found = _ListPart(*operator, [], item.source)
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
    words = section.argument.split()
    if words and not (len(words) == 2 and words[0] == "on"):
        raise _wrong(section.source, at, what=f"{section.shown}, should be (( merge )) or (( merge on KEY ))")
    key = words[1] if words else _DEFAULT_KEY
    unnamed = next((one for one in (*below, *section.items) if _key(one, key) is None), None)
    if unnamed is not None:
        if section.operator:
            raise _wrong(unnamed.source, at, what=f"an item without {short(key)!r}, by which the list is merged")
        return _inline(below, section, at=at)
    merged = list(below)
    # backwards: of several items with one name the first is meant
    places = {_key(one, key): number for number, one in reversed(list(enumerate(below)))}
    for item in section.items:
        found = places.get(_key(item, key))
        if found is None:
            merged.append(_without_operators(item, at=(*at, len(merged))))
        else:
            merged[found] = _laid(merged[found], item, at=(*at, found))
    return merged


def _insert(below: list[Tree], section: _ListPart, *, at: Location) -> list[Tree]:
    side, _, named = section.argument.partition(" ")
    if side not in ("before", "after") or not named.strip():
        should = '(( insert before|after INDEX )) or (( insert before|after [KEY] "NAME" ))'
        raise _wrong(section.source, at, what=f"{section.shown}, should be {should}")
    place = _place(below, named.strip(), section=section, at=at) + (side == "after")
    there = {_key(one, _DEFAULT_KEY) for one in below} - {None}
    if twice := next((one for one in section.items if _key(one, _DEFAULT_KEY) in there), None):
        raise _wrong(
            twice.source, at, what=f"(( insert )), and an item has the name {_named(_key(twice, _DEFAULT_KEY))} already"
        )
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
        raise _wrong(section.source, at, what=f"{section.shown}, and no item has the {short(key)} {_named(name)}")
    return found


def _key(item: Tree, key: str) -> str | float | bool | None:
    """The scalar by which an item is known; None where it has none."""
    found = item.mapping.get(key) if item.mapping is not None else None
    if found is None or found.mapping is not None or found.items is not None:
        return None
    return cast("str | float | bool | None", found.value)


def _named(key: str | float | bool | None) -> str:
    return repr(short(key) if isinstance(key, str) else key)


def _fresh(section: _ListPart, at: Location) -> list[Tree]:
    return [_without_operators(item, at=(*at, number)) for number, item in enumerate(section.items)]


def _plain(section: _ListPart, at: Location) -> None:
    if section.argument:
        raise _wrong(section.source, at, what=f"{section.shown}, should be (( {section.operator} ))")


def _wrong(source: str, at: Location, *, what: str) -> UsageError:
    return UsageError(f"{source}: {shown(at)}: {what}")
