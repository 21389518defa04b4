"""The little of a node's nftables that decides about a packet's addresses: kube-proxy's choice, and masquerading.

The input is libnftables' JSON (libnftables-json(5)). Always holds: a condition that is not understood counts as not met, so
that nothing is reported that the kernel may not do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import cast

from moyai.kube.objects.meta import part, rows, text
from moyai.kube.resources import Json
from moyai.plan.network_policy.table_names import TABLE as POLICY_TABLE

PROXY, OWN = "kube-proxy", "moyai"
#: kube-proxy's chain for all packets, and that of its older versions which marks a packet for masquerading; the maps from a
#: Service to its chain; the set of pods that are sent to themselves.
_ALL, _MARK, _SERVICES, _WITHOUT, _HAIRPIN = (
    "services",
    "mark-for-masquerade",
    "service-ips",
    "no-endpoint-services",
    "hairpin-connections",
)
#: A system without a list of protocols makes nftables print their numbers.
_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 132: "sctp"}
#: Chains lead no deeper.
_DEEPEST = 8


@dataclass(frozen=True)
class Packet:
    """The first of a connection. ``protocol``: tcp, udp, sctp or icmp. ``port``: the destination's, 0 for none."""

    source: str
    destination: str
    protocol: str = "tcp"
    port: int = 0

    @property
    def target(self) -> str:
        return f"{self.destination}:{self.port}/{self.protocol}" if self.port else f"{self.destination} ({self.protocol})"


@dataclass(frozen=True)
class Translated:
    """kube-proxy's choice. ``endpoints``: (address, port) of all that it may choose. ``masqueraded``: of the first of them."""

    endpoints: tuple[tuple[str, int], ...] = ()
    masqueraded: bool = False
    #: Why there is none: ``unknown`` (no such Service), ``empty`` (no ready endpoint).
    lack: str = ""


class Ruleset:
    """``objects``: what libnftables lists, of whole tables and of chains alone."""

    def __init__(self, objects: Iterable[Json]) -> None:
        self._rules: dict[tuple[str, str], list[list[Json]]] = {}
        #: Sets and maps.
        self._elements: dict[tuple[str, str], list[object]] = {}
        self._chains: dict[tuple[str, str], Json] = {}
        for one in objects:
            for kind in ("chain", "rule", "map", "set"):
                if found := part(one, kind):
                    self._take(kind, found)

    def _take(self, kind: str, found: Json) -> None:
        table = text(found, "table")
        if kind == "rule":
            self._rules.setdefault((table, text(found, "chain")), []).append(rows(found, "expr"))
        elif kind == "chain":
            self._chains[table, text(found, "name")] = found
        else:
            self._elements[table, text(found, "name")] = _list(found.get("elem"))

    def has_table(self, table: str) -> bool:
        return any(one == table for one, _ in self._chains)

    def has_policy(self, chain: str) -> bool:
        """Whether the table of network policies has this chain."""
        return (POLICY_TABLE, chain) in self._chains

    def closed(self, hook: str) -> list[str]:
        """Chains of others at a hook that drop what none of their rules accepts, as ``table TABLE chain CHAIN``."""
        return [
            f"table {text(one, 'family')} {table} chain {name}"
            for (table, name), one in self._chains.items()
            if text(one, "hook") == hook and text(one, "policy") == "drop" and table not in (PROXY, OWN, POLICY_TABLE)
        ]

    def masquerades(self, packet: Packet) -> bool:
        """Whether moyai's own table replaces the source by the node's."""
        rules = self._rules.get((OWN, "postrouting"), ())
        return any("masquerade" in one[-1] and self._met(one, packet, table=OWN) for one in rules if one)

    def rejects(self, packet: Packet) -> bool:
        """Whether moyai's own table refuses to forward the packet: the cloud's metadata service is not for pods."""
        rules = self._rules.get((OWN, "forward"), ())
        return any("reject" in one[-1] and self._met(one, packet, table=OWN) for one in rules if one)

    def translate(self, packet: Packet) -> Translated:
        """What kube-proxy makes of a packet to a Service."""
        chain = self._mapped(_SERVICES, packet)
        if chain is None:
            return Translated(lack="empty" if self._mapped(_WITHOUT, packet) is not None else "unknown")
        found = dict.fromkeys(self._endpoints(chain, packet, depth=0))
        # a pod that is sent to itself is the least telling choice
        endpoints = tuple(sorted(found, key=lambda one: one[0] == packet.source))
        if not endpoints:
            return Translated(lack="empty")
        address, port = endpoints[0]
        hairpin = [packet.source, address, packet.protocol, port]
        marked = (
            self._marks(_ALL, packet)
            or self._marks(chain, packet)
            or any(_concat(one) == hairpin for one in self._elements.get((PROXY, _HAIRPIN), ()))
            # older versions have a chain for each endpoint, which says the same
            or packet.source == address
        )
        return Translated(endpoints, masqueraded=marked)

    def _mapped(self, name: str, packet: Packet) -> str | None:
        wanted = [packet.destination, packet.protocol, packet.port]
        for element in self._elements.get((PROXY, name), ()):
            key, value = ([*_list(element), None, None])[:2]
            if _concat(key) == wanted:
                return _target(_object(value))
        return None

    def _marks(self, chain: str, packet: Packet) -> bool:
        """Whether a rule of the chain marks the packet for masquerading."""
        return any(
            (_target(one[-1]) == _MARK or text(part(one[-1], "mangle", "key", "meta"), "key") == "mark")
            and self._met(one, packet, table=PROXY)
            for one in self._rules.get((PROXY, chain), ())
            if one
        )

    def _endpoints(self, chain: str, packet: Packet, *, depth: int) -> Iterator[tuple[str, int]]:
        """All that a Service's chain may send a packet to."""
        expressions = [one for rule in self._rules.get((PROXY, chain), ()) for one in rule]
        for one in expressions if depth < _DEEPEST else ():
            for address, port in _translations(part(one, "dnat")):
                yield address, port or packet.port
            choices = (
                _target(_object(_list(element)[-1])) for element in _members(part(one, "vmap", "data")) if _list(element)
            )
            for target in (_target(one), *choices):
                if target and target != _MARK:
                    yield from self._endpoints(target, packet, depth=depth + 1)

    def _met(self, expressions: Iterable[Json], packet: Packet, *, table: str) -> bool:
        return all(self._meets(part(one, "match"), packet, table=table) for one in expressions if "match" in one)

    def _meets(self, match: Json, packet: Packet, *, table: str) -> bool:
        left = part(match, "left")
        values: Mapping[str, str | int] = {"saddr": packet.source, "daddr": packet.destination, "dport": packet.port}
        value = values.get(text(part(left, "payload"), "field"))
        if text(part(left, "meta"), "key") == "l4proto":
            value = packet.protocol
        if value is None:
            return False
        right = match.get("right")
        if isinstance(right, str) and right.startswith("@"):
            right = {"set": self._elements.get((table, right[1:]), [])}
        equal = _in(value, right)
        return not equal if match.get("op") == "!=" else equal


