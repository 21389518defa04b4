"""Which prefixes of Services a node announces, to which routers, and with which attributes.

Always holds: a prefix has one class, which is a number that follows from routers and attributes alone; what many Services have
in common is one class, so that a Service that comes or goes is a route and no configuration. A node that is cordoned announces
only what no other node can: a drain cordons before it evicts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network

from moyai.kube.objects import AddressPool, NamespacedName, Node, Service, parse_range
from moyai.kube.objects.bgp import BgpAdvertisement, unknown_communities
from moyai.plan.announce.speakers import by_address, in_service, pool_of
from moyai.plan.bgp.sessions import Remark

#: Classes are numbered up to here; other entries of a route map come behind. Below 2^24, where FRR would read a distance.
MOST_CLASSES = 60000


@dataclass(frozen=True, order=True)
class Attributes:
    """``large`` communities are those of RFC 8092. ``local_pref`` 0: none."""

    communities: tuple[str, ...] = ()
    large: tuple[str, ...] = ()
    local_pref: int = 0


@dataclass(frozen=True)
class RouteClass:
    """``number`` is in the route's metric. ``peers``: name of a router → attributes that it is told."""

    number: int
    peers: Mapping[str, Attributes]


@dataclass(frozen=True)
class Announced:
    """``prefixes``: CIDR → its class. ``told``: Service → names of the routers that it is announced to."""

    prefixes: Mapping[str, RouteClass] = field(default_factory=dict[str, RouteClass])
    told: Mapping[NamespacedName, tuple[str, ...]] = field(default_factory=dict[NamespacedName, tuple[str, ...]])
    remarks: tuple[Remark, ...] = ()


@dataclass(frozen=True)
class Announcing:
    """``services``: those that are announced. ``endpoints``: Service → nodes with a ready endpoint. ``peers``: names of the
    routers that this node speaks to, ``known`` those of all routers. ``names``: of communities. ``ranges``: what may be
    announced."""

    services: Collection[Service]
    nodes: Collection[Node]
    pools: Collection[AddressPool]
    advertisements: Collection[BgpAdvertisement]
    endpoints: Mapping[str, frozenset[str]]
    peers: Collection[str]
    known: Collection[str] = ()
    names: Mapping[str, str] = field(default_factory=dict[str, str])
    ranges: Collection[str] = ()


def announced(node: str, now: Announcing) -> Announced:
    remarks: dict[Remark, None] = {}
    usable = [one for one in now.advertisements if _usable(one, now, remarks=remarks)]
    me = next((one for one in now.nodes if one.name == node), None)
    told: dict[str, dict[str, Attributes]] = {}
    shown: dict[NamespacedName, set[str]] = {}
    for address, services in sorted(by_address(now.services).items()):
        pool = pool_of(address, now.pools)
        adverts = [one for one in usable if pool and _about(one, pool, services=services)]
        mine = [one for one in adverts if me and _announces(me, one, services=services, now=now)]
        for one in mine:
            prefix = _prefix(address, one, now=now, remarks=remarks)
            peers = [name for name in now.peers if not one.peers or name in one.peers]
            for name in peers if prefix else ():
                _tell(told.setdefault(prefix, {}), name, one=one, now=now, remarks=remarks)
                for service in services:
                    shown.setdefault(service.full_name, set()).add(name)
    return Announced(_classes(told), {key: tuple(sorted(names)) for key, names in shown.items()}, tuple(remarks))


def _usable(one: BgpAdvertisement, now: Announcing, *, remarks: dict[Remark, None]) -> bool:
    remarks.update({Remark(one.about, said, warning=False): None for said in one.remarks})
    if not 0 <= one.length <= 32:
        remarks[Remark(one.about, f"spec.aggregationLength: {one.length} is not within 0 to 32")] = None
        return False
    for name in sorted(set(one.peers).difference(now.peers, now.known)):
        remarks[Remark(one.about, f"spec.peers: there is no BGPPeer {name}")] = None
    if unknown := unknown_communities(one.communities, now.names):
        said = f"spec.communities: {unknown[0]!r} is neither a community as 64512:100 or large:1:2:3 nor the name of one"
        remarks[Remark(one.about, said)] = None
        return False
    return True


def _about(one: BgpAdvertisement, pool: AddressPool, *, services: Iterable[Service]) -> bool:
    return one.chosen.covers(pool) and any(one.chosen.leads_to(service.labels) for service in services)


def _announces(me: Node, one: BgpAdvertisement, *, services: Collection[Service], now: Announcing) -> bool:
    """Whether the node ``me`` does: of the nodes that can, those that stay do, where there are some."""

    def can(node: Node) -> bool:
        return in_service(node) and one.chosen.on(node.labels) and _serves(node.name, services, now=now)

    # other nodes matter only to a node that leaves
    return can(me) and (not me.cordoned or not any(can(other) for other in now.nodes if not other.cordoned))


def _serves(node: str, services: Collection[Service], *, now: Announcing) -> bool:
    """A Service without any ready endpoint is announced by nobody, so that another cluster may answer."""
    for one in services:
        ready = now.endpoints.get(one.key, frozenset())
        if not ready or (one.local_traffic and node not in ready):
            return False
    return True


def _prefix(address: str, one: BgpAdvertisement, *, now: Announcing, remarks: dict[Remark, None]) -> str:
    """Empty for one that reaches beyond what may be announced: the node would keep packets of others to itself."""
    network = IPv4Network(f"{address}/{one.length}", strict=False)
    whole = any(said.first <= network[0] and network[-1] <= said.last for said in (parse_range(text) for text in now.ranges))
    if whole or (one.length == 32 and not now.ranges):
        return str(network)
    allowed = ", ".join(now.ranges) or "nothing"
    remarks[Remark(one.about, f"spec.aggregationLength: {network} is not within {allowed}, which the spec names")] = None
    return ""


def _tell(
    peers: dict[str, Attributes], name: str, *, one: BgpAdvertisement, now: Announcing, remarks: dict[Remark, None]
) -> None:
    said = [now.names.get(value, value) for value in one.communities]
    large = {value.removeprefix("large:") for value in said if value.startswith("large:")}
    plain = {value for value in said if not value.startswith("large:")}
    before = peers.get(name)
    if before is not None and before.local_pref != one.local_pref:
        remarks[Remark(one.about, f"spec.localPref: another advertisement of the same prefix has {before.local_pref}")] = None
    before = before or Attributes()
    peers[name] = Attributes(
        tuple(sorted(plain.union(before.communities))),
        tuple(sorted(large.union(before.large))),
        max(one.local_pref, before.local_pref),
    )


def _classes(told: Mapping[str, Mapping[str, Attributes]]) -> dict[str, RouteClass]:
    kinds = {tuple(sorted(peers.items())): peers for peers in told.values()}
    numbers: dict[object, int] = {}
    for kind in sorted(kinds):
        number = int.from_bytes(hashlib.sha256(repr(kind).encode()).digest()[:4]) % MOST_CLASSES + 1
        while number in numbers.values():
            number = number % MOST_CLASSES + 1
        numbers[kind] = number
    return {
        prefix: RouteClass(numbers[tuple(sorted(peers.items()))], dict(sorted(peers.items()))) for prefix, peers in told.items()
    }
