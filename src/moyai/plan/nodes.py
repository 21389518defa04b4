"""Which machines a spec means: names, zones, addresses and pod ranges, chosen once and then kept.

Always holds: the same spec, seats and cloud give the same nodes; a node that has a seat keeps address, pod range and zone; a
new node takes the lowest free number, and never an address that anything on the network has.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from moyai.core.errors import UsageError
from moyai.core.ids import Role
from moyai.plan.observed import NodeSeat
from moyai.spec.model import FIRST_NODE_NUMBER, Cluster

CONTROL_PLANE_POOL = "control-plane"


@dataclass(frozen=True)
class PlannedNode:
    """One machine to be. ``pool`` is ``control-plane`` for the control plane."""

    name: str
    role: Role
    pool: str
    number: int
    flavor: str
    zone: str
    slot: int
    address: str
    pod_cidr: str

    @property
    def seat(self) -> NodeSeat:
        return NodeSeat(self.slot, self.zone)


def node_name(cluster: str, pool: str, *, number: int) -> str:
    return f"{cluster}-{pool}-{number}"


def address_of(node_cidr: IPv4Network, slot: int) -> IPv4Address:
    return node_cidr[FIRST_NODE_NUMBER + slot]


def pod_cidr_of(pod_cidr: IPv4Network, prefix: int, *, slot: int) -> IPv4Network:
    size = 2 ** (32 - prefix)
    return IPv4Network((int(pod_cidr.network_address) + slot * size, prefix))


def slot_of(node_cidr: IPv4Network, address: str) -> int | None:
    """The number that an address stands for, None when it is no node's."""
    slot = int(IPv4Address(address)) - int(node_cidr.network_address) - FIRST_NODE_NUMBER
    return slot if 0 <= slot < node_cidr.num_addresses // 2 - FIRST_NODE_NUMBER else None


def allocation_pool(node_cidr: IPv4Network) -> tuple[str, str]:
    """What the cloud may give away on its own (DHCP, virtual addresses): the upper half; the lower one is the nodes'."""
    return str(node_cidr[node_cidr.num_addresses // 2]), str(node_cidr[-2])


def wanted_nodes(
    cluster: Cluster, *, zones: Sequence[str], seats: Mapping[str, NodeSeat], used_addresses: Collection[str] = ()
) -> tuple[PlannedNode, ...]:
    """The nodes of the spec, control plane first. ``used_addresses``: what other things on the network have."""
    spec = cluster.spec
    network = spec.network
    taken = {seat.slot for seat in seats.values()}
    taken |= {slot for address in used_addresses if (slot := slot_of(network.node_cidr, address)) is not None}

    def place(role: Role, pool: str, number: int, *, flavor: str, pool_zones: Sequence[str]) -> PlannedNode:
        name = node_name(cluster.name, pool, number=number)
        seat = seats.get(name)
        if seat is None:
            slot = next((n for n in range(network.max_nodes) if n not in taken), None)
            if slot is None:
                raise UsageError(
                    f"spec.network: no address or pod range is left for node {name}",
                    hint=f"nodeCIDR {network.node_cidr} and podCIDR {network.pod_cidr} hold {network.max_nodes} nodes",
                )
            taken.add(slot)
            seat = NodeSeat(slot, pool_zones[number % len(pool_zones)] if pool_zones else "")
        return PlannedNode(
            name=name,
            role=role,
            pool=pool,
            number=number,
            flavor=flavor,
            zone=seat.zone,
            slot=seat.slot,
            address=str(address_of(network.node_cidr, seat.slot)),
            pod_cidr=str(pod_cidr_of(network.pod_cidr, network.node_pod_prefix, slot=seat.slot)),
        )

    nodes: list[PlannedNode] = []
    plane = spec.control_plane
    for number in range(plane.replicas):
        own = [plane.zone] if plane.zone else list(zones)
        nodes.append(place("control-plane", CONTROL_PLANE_POOL, number, flavor=plane.flavor, pool_zones=own))
    for pool in spec.node_pools:
        nodes += [
            place("worker", pool.name, number, flavor=pool.flavor, pool_zones=pool.zones or zones)
            for number in range(pool.replicas)
        ]
    return tuple(nodes)
