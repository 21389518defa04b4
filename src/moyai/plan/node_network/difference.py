"""From what a kernel has to what it is to have: the steps in their order.

Always holds: after the steps the difference is empty; after any first part of them, another run of this function gives the
rest. What is changed is replaced in one step, never removed first. A node's entry on the way to a pod comes before the route
that uses it, and goes after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from moyai.plan.node_network.node_state import (
    AdjustTunnel,
    CreateTunnel,
    DeleteLink,
    Entry,
    Forwarding,
    KernelStep,
    Neighbour,
    NodeNetwork,
    ObservedNetwork,
    PodRoute,
    Put,
    Remove,
    TunnelAddress,
)

_ORDER: tuple[type[Entry], ...] = (TunnelAddress, Neighbour, Forwarding, PodRoute)


def without_obstacles(wanted: NodeNetwork, observed: ObservedNetwork) -> tuple[NodeNetwork, tuple[PodRoute, ...]]:
    """``wanted`` without the routes in whose place others have one that leads elsewhere, and those other routes."""
    if not observed.foreign:
        return wanted, ()
    obstacles: list[PodRoute] = []
    entries = set(wanted.entries)
    for entry in wanted.entries:
        foreign = observed.foreign.get(entry.key) if isinstance(entry, PodRoute) else None
        if isinstance(entry, PodRoute) and foreign and not _adopted(foreign, entry):
            entries.discard(entry)
            obstacles.append(foreign)
    return replace(wanted, entries=frozenset(entries)), tuple(sorted(obstacles))


def _adopted(foreign: PodRoute, wanted: PodRoute) -> bool:
    """A route on our own tunnel is an earlier agent's, flannel's too; one that leads to the same place loses nothing."""
    return foreign.device == "tunnel" or (foreign.gateway, foreign.device) == (wanted.gateway, wanted.device)


def difference(wanted: NodeNetwork, observed: ObservedNetwork) -> tuple[KernelStep, ...]:
    """The steps that are missing. ``wanted`` is without obstacles."""
    return tuple(_steps(wanted, observed))


def _steps(wanted: NodeNetwork, observed: ObservedNetwork) -> Iterator[KernelStep]:
    have = observed.network
    for name in sorted(observed.strays):
        yield DeleteLink(name)
    new, old = wanted.tunnel, have.tunnel
    if old and (new is None or old.made_as != new.made_as):
        # where no tunnel is wanted, only the agent's own goes
        if new or old.marked:
            yield DeleteLink(old.name)
        have, old = _without_tunnel(have), None
    if new and old is None:
        yield CreateTunnel(new)
    if new and new != old:
        yield AdjustTunnel(new)
    missing, stale = wanted.entries - have.entries, have.entries - wanted.entries
    keys = {one.key for one in missing}
    for kind in _ORDER:
        for entry in _sorted(missing, kind):
            yield Put(entry)
    for kind in reversed(_ORDER):
        for entry in _sorted(stale, kind):
            if entry.key not in keys:
                yield Remove(entry)


def _without_tunnel(network: NodeNetwork) -> NodeNetwork:
    """What is left when the tunnel goes: the kernel removes all entries of a device together with it."""
    kept = frozenset(one for one in network.entries if isinstance(one, PodRoute) and one.device != "tunnel")
    return NodeNetwork(None, kept)


def _sorted(entries: frozenset[Entry], kind: type[Entry]) -> list[Entry]:
    return sorted((one for one in entries if isinstance(one, kind)), key=lambda one: one.key)
