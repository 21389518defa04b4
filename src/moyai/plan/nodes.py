"""Which machines a spec means: names, zones, addresses and pod ranges, chosen once and then kept.

Always holds: the same spec, allocations and cloud give the same nodes; an allocated node keeps address, pod range and zone; a
new node takes the lowest free index, and never an address that anything on the network has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from moyai.core.errors import UsageError
from moyai.core.ids import Role
from moyai.plan.observed import NodeAllocation
from moyai.spec.beside import NODES
from moyai.spec.cluster_network import FIRST_NODE_NUMBER, VIRTUAL_NUMBER
from moyai.spec.model import Cluster, ClusterSpec

CONTROL_PLANE_POOL = "control-plane"


@dataclass(frozen=True)
class GivenAddresses:
    """On a network that exists, where the cloud chooses the address of a port. ``known``: node → the address that its port got.
    ``free``: what ports that are yet to be made may get. ``where``: the subnet's name."""

    known: Mapping[str, str]
    free: tuple[str, ...]
    where: str


@dataclass(frozen=True)
class PlannedNode:
    """One machine to be. ``pool`` is ``control-plane`` for the control plane.

    ``ordinal``: its number in the pool. ``index``: its place in the cluster's ranges, which decides address and pod range.

    ``virtual``: of a control plane, the API's address where no machine keeps it for good; empty for none. ``in_turns``: the
    machine may take that address besides its own. ``announced``: ranges of Services' addresses that it may answer for.
    ``network``: name of the network that it is in. ``given``: the cloud chooses the address; ``guessed``: and has not done so
    yet.
    """

    name: str
    role: Role
    pool: str
    ordinal: int
    flavor: str
    zone: str
    index: int
    address: str
    pod_cidr: str
    virtual: str = ""
    in_turns: bool = False
    announced: tuple[str, ...] = ()
    network: str = NODES
    given: bool = False
    guessed: bool = False

    @property
    def allocation(self) -> NodeAllocation:
        return NodeAllocation(self.index, self.zone, self.address if self.given and not self.guessed else "")


def node_name(cluster: str, pool: str, *, ordinal: int) -> str:
    return f"{cluster}-{pool}-{ordinal}"


def cluster_of_node(name: str, pool: str) -> str | None:
    """The cluster that ``node_name`` was given; None for a name that it did not make.

    A server's metadata has its pool, but the cluster's UID instead of its name.
    """
    stem, _, ordinal = name.rpartition("-")
    return stem.removesuffix(f"-{pool}") if ordinal.isdigit() and stem.endswith(f"-{pool}") else None


def pool_of_node(name: str, cluster: str) -> str | None:
    """The pool that ``node_name`` was given; None for a name that it did not make.

    Of a node whose machine is gone only the name says its pool: the record has index and zone, and the spec may have changed.
    """
    stem, _, ordinal = name.rpartition("-")
    return stem.removeprefix(f"{cluster}-") if ordinal.isdigit() and stem.startswith(f"{cluster}-") else None


def number_of_node(name: str) -> int:
    """The number that ``node_name`` was given, of a name that it made."""
    return int(name.rpartition("-")[2])


def address_of(node_cidr: IPv4Network, index: int) -> IPv4Address:
    return node_cidr[FIRST_NODE_NUMBER + index]


def network_of_pool(spec: ClusterSpec, pool: str | None) -> str:
    """Name of the network that a pool's machines are in: the cluster's own for control planes and pools that are gone."""
    return next((one.network for one in spec.node_pools if one.name == pool), NODES)


def several_networks(spec: ClusterSpec) -> bool:
    """Whether not all nodes are in one network."""
    return any(one.network != NODES for one in spec.node_pools)


def range_of_network(spec: ClusterSpec, network: str) -> IPv4Network:
    """The range of the network with this name."""
    return next((one.cidr for one in spec.networks if one.name == network), spec.network.node_cidr)


def address_in_pool(spec: ClusterSpec, pool: str | None, *, allocation: NodeAllocation) -> str:
    """The address of a node: what the cloud gave it, else by its index. Each network has the same number for it, as an index is
    no other node's."""
    return allocation.address or str(address_of(range_of_network(spec, network_of_pool(spec, pool)), allocation.index))


def virtual_address(spec: ClusterSpec) -> str:
    """The API's address that no machine has for good; empty where the API has none."""
    if chosen := spec.control_plane.api_server_fixed_ip:
        return str(chosen)
    return str(spec.network.node_cidr[VIRTUAL_NUMBER]) if spec.control_plane.virtual else ""


def pod_cidr_of(pod_cidr: IPv4Network, prefix: int, *, index: int) -> IPv4Network:
    size = 2 ** (32 - prefix)
    return IPv4Network((int(pod_cidr.network_address) + index * size, prefix))


def index_of(node_cidr: IPv4Network, address: str) -> int | None:
    """The index that an address stands for, None when it is no node's."""
    index = int(IPv4Address(address)) - int(node_cidr.network_address) - FIRST_NODE_NUMBER
    return index if 0 <= index < node_cidr.num_addresses // 2 - FIRST_NODE_NUMBER else None


