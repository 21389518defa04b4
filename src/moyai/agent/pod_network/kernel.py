"""The kernel's side of the pod network: read as ``ObservedNetwork``, changed by ``KernelStep``.

Always holds: routes have the agent's protocol number, tunnels its mark; entries need none, for the tunnel is the agent's. Each
step is one request (a deletion of a device asks for its index first), so that a kill leaves whole steps only. Steps of entries
go to the kernel many at once.
"""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import ip_interface
from itertools import groupby

from moyai.core.errors import Retriable
from moyai.linux.netlink import KernelAddress, KernelChange, KernelLink, Netlink, VxlanOptions
from moyai.linux.netlink_messages import EntryChange, KernelNeighbour, KernelRoute
from moyai.plan.node_network import (
    BESIDE_METRIC,
    ROUTE_PROTOCOL,
    AdjustTunnel,
    CreateTunnel,
    DeleteLink,
    Forwarding,
    KernelStep,
    Neighbour,
    NodeNetwork,
    ObservedNetwork,
    PodRoute,
    Put,
    Remove,
    RouteDevice,
    Tunnel,
    TunnelAddress,
    Uplink,
)

#: In `ip link`: the alias of the agent's devices.
MARK = "moyai pod network"


class NoUplink(Retriable):
    """No link has the node's address."""


@dataclass(frozen=True)
class Indices:
    """Which links are meant, by index; ``tunnel`` 0: there is none."""

    uplink: int
    tunnel: int = 0


async def find_uplink(netlink: Netlink, address: str) -> Uplink:
    """The link with the node's address. Raises NoUplink."""
    found = await netlink.addresses()
    index = next((one.index for one in found if one.address == address), None)
    links = {one.index: one for one in await netlink.links()}
    if index is None or index not in links:
        raise NoUplink(
            f"no link of this machine has its address {address}", hint="the Node's InternalIP should be the machine's"
        )
    subnets = {str(ip_interface(f"{one.address}/{one.prefix}").network) for one in found if one.index == index}
    return Uplink(links[index].name, index, links[index].mtu, tuple(sorted(subnets)))


async def observe(netlink: Netlink, *, tunnel: str | None, uplink: Uplink) -> tuple[ObservedNetwork, Indices]:
    """``tunnel``: the name that the tunnel has or is to have, None where none is wanted."""
    links = {one.name: one for one in await netlink.links()}
    named = links.get(tunnel) if tunnel else None
    device = named if named and named.vxlan else None
    indices = Indices(uplink.index, device.index if device else 0)
    entries: set[TunnelAddress | Neighbour | Forwarding | PodRoute] = set()
    foreign: dict[tuple[object, ...], PodRoute] = {}
    for found in await netlink.routes():
        route = _as_route(found, indices)
        if found.protocol == ROUTE_PROTOCOL:
            entries.add(route)
        else:
            foreign[route.key] = route
    if device:
        entries |= {TunnelAddress(one.address) for one in await netlink.addresses(device.index)}
        entries |= {_as_entry(one) for one in await netlink.neighbours(device.index)}
    strays = {one.name for one in links.values() if one.alias == MARK and one.name != tunnel}
    observed = ObservedNetwork(
        NodeNetwork(_as_tunnel(device) if device else None, frozenset(entries)),
        strays=frozenset(strays),
        foreign=foreign,
        occupied=(named.kind or "hardware") if named and not device else "",
    )
    return observed, indices


async def apply(netlink: Netlink, steps: Iterable[KernelStep], *, indices: Indices) -> Indices:
    """Carry out steps in their order; returns the indices as they are afterwards. Raises OSError with the kernel's reason."""
    for together, group in groupby(steps, _is_entry):
        if together:
            await netlink.change([_of_step(step, indices) for step in group])
            continue
        for step in group:
            indices = await _apply_one(netlink, step, indices=indices)
    return indices


def _is_entry(step: KernelStep) -> bool:
    """Of these steps many go to the kernel at once."""
    return isinstance(step, Put | Remove) and not isinstance(step.entry, TunnelAddress)


def _of_step(step: KernelStep, indices: Indices) -> EntryChange:
    assert isinstance(step, Put | Remove)
    assert not isinstance(step.entry, TunnelAddress)
    gone = isinstance(step, Remove)
    if isinstance(step.entry, PodRoute):
        through = step.entry.device == "tunnel" and bool(step.entry.gateway)
        return EntryChange(_of_route(step.entry, indices), gone, onlink=through and not gone)
    return EntryChange(_of_entry(step.entry, indices), gone)


async def answer(netlink: Netlink, entries: Iterable[Neighbour | Forwarding], *, tunnel: int) -> None:
    """Entries of this device for which the kernel has asked, and which it forgets when they are not used."""
    await netlink.change(
        [
            EntryChange(KernelNeighbour(tunnel, one.address, one.mac, isinstance(one, Forwarding), lasting=False))
            for one in entries
        ]
    )


async def forget(netlink: Netlink, outdated: Collection[tuple[str, str]], *, tunnel: int) -> None:
    """The end of answers that are not true any more: (MAC address, machine's address)."""
    macs = {mac for mac, _ in outdated}
    stale = [
        one
        for one in await netlink.passing(tunnel)
        if ((one.mac, one.address) in outdated if one.forwarding else one.mac in macs)
    ]
    await netlink.change([EntryChange(one, gone=True) for one in stale])


