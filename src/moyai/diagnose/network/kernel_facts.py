"""What a node's kernel has, as ``linux.network_facts`` printed it there, and the questions that the kernel answers with it.

Always holds: a field that is missing reads as empty, for the program may be of another version.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network

from moyai.kube.objects.meta import number, part, rows, text
from moyai.kube.resources import Json

#: linux/rtnetlink.h
MAIN, LOCAL = 254, 255


@dataclass(frozen=True)
class VxlanFacts:
    vni: int
    port: int
    local: str
    parent: int


@dataclass(frozen=True)
class LinkFacts:
    """``kind``: ``veth``, ``bridge``, ``vxlan`` …, empty for hardware. ``peer``: index of a veth's other end, in whatever
    namespace that is. ``mtu`` in bytes."""

    index: int
    name: str
    kind: str = ""
    mtu: int = 0
    mac: str = ""
    up: bool = True
    master: int = 0
    peer: int = 0
    vxlan: VxlanFacts | None = None


@dataclass(frozen=True)
class RouteFacts:
    """``kind``: ``unicast``, ``local``, ``unreachable`` … ``index``: of the device, 0 for none."""

    destination: str
    gateway: str = ""
    index: int = 0
    table: int = MAIN
    protocol: int = 0
    metric: int = 0
    kind: str = "unicast"
    source: str = ""

    @property
    def text(self) -> str:
        """As `ip route` writes it, without the device."""
        words = [] if self.kind == "unicast" else [self.kind]
        words.append("default" if self.destination == "0.0.0.0/0" else self.destination)
        words += ["via", self.gateway] if self.gateway else []
        words += ["proto", str(self.protocol)] if self.protocol > 4 else []
        return " ".join([*words, *(["metric", str(self.metric)] if self.metric else [])])


@dataclass(frozen=True)
class RoutingRule:
    """Which table is looked up, for packets from ``source``, to ``target``, in by ``device``; empty: all."""

    priority: int
    table: int
    source: str = ""
    target: str = ""
    device: str = ""
    mark: int = 0


@dataclass(frozen=True)
class NeighbourFacts:
    """``address`` has ``mac``; of a forwarding entry: frames for ``mac`` go to ``address``, without one out of the link."""

    index: int
    address: str
    mac: str
    state: str = ""


@dataclass(frozen=True)
class PodSpace:
    """The namespace of a pod: its link, and its routes."""

    namespace: str
    link: LinkFacts
    routes: tuple[RouteFacts, ...] = ()


@dataclass(frozen=True)
class Kernel:
    """``addresses``: address → index of its link. ``pods``: address → namespace, of those that were asked for. ``searched``:
    whether namespaces could be looked through. ``tables``: of nftables, as JSON. ``unreadable``: why there are none."""

    links: Mapping[int, LinkFacts] = field(default_factory=dict[int, LinkFacts])
    addresses: Mapping[str, int] = field(default_factory=dict[str, int])
    subnets: Mapping[int, tuple[str, ...]] = field(default_factory=dict[int, tuple[str, ...]])
    routes: tuple[RouteFacts, ...] = ()
    rules: tuple[RoutingRule, ...] = (RoutingRule(0, LOCAL), RoutingRule(32766, MAIN))
    neighbours: tuple[NeighbourFacts, ...] = ()
    entries: tuple[NeighbourFacts, ...] = ()
    forwards: bool = True
    tables: tuple[Json, ...] = ()
    unreadable: str = ""
    pods: Mapping[str, PodSpace] = field(default_factory=dict[str, PodSpace])
    searched: bool = False

    def lookup(self, destination: str, *, source: str = "", device: str = "") -> RouteFacts | None:
        """The route that a packet takes, as the rules and tables say it; None where there is none."""
        for rule in sorted(self.rules, key=lambda one: one.priority):
            if rule.mark or not _applies(rule, destination, source=source, device=device):
                continue
            found = best((one for one in self.routes if one.table == rule.table), destination)
            if found is not None and found.kind != "throw":
                return found
        return None

    def neighbour(self, index: int, address: str) -> NeighbourFacts | None:
        return next((one for one in self.neighbours if one.index == index and one.address == address), None)

    def entry(self, index: int, mac: str) -> NeighbourFacts | None:
        """The forwarding entry of a tunnel."""
        return next((one for one in self.entries if one.index == index and one.mac == mac and one.address), None)

    def link_of(self, address: str) -> LinkFacts | None:
        return self.links.get(self.addresses.get(address, 0))

    def veth_of(self, pod: PodSpace) -> LinkFacts | None:
        """The node's end of a pod's link."""
        return self.links.get(pod.link.peer)

    def source_for(self, route: RouteFacts) -> str:
        """The address with which the node itself sends by this route."""
        return route.source or next((address for address, index in self.addresses.items() if index == route.index), "")


def best(routes: Iterable[RouteFacts], destination: str) -> RouteFacts | None:
    """The longest prefix with the least metric."""
    address = IPv4Address(destination)
    fitting = [one for one in routes if address in IPv4Network(one.destination, strict=False)]
    return min(fitting, key=lambda one: (-IPv4Network(one.destination, strict=False).prefixlen, one.metric), default=None)


def _applies(rule: RoutingRule, destination: str, *, source: str, device: str) -> bool:
    return (
        (not rule.source or (bool(source) and IPv4Address(source) in IPv4Network(rule.source, strict=False)))
        and (not rule.target or IPv4Address(destination) in IPv4Network(rule.target, strict=False))
        and (not rule.device or rule.device == device)
    )


def parse_kernel(found: Json) -> Kernel:
    links = [_link(one) for one in rows(found, "links")]
    addresses = rows(found, "addresses")
    subnets: dict[int, tuple[str, ...]] = {}
    for one in addresses:
        subnet = str(IPv4Network(f"{text(one, 'address')}/{number(one, 'prefix')}", strict=False))
        subnets[number(one, "index")] = (*subnets.get(number(one, "index"), ()), subnet)
    pods = {
        address: PodSpace(text(one, "namespace"), _link(part(one, "link")), tuple(map(_route, rows(one, "routes"))))
        for address, one in ((address, part(found, "pods", address)) for address in part(found, "pods"))
    }
    return Kernel(
        links={one.index: one for one in links},
        addresses={text(one, "address"): number(one, "index") for one in addresses},
        subnets=subnets,
        routes=tuple(map(_route, rows(found, "routes"))),
        rules=tuple(map(_rule, rows(found, "rules"))),
        neighbours=tuple(map(_neighbour, rows(found, "neighbours"))),
        entries=tuple(map(_neighbour, rows(found, "entries"))),
        forwards=bool(found.get("forwards")),
        tables=tuple(rows(found, "tables")),
        unreadable=text(found, "unreadable"),
        pods=pods,
        searched=bool(found.get("searched")),
    )


def _link(found: Json) -> LinkFacts:
    tunnel = part(found, "vxlan")
    vxlan = VxlanFacts(number(tunnel, "vni"), number(tunnel, "port"), text(tunnel, "local"), number(tunnel, "parent"))
    return LinkFacts(
        index=number(found, "index"),
        name=text(found, "name"),
        kind=text(found, "kind"),
        mtu=number(found, "mtu"),
        mac=text(found, "mac"),
        up=bool(found.get("up")),
        master=number(found, "master"),
        peer=number(found, "peer"),
        vxlan=vxlan if tunnel else None,
    )


def _route(found: Json) -> RouteFacts:
    return RouteFacts(
        destination=text(found, "destination"),
        gateway=text(found, "gateway"),
        index=number(found, "index"),
        table=number(found, "table"),
        protocol=number(found, "protocol"),
        metric=number(found, "metric"),
        kind=text(found, "kind"),
        source=text(found, "source"),
    )


def _rule(found: Json) -> RoutingRule:
    return RoutingRule(
        number(found, "priority"),
        number(found, "table"),
        source=text(found, "source"),
        target=text(found, "target"),
        device=text(found, "device"),
        mark=number(found, "mark"),
    )


def _neighbour(found: Json) -> NeighbourFacts:
    return NeighbourFacts(number(found, "index"), text(found, "address"), mac=text(found, "mac"), state=text(found, "state"))
