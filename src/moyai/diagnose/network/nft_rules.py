"""The little of a node's nftables that decides about a packet's addresses: kube-proxy's choice, and masquerading.

The input is libnftables' JSON (libnftables-json(5)). Always holds: a condition that is not understood counts as not met, so
that nothing is reported that the kernel may not do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any, cast

from moyai.kube.objects.meta import part, rows, text
from moyai.kube.resources import Json
from moyai.plan.network_policy.table_names import TABLE as POLICY_TABLE

PROXY, OWN = "kube-proxy", "moyai"
#: kube-proxy's chain that marks a packet for masquerading, and the map from a Service to its chain.
_MARK, _SERVICES, _WITHOUT = "mark-for-masquerade", "service-ips", "no-endpoint-services"
_Verdict = tuple[str, str]


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
        self._maps: dict[tuple[str, str], list[object]] = {}
        self._chains: dict[tuple[str, str], Json] = {}
        for one in objects:
            for kind in ("chain", "rule", "map"):
                if found := part(one, kind):
                    self._take(kind, found)

    def _take(self, kind: str, found: Json) -> None:
        table = text(found, "table")
        if kind == "rule":
            self._rules.setdefault((table, text(found, "chain")), []).append(rows(found, "expr"))
        elif kind == "map":
            elements = found.get("elem")
            self._maps[table, text(found, "name")] = cast("list[object]", elements) if isinstance(elements, list) else []
        else:
            self._chains[table, text(found, "name")] = found

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
        return any(
            "masquerade" in expressions[-1] and self._met(expressions, packet)
            for expressions in self._rules.get((OWN, "postrouting"), ())
            if expressions
        )

    def translate(self, packet: Packet) -> Translated:
        """What kube-proxy makes of a packet to a Service."""
        chain = self._mapped(_SERVICES, packet)
        if chain is None:
            return Translated(lack="empty" if self._mapped(_WITHOUT, packet) is not None else "unknown")
        marked = self._marks(chain, packet)
        endpoints: list[tuple[str, int]] = []
        for endpoint in self._targets(chain, packet):
            for expressions in self._rules.get((PROXY, endpoint), ()):
                if (found := _dnat(expressions)) and found not in endpoints:
                    endpoints.append((found[0], found[1] or packet.port))
                    # a pod that is sent to itself
                    marked = marked or (len(endpoints) == 1 and self._marks(endpoint, replace(packet, destination=found[0])))
        return Translated(tuple(endpoints), masqueraded=marked, lack="" if endpoints else "empty")

    def _mapped(self, name: str, packet: Packet) -> str | None:
        wanted = [packet.destination, packet.protocol, packet.port]
        for element in self._maps.get((PROXY, name), ()):
            key, value = cast("list[Any]", element) if isinstance(element, list) else (element, {})
            if isinstance(key, dict) and cast("Json", key).get("concat") == wanted:
                return _jump(cast("Json", value)) or ""
        return None

    def _marks(self, chain: str, packet: Packet) -> bool:
        return any(
            _jump(expressions[-1]) == _MARK and self._met(expressions, packet)
            for expressions in self._rules.get((PROXY, chain), ())
            if expressions
        )

    def _targets(self, chain: str, packet: Packet) -> Iterator[str]:
        """The chains of endpoints that a Service's chain leads to."""
        for expressions in self._rules.get((PROXY, chain), ()):
            for one in expressions:
                data = part(one, "vmap", "data")
                elements = data.get("set")
                for element in cast("list[Any]", elements) if isinstance(elements, list) else ():
                    if isinstance(element, list) and (target := _jump(cast("Json", element[1]))):
                        yield target
                target = _jump(one)
                if target and target != _MARK:
                    yield from (target,) if target.startswith("endpoint-") else self._targets(target, packet)

    def _met(self, expressions: Iterable[Json], packet: Packet) -> bool:
        return all(_meets(part(one, "match"), packet) for one in expressions if "match" in one)


def _meets(match: Json, packet: Packet) -> bool:
    left, right = part(match, "left"), match.get("right")
    field = text(part(left, "payload"), "field")
    values: Mapping[str, str | int] = {"saddr": packet.source, "daddr": packet.destination, "dport": packet.port}
    value = packet.protocol if text(part(left, "meta"), "key") == "l4proto" else values.get(field)
    if value is None:
        return False
    equal = _in(value, right)
    return not equal if match.get("op") == "!=" else equal


def _in(value: str | int, right: object) -> bool:
    if isinstance(right, dict):
        found = cast("Json", right)
        if "prefix" in found:
            prefix = part(found, "prefix")
            network = IPv4Network(f"{prefix['addr']}/{prefix['len']}", strict=False)
            return isinstance(value, str) and IPv4Address(value) in network
        if "range" in found and isinstance(value, int):
            first, last = found["range"]
            return first <= value <= last
        members = found.get("set")
        return any(_in(value, one) for one in cast("list[object]", members)) if isinstance(members, list) else False
    return value == right


def _jump(expression: Json) -> str:
    return text(part(expression, "goto"), "target") or text(part(expression, "jump"), "target")


def _dnat(expressions: Iterable[Json]) -> tuple[str, int] | None:
    for one in expressions:
        if found := part(one, "dnat"):
            address, port = found.get("addr"), found.get("port")
            if isinstance(address, str):
                return address, port if isinstance(port, int) else 0
            concat = part(found, "addr").get("concat")
            if isinstance(concat, list) and len(cast("list[Any]", concat)) == 2:
                return str(concat[0]), int(cast("Any", concat[1]))
    return None
