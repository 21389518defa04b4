"""Resilient groups of next hops: what a router's kernel is to have for the ways that its BGP has found, and the steps to it.

Pure. A kernel spreads connections over the next hops of a plain route anew when one goes or comes, so that connections of nodes
that live break. A resilient group moves only those of the one that went.

Always holds: a prefix keeps its group while it has a way, and a next hop its number; what is named is there before what names
it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

#: Numbers of next hops and of groups begin here. FRR counts its own from 1.
FIRST_HOP, FIRST_GROUP = 0x6D000000, 0x6E000000


@dataclass(frozen=True, order=True)
class NextHop:
    """``link``: index of the device."""

    gateway: str
    link: int


@dataclass(frozen=True)
class GroupState:
    """``hops``: number → next hop. ``groups``: number → numbers of next hops. ``routes``: prefix → number of its group."""

    hops: Mapping[int, NextHop] = field(default_factory=dict[int, NextHop])
    groups: Mapping[int, frozenset[int]] = field(default_factory=dict[int, frozenset[int]])
    routes: Mapping[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True)
class PutHop:
    number: int
    hop: NextHop


@dataclass(frozen=True)
class PutGroup:
    number: int
    hops: frozenset[int]


@dataclass(frozen=True)
class PutRoute:
    prefix: str
    group: int


@dataclass(frozen=True)
class DropRoute:
    prefix: str


@dataclass(frozen=True)
class DropNextHop:
    """Also a group."""

    number: int


GroupStep = PutHop | PutGroup | PutRoute | DropRoute | DropNextHop


def group_steps(wanted: Mapping[str, frozenset[NextHop]], have: GroupState) -> tuple[GroupStep, ...]:
    """``wanted``: prefix → its next hops, at least one."""
    return tuple(_steps(wanted, have))


def _steps(wanted: Mapping[str, frozenset[NextHop]], have: GroupState) -> Iterator[GroupStep]:
    numbers = {hop: number for number, hop in have.hops.items()}
    free = _free(FIRST_HOP, have.hops)
    for hop in sorted({one for hops in wanted.values() for one in hops}):
        if hop not in numbers:
            numbers[hop] = next(free)
            yield PutHop(numbers[hop], hop)
    used: set[int] = set()
    free = _free(FIRST_GROUP, have.groups)
    for prefix, hops in sorted(wanted.items()):
        number = have.routes.get(prefix, 0)
        if number not in have.groups:
            number = next(free)
        used.add(number)
        members = frozenset(numbers[one] for one in hops)
        if have.groups.get(number) != members:
            yield PutGroup(number, members)
        if have.routes.get(prefix) != number:
            yield PutRoute(prefix, number)
    yield from (DropRoute(prefix) for prefix in sorted(have.routes) if prefix not in wanted)
    yield from (DropNextHop(number) for number in sorted(have.groups) if number not in used)
    alive = {one for hops in wanted.values() for one in hops}
    yield from (DropNextHop(number) for number, hop in sorted(have.hops.items()) if hop not in alive)


def _free(first: int, taken: Mapping[int, object]) -> Iterator[int]:
    number = first
    while True:
        if number not in taken:
            yield number
        number += 1