async def _apply_one(netlink: Netlink, step: KernelStep, *, indices: Indices) -> Indices:
    match step:
        case DeleteLink(name):
            index = await _index(netlink, name)
            if index:
                await netlink.delete_link(index)
            return Indices(indices.uplink) if index == indices.tunnel else indices
        case CreateTunnel(tunnel):
            options = VxlanOptions(tunnel.vni, tunnel.port, tunnel.local, tunnel.parent, tunnel.learning, tunnel.misses)
            await netlink.create_vxlan(tunnel.name, options, mac=tunnel.mac, mtu=tunnel.mtu)
            return Indices(indices.uplink, await _index(netlink, tunnel.name))
        case AdjustTunnel(tunnel):
            if tunnel.misses:
                await netlink.ask_programs(indices.tunnel)
            await netlink.adjust_link(indices.tunnel, mtu=tunnel.mtu, alias=MARK)
        case Put(TunnelAddress() as address):
            await netlink.put_address(KernelAddress(indices.tunnel, address.address, 32))
        case Remove(TunnelAddress() as address):
            await netlink.delete_address(KernelAddress(indices.tunnel, address.address, 32))
        case _:
            raise AssertionError(step)
    return indices


def contradicts(change: KernelChange, known: ObservedNetwork, *, indices: Indices, uplink: Uplink) -> bool:
    """Whether what the kernel reports cannot follow from what the agent did last: then it is to be read again."""
    fact, have = change.fact, known.network
    match fact:
        case KernelRoute():
            route = _as_route(fact, indices)
            if fact.protocol == ROUTE_PROTOCOL:
                return (route in have.entries) == change.gone
            # others' routes matter where they are in the place of ours
            if change.gone:
                return route.key in known.foreign
            return route != known.foreign.get(route.key) and any(_displaces(route, one) for one in have.entries)
        case KernelNeighbour():
            if not indices.tunnel or fact.index != indices.tunnel:
                return False
            entry = _as_entry(fact)
            if change.gone:
                return entry in have.entries if fact.mac else any(entry.key == one.key for one in have.entries)
            return entry not in have.entries
        case KernelAddress():
            if fact.index == uplink.index:
                subnet = str(ip_interface(f"{fact.address}/{fact.prefix}").network)
                return change.gone or subnet not in uplink.subnets
            return fact.index == indices.tunnel and (TunnelAddress(fact.address) in have.entries) == change.gone
        case KernelLink():
            if fact.index == uplink.index:
                return change.gone or fact.mtu != uplink.mtu
            if have.tunnel is None or (fact.index != indices.tunnel and fact.name != have.tunnel.name):
                return False
            return change.gone or _as_tunnel(fact) != have.tunnel


def _displaces(foreign: PodRoute, entry: object) -> bool:
    """A route of BGP comes beside ours, and any other one in its place."""
    beside = isinstance(entry, PodRoute) and entry.metric == BESIDE_METRIC and entry.destination == foreign.destination
    return beside or (isinstance(entry, PodRoute) and entry.key == foreign.key)


def subject(change: KernelChange) -> object:
    """What a report is about: of two reports with the same subject, the later one counts."""
    match change.fact:
        case KernelLink(index=index):
            return ("link", index)
        case KernelRoute(destination=destination, metric=metric, protocol=protocol):
            return ("route", destination, metric, protocol)
        case KernelNeighbour(index=index, address=address, mac=mac, forwarding=forwarding):
            return ("forwarding", index, mac, address) if forwarding else ("neighbour", index, address)
        case _:
            return change.fact


async def _index(netlink: Netlink, name: str) -> int:
    return next((one.index for one in await netlink.links() if one.name == name), 0)


def _as_tunnel(link: KernelLink) -> Tunnel | None:
    options = link.vxlan
    if options is None:
        return None
    return Tunnel(
        link.name,
        vni=options.vni,
        port=options.port,
        local=options.local,
        parent=options.parent,
        mac=link.mac,
        mtu=link.mtu,
        learning=options.learning,
        misses=options.misses,
        up=link.up,
        marked=link.alias == MARK,
    )


def _as_route(found: KernelRoute, indices: Indices) -> PodRoute:
    if found.unreachable:
        return PodRoute(found.destination, metric=found.metric)
    device: RouteDevice = "other"
    if found.index:
        device = "tunnel" if found.index == indices.tunnel else "uplink" if found.index == indices.uplink else "other"
    return PodRoute(found.destination, found.gateway, device, found.metric)


def _as_entry(found: KernelNeighbour) -> Neighbour | Forwarding:
    return Forwarding(found.mac, found.address) if found.forwarding else Neighbour(found.address, found.mac)


def _of_route(route: PodRoute, indices: Indices) -> KernelRoute:
    index = {"tunnel": indices.tunnel, "uplink": indices.uplink}.get(route.device, 0)
    return KernelRoute(
        route.destination,
        ROUTE_PROTOCOL,
        metric=route.metric,
        gateway=route.gateway,
        index=index,
        unreachable=not route.device,
    )


def _of_entry(entry: Neighbour | Forwarding, indices: Indices) -> KernelNeighbour:
    return KernelNeighbour(indices.tunnel, entry.address, entry.mac, isinstance(entry, Forwarding))


def reason(error: OSError) -> str:
    """In words of a user, what the kernel means."""
    if error.errno == errno.EOPNOTSUPP:
        return f"{error.strerror} (this machine's kernel lacks it: for a tunnel, the module vxlan)"
    if error.errno in (errno.EPERM, errno.EACCES):
        return f"{error.strerror} (the agent's container should have the capability NET_ADMIN)"
    return str(error.strerror)