def _in(value: str | int, right: object) -> bool:
    found = _object(right)
    if "prefix" in found:
        prefix = part(found, "prefix")
        network = IPv4Network(f"{prefix['addr']}/{prefix['len']}", strict=False)
        return isinstance(value, str) and IPv4Address(value) in network
    if "range" in found and isinstance(value, int):
        first, last = found["range"]
        return first <= value <= last
    if found:
        return any(_in(value, one) for one in _members(found))
    return value in (right, _named(right))


def _members(found: Json) -> list[object]:
    """Of a set that is written where it is used."""
    return _list(found.get("set"))


def _translations(dnat: Json) -> Iterator[tuple[str, int]]:
    """(address, port) of all that a translation may choose; port 0: the packet's own."""
    address, port = dnat.get("addr"), dnat.get("port")
    if isinstance(address, str):
        yield address, port if isinstance(port, int) else 0
        return
    choices = [_list(element)[-1] for element in _members(part(dnat, "addr", "map", "data")) if _list(element)]
    for one in (address, *choices):
        pair = _concat(one)
        if len(pair) == 2:
            yield str(pair[0]), int(cast("int", pair[1]))


def _concat(value: object) -> list[object]:
    """A joined value, with protocols by name."""
    found = _object(value)
    element = part(found, "elem", "val") or found  # with a counter or a time-out
    joined = _list(element.get("concat"))
    # the last one is a port
    return [*map(_named, joined[:-1]), *joined[-1:]]


def _named(value: object) -> object:
    return _PROTOCOLS.get(value, value) if isinstance(value, int) else value


def _target(expression: Json) -> str:
    return text(part(expression, "goto"), "target") or text(part(expression, "jump"), "target")


def _object(value: object) -> Json:
    return cast("Json", value) if isinstance(value, dict) else {}


def _list(value: object) -> list[object]:
    return cast("list[object]", value) if isinstance(value, list) else []
