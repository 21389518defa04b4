"""Which nodes may announce which address, and which few of them compete for it.

Always holds: nodes that see the same objects come to the same answer; only candidates and the owner compete, so that the API is
asked a fixed number of times for each address, however many nodes there are; an owner that may stay the owner stays it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from moyai.kube.objects import AddressPool, L2Advertisement, NamespacedName, Node, Service
from moyai.kube.objects.node import EXCLUDE_LABEL

#: How many nodes compete for an address. If all but one of them die silently, the address still moves at once.
CANDIDATES = 3


@dataclass(frozen=True)
class AnnouncedAddress:
    """``interfaces`` empty: that of the node's own address. ``services``: whom the address leads to."""

    address: str
    interfaces: tuple[str, ...]
    services: tuple[NamespacedName, ...]


@dataclass(frozen=True)
class AnnouncedServices:
    """``services``: those that are announced. ``endpoints``: Service (``namespace/name``) → nodes with a ready endpoint.
    ``owned``: addresses that this node owns."""

    services: Collection[Service]
    nodes: Collection[Node]
    pools: Collection[AddressPool]
    advertisements: Collection[L2Advertisement]
    endpoints: Mapping[str, frozenset[str]]
    owned: Collection[str] = ()


def to_announce(node: str, now: AnnouncedServices) -> dict[str, AnnouncedAddress]:
    """The addresses that ``node`` competes for."""
    found: dict[str, AnnouncedAddress] = {}
    for address, services in by_address(now.services).items():
        adverts = _adverts(address, services, now=now)
        able = {
            one.name: one for one in now.nodes if _able(one, adverts) and _serves(one.name, services, endpoints=now.endpoints)
        }
        if node not in able:
            continue
        # the interfaces of other nodes are not known here: where an advertisement names some, each node that has one competes
        few = not any(one.interfaces for one in adverts)
        if few and address not in now.owned and node not in ranked(address, able)[:CANDIDATES]:
            continue
        mine = [one.interfaces for one in adverts if one.on(able[node].labels)]
        interfaces = () if () in mine else tuple(sorted({name for names in mine for name in names}))
        found[address] = AnnouncedAddress(address, interfaces, tuple(sorted(one.full_name for one in services)))
    return found


def by_address(services: Iterable[Service]) -> dict[str, list[Service]]:
    """Address → the Services that it leads to."""
    found: dict[str, list[Service]] = {}
    for service in services:
        if service.ingress and service.ingress[0].ip and not service.deleting:
            found.setdefault(service.ingress[0].ip, []).append(service)
    return found


def in_service(node: Node) -> bool:
    """Whether the node may announce anything."""
    return (
        node.ready is True and not node.deleting and EXCLUDE_LABEL not in node.labels and node.network_unavailable is not True
    )


def ranked(address: str, nodes: Iterable[str]) -> list[str]:
    """Another order for each address, so that addresses spread over nodes."""
    return sorted(nodes, key=lambda one: hashlib.sha256(f"{one}#{address}".encode()).digest())


def _adverts(address: str, services: Collection[Service], *, now: AnnouncedServices) -> list[L2Advertisement]:
    pool = pool_of(address, now.pools)
    if pool is None:
        return []
    return [one for one in now.advertisements if one.covers(pool) and any(one.leads_to(of.labels) for of in services)]


def pool_of(address: str, pools: Collection[AddressPool]) -> AddressPool | None:
    """Of pools that overlap the oldest counts, as it does for the allocation."""
    try:
        wanted = IPv4Address(address)
    except ValueError:
        return None
    ordered = sorted(pools, key=lambda one: (one.created, one.name))
    return next((one for one in ordered if not one.problems and wanted in one), None)


def _able(node: Node, adverts: Collection[L2Advertisement]) -> bool:
    return in_service(node) and any(one.on(node.labels) for one in adverts)


def _serves(node: str, services: Collection[Service], *, endpoints: Mapping[str, frozenset[str]]) -> bool:
    return all(node in endpoints.get(one.key, frozenset()) for one in services if one.local_traffic)
