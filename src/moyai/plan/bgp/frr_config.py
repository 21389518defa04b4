"""FRR's configuration as data, and the commands that lead from one to another.

Always holds: the commands touch only what differs. A session whose own lines stay is not touched, whatever changes in maps,
lists and profiles; one whose lines change is made again. What is named is there before what names it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class MapEntry:
    """``lines`` are conditions and changes of a route that it permits."""

    lines: tuple[str, ...] = ()
    permit: bool = True


@dataclass(frozen=True)
class NeighbourLines:
    """What stands behind ``neighbor ADDRESS`` in the router's part (``session``, which may hold a password) and in that of
    IPv4's routes."""

    session: tuple[str, ...] = field(repr=False)
    family: tuple[str, ...] = ()


@dataclass(frozen=True)
class FrrConfig:
    """``lists``: name → sequence number → entry of a prefix list. ``maps``: name → sequence number → entry of a route map.
    ``redistribute``: the map for routes of the kernel, empty for none."""

    asn: int = 0
    router_id: str = ""
    networks: frozenset[str] = frozenset()
    redistribute: str = ""
    neighbours: Mapping[str, NeighbourLines] = field(default_factory=dict[str, NeighbourLines])
    lists: Mapping[str, Mapping[int, str]] = field(default_factory=dict[str, Mapping[int, str]])
    maps: Mapping[str, Mapping[int, MapEntry]] = field(default_factory=dict[str, Mapping[int, MapEntry]])
    profiles: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])


@dataclass(frozen=True)
class FrrCommands:
    """For FRR's daemon of BFD, and then for that of BGP. They may hold a password."""

    bfdd: tuple[str, ...] = field(default=(), repr=False)
    bgpd: tuple[str, ...] = field(default=(), repr=False)


def frr_commands(old: FrrConfig, new: FrrConfig) -> FrrCommands:
    """``old``: what FRR has; ``FrrConfig()`` for one that has just started."""
    return FrrCommands(tuple(_bfdd(old, new)), tuple(_bgpd(old, new)))


def _bfdd(old: FrrConfig, new: FrrConfig) -> Iterator[str]:
    changed = {name: lines for name, lines in new.profiles.items() if old.profiles.get(name) != lines}
    gone = [name for name in old.profiles if name not in new.profiles]
    if changed or gone:
        yield "bfd"
        for name, lines in changed.items():
            yield f"profile {name}"
            # each profile has every line, so that nothing of an earlier one remains
            yield from lines
            yield "exit"
        for name in gone:
            yield f"no profile {name}"
        yield "exit"


def _bgpd(old: FrrConfig, new: FrrConfig) -> Iterator[str]:
    if not old.asn:
        # changes of maps take effect after this many seconds
        yield "bgp route-map delay-timer 1"
    for name, entries in new.lists.items():
        before = old.lists.get(name, {})
        yield from (f"no ip prefix-list {name} seq {seq} {entry}" for seq, entry in before.items() if entries.get(seq) != entry)
        yield from (f"ip prefix-list {name} seq {seq} {entry}" for seq, entry in entries.items() if before.get(seq) != entry)
    for name, entries in new.maps.items():
        yield from _map(name, old.maps.get(name, {}), new=entries)
    if old.asn and (old.asn, old.router_id) != (new.asn, new.router_id):
        yield f"no router bgp {old.asn}"
        old = replace(old, asn=0, networks=frozenset(), redistribute="", neighbours={})
    if new.asn:
        yield from _router(old, new)
    yield from (f"no route-map {name}" for name in old.maps if name not in new.maps)
    yield from (f"no ip prefix-list {name}" for name in old.lists if name not in new.lists)


def _map(name: str, old: Mapping[int, MapEntry], *, new: Mapping[int, MapEntry]) -> Iterator[str]:
    def head(seq: int, entry: MapEntry) -> str:
        return f"route-map {name} {'permit' if entry.permit else 'deny'} {seq}"

    # an entry is recreated: otherwise a line that is gone would stay in it
    yield from (f"no {head(seq, entry)}" for seq, entry in old.items() if new.get(seq) != entry)
    for seq, entry in new.items():
        if old.get(seq) != entry:
            yield from (head(seq, entry), *entry.lines, "exit")


def _router(old: FrrConfig, new: FrrConfig) -> Iterator[str]:
    gone = [one for one, lines in old.neighbours.items() if new.neighbours.get(one) != lines]
    come = {one: lines for one, lines in new.neighbours.items() if old.neighbours.get(one) != lines}
    networks, fresh = old.networks ^ new.networks, not old.asn
    if not (gone or come or networks or fresh or old.redistribute != new.redistribute):
        return
    yield f"router bgp {new.asn}"
    if fresh:
        yield f"bgp router-id {new.router_id}"
        yield from ("no bgp default ipv4-unicast", "no bgp network import-check", "bgp log-neighbor-changes")
        yield "bgp bestpath as-path multipath-relax"
        # FRR waits a second before its first routes to a new neighbour, and never withdraws a route that is gone by then
        yield "coalesce-time 0"
        # seconds: an agent that ended is there again sooner, and a router without BFD keeps paths of a dead node for so long
        yield "bgp graceful-restart restart-time 60"
    yield from (f"no neighbor {one}" for one in gone)
    for one, lines in come.items():
        yield from (f"neighbor {one} {line}" for line in lines.session)
    yield "address-family ipv4 unicast"
    if fresh:
        yield from ("maximum-paths 16", "maximum-paths ibgp 16")
    yield from (f"no network {one}" for one in sorted(old.networks - new.networks))
    yield from (f"network {one}" for one in sorted(new.networks - old.networks))
    if old.redistribute and old.redistribute != new.redistribute:
        yield "no redistribute kernel"
    if new.redistribute and old.redistribute != new.redistribute:
        yield f"redistribute kernel route-map {new.redistribute}"
    for one, lines in come.items():
        yield from (f"neighbor {one} {line}" for line in lines.family)
    yield from ("exit-address-family", "exit")
