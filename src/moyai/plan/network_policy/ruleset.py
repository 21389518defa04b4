"""The desired table as data, and the difference since it was last taken.

Always holds: ``everything`` of a table equals all its differences in their order; a change that is undone before it is
taken is in no difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Form(StrEnum):
    """What a set holds: addresses, pairs of address and port, pairs of addresses, ranges, a map from address to chain, or flows
    that the kernel itself puts in, each for an hour."""

    ADDRESS = "address"
    PORT = "port"
    PAIR = "pair"
    RANGE = "range"
    MAP = "map"
    FLOW = "flow"


@dataclass(frozen=True)
class SetKind:
    """``family``: 4 or 6, of the addresses in it."""

    form: Form
    family: int


#: An address, a range, (address, port), or (source, destination).
Element = str | tuple[str, int] | tuple[str, str]


class Verdict(StrEnum):
    ACCEPT = "accept"
    DROP = "drop"
    RETURN = "return"


@dataclass(frozen=True)
class Ports:
    """A packet's protocol and destination port. ``ranges`` empty: all ports."""

    protocol: str
    ranges: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Match:
    """``family`` 0: both. ``source``: whether ``addresses`` (name of a set) and ``cidr`` are about the packet's source.
    ``named``: (protocol, name of a set of pairs), looked up with destination address and port."""

    family: int = 0
    source: bool = True
    addresses: str = ""
    cidr: str = ""
    excepts: tuple[str, ...] = ()
    ports: Ports | None = None
    named: tuple[str, str] | None = None


EVERY_PACKET = Match()


@dataclass(frozen=True)
class ChainRule:
    """``jump``: a chain to look through instead of a verdict. ``note``: a set of flows that the packet's is put into instead;
    ``match`` has the set's family. ``counted``: by a counter of its own. ``counter``: by one that has a name, too.
    ``comment``: as ``table_names.comment`` makes it."""

    match: Match = EVERY_PACKET
    verdict: Verdict | None = None
    jump: str = ""
    note: str = ""
    counted: bool = False
    counter: str = ""
    comment: str = ""


@dataclass(frozen=True)
class Delta:
    """What to do so that the table holds what is desired. Elements carry the chain that they lead to, empty in plain sets."""

    new_sets: Mapping[str, SetKind] = field(default_factory=dict[str, SetKind])
    gone_sets: tuple[str, ...] = ()
    chains: Mapping[str, tuple[ChainRule, ...]] = field(default_factory=dict[str, tuple[ChainRule, ...]])
    new_chains: tuple[str, ...] = ()
    gone_chains: tuple[str, ...] = ()
    added: Mapping[str, Mapping[Element, str]] = field(default_factory=dict[str, Mapping[Element, str]])
    removed: Mapping[str, Mapping[Element, str]] = field(default_factory=dict[str, Mapping[Element, str]])
    kinds: Mapping[str, SetKind] = field(default_factory=dict[str, SetKind])
    new_counters: tuple[str, ...] = ()
    gone_counters: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.new_sets or self.gone_sets or self.chains or self.gone_chains or self.added or self.removed)

    @property
    def may_forbid(self) -> bool:
        """Whether something that was permitted may not be any more: a chain changed, an element went, or an address
        is now a pod's that policies select."""
        mapped = any(self.kinds[name].form is Form.MAP for name in self.added)
        return bool(self.chains or self.removed or mapped)


class PolicyTable:
    """What the table is to hold. Sets and chains are made before they are filled; ``take`` returns the difference."""

    def __init__(self) -> None:
        self.kinds: dict[str, SetKind] = {}
        self.elements: dict[str, dict[Element, str]] = {}
        self.chains: dict[str, tuple[ChainRule, ...]] = {}
        self.counters: set[str] = set()
        self._counters_before: dict[str, bool] = {}
        self._sets_before: dict[str, SetKind | None] = {}
        self._chains_before: dict[str, tuple[ChainRule, ...] | None] = {}
        self._elements_before: dict[str, dict[Element, str | None]] = {}

    def add_set(self, name: str, kind: SetKind) -> None:
        self._sets_before.setdefault(name, self.kinds.get(name))
        self.kinds[name] = kind
        self.elements.setdefault(name, {})

    def drop_set(self, name: str) -> None:
        for element in list(self.elements[name]):
            self.discard(name, element)
        self._sets_before.setdefault(name, self.kinds.get(name))
        del self.kinds[name], self.elements[name]

    def put(self, name: str, element: Element, *, target: str = "") -> None:
        held = self.elements[name]
        if held.get(element) != target:
            self._elements_before.setdefault(name, {}).setdefault(element, held.get(element))
            held[element] = target

    def discard(self, name: str, element: Element) -> None:
        held = self.elements[name]
        if element in held:
            self._elements_before.setdefault(name, {}).setdefault(element, held[element])
            del held[element]

    def add_counter(self, name: str) -> None:
        self._counters_before.setdefault(name, name in self.counters)
        self.counters.add(name)

    def drop_counter(self, name: str) -> None:
        self._counters_before.setdefault(name, name in self.counters)
        self.counters.discard(name)

    def set_chain(self, name: str, rules: tuple[ChainRule, ...]) -> None:
        if self.chains.get(name) != rules:
            self._chains_before.setdefault(name, self.chains.get(name))
            self.chains[name] = rules

    def drop_chain(self, name: str) -> None:
        self._chains_before.setdefault(name, self.chains.get(name))
        del self.chains[name]

    def take(self) -> Delta:
        """The difference since the last call; from now on it counts as done."""
        new_sets = {n: self.kinds[n] for n, before in self._sets_before.items() if before is None and n in self.kinds}
        gone_sets = {n: before for n, before in self._sets_before.items() if before is not None and n not in self.kinds}
        chains = {
            name: self.chains[name]
            for name, before in self._chains_before.items()
            if name in self.chains and self.chains[name] != before
        }
        added: dict[str, dict[Element, str]] = {}
        removed: dict[str, dict[Element, str]] = {}
        for name, befores in self._elements_before.items():
            held = self.elements.get(name, {})
            for element, before in befores.items():
                now = held.get(element)
                if now == before:
                    continue
                # with a set that goes its elements go; but an element of a map holds on to its chain until it is removed
                if before is not None:
                    removed.setdefault(name, {})[element] = before
                if now is not None:
                    added.setdefault(name, {})[element] = now
        delta = Delta(
            new_sets=new_sets,
            gone_sets=tuple(gone_sets),
            chains=chains,
            new_chains=tuple(name for name in chains if self._chains_before[name] is None),
            gone_chains=tuple(
                name for name, before in self._chains_before.items() if before is not None and name not in self.chains
            ),
            added=added,
            removed=removed,
            kinds={name: self.kinds.get(name) or gone_sets[name] for name in (*added, *removed)},
            new_counters=tuple(n for n, before in self._counters_before.items() if not before and n in self.counters),
            gone_counters=tuple(n for n, before in self._counters_before.items() if before and n not in self.counters),
        )
        self._forget()
        return delta

    def everything(self) -> Delta:
        """All of it, for a table that holds nothing; from now on it counts as done."""
        self._forget()
        return Delta(
            new_sets=dict(self.kinds),
            chains=dict(self.chains),
            new_chains=tuple(self.chains),
            added={name: dict(held) for name, held in self.elements.items() if held},
            kinds=dict(self.kinds),
            new_counters=tuple(sorted(self.counters)),
        )

    def _forget(self) -> None:
        for one in (self._sets_before, self._chains_before, self._elements_before, self._counters_before):
            one.clear()
