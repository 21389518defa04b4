"""Which node answers for the address of each announced Service, by the address's Lease, and which nodes announce it by BGP."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from moyai.kube.objects import Lease, Node, Service
from moyai.plan.announce.metallb_words import FROM_POOL, lease_name


@dataclass(frozen=True)
class AnnouncedState:
    """``service``: ``namespace/name``. ``node``: the owner of the address, empty for none. ``problem``: why nobody answers."""

    service: str
    address: str
    pool: str
    node: str
    problem: str = ""


def announced_states(
    services: Iterable[Service],
    leases: Iterable[Lease],
    *,
    nodes: Sequence[Node],
    told: Mapping[str, Sequence[str]] | None = None,
) -> tuple[AnnouncedState, ...]:
    """``told``: Service → nodes that announce it by BGP."""
    holders = {one.name: one.holder for one in leases}
    ready = {one.name for one in nodes if one.ready}
    made: list[AnnouncedState] = []
    for one in sorted(services, key=lambda service: service.key):
        if not one.balanced or FROM_POOL not in one.annotations or not one.address:
            continue
        node = holders.get(lease_name(one.address), "")
        problem = ""
        speakers = sorted(ready.intersection((told or {}).get(one.key, ())))
        if speakers:
            by_bgp = f"by BGP from {', '.join(speakers)}"
            made.append(
                AnnouncedState(one.key, one.address, one.annotations[FROM_POOL], f"{node}, {by_bgp}" if node else by_bgp)
            )
            continue
        if not node:
            problem = f"no node answers for {one.address} of Service {one.key}: `moyai kubectl describe` its pool says more"
        elif node not in ready:
            problem = f"node {node} has {one.address} of Service {one.key}, is not Ready, and no other took over"
        made.append(AnnouncedState(one.key, one.address, one.annotations[FROM_POOL], node, problem))
    return tuple(made)