def allocation_pool(node_cidr: IPv4Network) -> tuple[str, str]:
    """What the cloud may give away on its own (DHCP, virtual addresses): the upper half; the lower one is the nodes'."""
    return str(node_cidr[node_cidr.num_addresses // 2]), str(node_cidr[-2])


def wanted_nodes(
    cluster: Cluster,
    *,
    zones: Sequence[str],
    allocations: Mapping[str, NodeAllocation],
    used_addresses: Collection[str] = (),
    own_addresses: Mapping[str, str] | None = None,
    planes: Sequence[int] | None = None,
    pools: Mapping[str, Sequence[int]] | None = None,
    given: GivenAddresses | None = None,
) -> tuple[PlannedNode, ...]:
    """The nodes of the spec, control plane first. ``used_addresses``: what other things on the network have. ``own_addresses``:
    node → the address of a port that it has already, though it has no allocation. ``planes``: numbers of the control planes,
    where they are not the lowest; ``pools``: those of each pool's nodes. ``given``: of a network that exists, where no address
    follows from an index."""
    spec = cluster.spec
    network = spec.network
    taken = {kept.index for kept in allocations.values()}
    found = {name: index_of(network.node_cidr, address) for name, address in (own_addresses or {}).items()}
    # a port is taken by its name: a machine whose port has another address than its user data says is no node
    ported = {name: index for name, index in found.items() if index is not None and index not in taken}
    announced = spec.services.announce.ranges
    addresses = (*used_addresses, *(str(one) for cidr in announced for one in cidr))
    homes = {range_of_network(spec, one) for one in (NODES, *(pool.network for pool in spec.node_pools))}
    if given is None:
        taken |= {index for cidr in homes for address in addresses if (index := index_of(cidr, address)) is not None}
    else:
        ported = {}
    guesses = iter(given.free if given else ())

    def place(role: Role, pool: str, *, ordinal: int, flavor: str, pool_zones: Sequence[str]) -> PlannedNode:
        name = node_name(cluster.name, pool, ordinal=ordinal)
        kept = allocations.get(name)
        if kept is None:
            index = ported.get(name)
            if index is None:
                index = next((n for n in range(network.max_nodes) if n not in taken), None)
            if index is None:
                raise UsageError(
                    f"spec.network: no address or pod range is left for node {name}",
                    hint=f"nodeCIDR {network.node_cidr} and podCIDR {network.pod_cidr} hold {spec.max_nodes} nodes",
                )
            taken.add(index)
            # where there are fewest: the zone of whichever machine it replaces
            zone = min(pool_zones, key=lambda one: held[one], default="")
            held[zone] += 1
            kept = NodeAllocation(index, zone)
        address, guessed = home(name, pool, kept=kept)
        return PlannedNode(
            name=name,
            role=role,
            pool=pool,
            ordinal=ordinal,
            flavor=flavor,
            zone=kept.zone,
            index=kept.index,
            address=address,
            pod_cidr=str(pod_cidr_of(network.pod_cidr, network.node_pod_prefix, index=kept.index)),
            virtual=virtual_address(spec) if role == "control-plane" else "",
            in_turns=role == "control-plane" and spec.control_plane.way == "vrrp",
            announced=tuple(map(str, announced)),
            network=network_of_pool(spec, pool),
            given=given is not None,
            guessed=guessed,
        )

    def home(name: str, pool: str, *, kept: NodeAllocation) -> tuple[str, bool]:
        """The node's address, and whether the cloud may yet choose another one."""
        if given is None:
            return address_in_pool(spec, pool, allocation=kept), False
        if name in given.known:
            return given.known[name], False
        guess = next(guesses, "")
        if not guess:
            raise UsageError(
                f"spec.network.existing.subnet: {given.where!r} has no address left for node {name}, should have one for each"
            )
        return guess, True

    def zones_of(pool: str, numbers: Sequence[int]) -> Counter[str]:
        known = (allocations.get(node_name(cluster.name, pool, ordinal=ordinal)) for ordinal in numbers)
        return Counter(kept.zone for kept in known if kept)

    nodes: list[PlannedNode] = []
    plane = spec.control_plane
    numbers = range(plane.replicas) if planes is None else planes
    held = zones_of(CONTROL_PLANE_POOL, numbers)
    for ordinal in numbers:
        own = [plane.zone] if plane.zone else plane.zones or list(zones)
        nodes.append(place("control-plane", CONTROL_PLANE_POOL, ordinal=ordinal, flavor=plane.flavor, pool_zones=own))
    for pool in spec.node_pools:
        numbers = range(pool.replicas) if pools is None else pools[pool.name]
        held = zones_of(pool.name, numbers)
        nodes += [
            place("worker", pool.name, ordinal=ordinal, flavor=pool.flavor, pool_zones=pool.zones or zones)
            for ordinal in numbers
        ]
    return tuple(nodes)
