"""Networks that exist already: which ones a spec names, and what of the cluster follows from them.

It is pure. Always holds: a settled spec (``settle``) names them by their ids, has the range of their subnet, and is the same
for the same spec and cloud. A name that several objects have, or none, is refused, and so is a network on which machines could
not live; of a cluster that exists only the names count. Nothing of these objects is the cluster's: a change of them is said
(``given_notes``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from itertools import islice
from typing import Protocol, TypeVar

from moyai.cloud.capabilities import Capability
from moyai.cloud.model import Network, PortUse, Router, Subnet
from moyai.core.errors import UsageError
from moyai.core.keys import Kind
from moyai.plan.demands import absent
from moyai.plan.nodes import GivenAddresses
from moyai.plan.observed import Observed
from moyai.spec.existing_network import ExistingNetwork
from moyai.spec.model import Cluster, ClusterSpec

_NETWORK = "spec.network.existing.network"
_SUBNET = "spec.network.existing.subnet"
_ROUTER = "spec.network.existing.router"
#: Of a range that exists: a gateway, a DHCP server and a machine have room in the smallest one.
_SMALLEST, _LARGEST = 29, 8


class _Item(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def tags(self) -> Sequence[str]: ...


T = TypeVar("T", bound=_Item)


@dataclass(frozen=True)
class GivenNetwork:
    """What a settled spec names; None for what moyai makes itself, or does without."""

    network: Network | None = None
    subnet: Subnet | None = None
    router: Router | None = None

    @property
    def foreign(self) -> bool:
        """Whether the network is another project's, where the cloud alone chooses addresses."""
        return self.network is not None and self.network.foreign


NOTHING_GIVEN = GivenNetwork()


def is_named(wanted: str, item: _Item) -> bool:
    return bool(wanted) and wanted in (item.id, item.name, *item.tags)


def given_of(spec: ClusterSpec, observed: Observed) -> GivenNetwork:
    """What the ids of a settled spec stand for."""
    existing = spec.network.existing
    return GivenNetwork(
        next((one for one in observed.networks if one.id == existing.network), None),
        next((one for one in observed.subnets if one.id == existing.subnet), None),
        next((one for one in observed.routers if one.id == existing.router), None),
    )


def settle(cluster: Cluster, observed: Observed, *, is_new: bool) -> Cluster:
    """The same cluster with what its networks say. Raises UsageError where they are not to be found, or not fit for it."""
    existing, cloud = cluster.spec.network.existing, cluster.spec.cloud
    if not (existing.network or existing.router):
        return cluster
    if Capability.EXISTING_NETWORKS not in observed.capabilities:
        what = f"cloud {cloud} does not put clusters into {Capability.EXISTING_NETWORKS}"
        raise UsageError(f"spec.network.existing: given, should be left out: {what}")
    network = _named(Kind.NETWORK, existing.network, at=_NETWORK, among=observed.networks, cloud=cloud)
    subnet = _subnet(network, existing.subnet, observed=observed, cloud=cloud) if network else None
    router = _named(Kind.ROUTER, existing.router, at=_ROUTER, among=observed.routers, cloud=cloud)
    if router is None and subnet is not None:
        router = _router_of(subnet, observed)
    given = GivenNetwork(network, subnet, router)
    if is_new:
        _check_way_out(cluster, given, observed=observed)
    changed: dict[str, object] = {
        "existing": ExistingNetwork(
            network=network.id if network else "", subnet=subnet.id if subnet else "", router=router.id if router else ""
        )
    }
    if subnet is not None:
        changed["node_cidr"] = _range(cluster, subnet)
    if router is not None and not cluster.spec.network.disable_external_network:
        changed["external_network"] = _external(cluster, router, observed=observed)
    section = cluster.spec.network.model_copy(update=changed)
    settled = cluster.model_copy(update={"spec": cluster.spec.model_copy(update={"network": section})})
    if is_new:
        _check_ranges(settled, given, observed=observed)
    return settled


def _named(kind: Kind, wanted: str, *, at: str, among: Iterable[T], cloud: str) -> T | None:
    """By id, else by name, else by a tag; None where nothing is wanted."""
    if not wanted:
        return None
    everything = tuple(among)
    ways: tuple[list[T], ...] = (
        [one for one in everything if one.id == wanted],
        [one for one in everything if one.name == wanted],
        [one for one in everything if wanted in one.tags],
    )
    found = next((one for one in ways if one), list[T]())
    if not found:
        raise absent(at, wanted, what=str(kind), offered=(one.name or one.id for one in everything), cloud=cloud)
    if len(found) > 1:
        ids = ", ".join(sorted(one.id for one in found))
        raise UsageError(f"{at}: {wanted!r}, should be the id of one {kind}: {len(found)} of cloud {cloud} have it: {ids}")
    return found[0]


def _subnet(network: Network, wanted: str, *, observed: Observed, cloud: str) -> Subnet:
    there = [one for one in observed.subnets if one.network_id == network.id and ":" not in one.cidr]
    if named := _named(Kind.SUBNET, wanted, at=_SUBNET, among=there, cloud=cloud):
        return named
    if not there:
        raise UsageError(f"{_NETWORK}: {network.name!r} has no IPv4 subnet, should be a network with one")
    if len(there) > 1:
        names = ", ".join(sorted(one.name or one.id for one in there))
        raise UsageError(f"{_SUBNET}: left out, should be one of {names}: network {network.name} has several IPv4 subnets")
    return there[0]


def _interfaces(subnet: Subnet, observed: Observed) -> dict[str, frozenset[str]]:
    """Router → its addresses in the subnet."""
    ports = (one for one in observed.ports if one.use is PortUse.ROUTER and subnet.id in one.subnet_ids)
    return {port.device_id: frozenset(port.fixed_ips) for port in ports}


def _router_of(subnet: Subnet, observed: Observed) -> Router | None:
    """The router of the user's that machines of the subnet send to."""
    inside = _interfaces(subnet, observed)
    there = [one for one in observed.routers if one.id in inside]
    leading = [one for one in there if subnet.gateway in inside[one.id]]
    return next(iter(leading or there), None)


def _check_way_out(cluster: Cluster, given: GivenNetwork, *, observed: Observed) -> None:
    """What is missing between the machines and the outside, which moyai does not add to networks of others."""
    network, subnet, router = given.network, given.subnet, given.router
    if network is not None and subnet is not None and router is not None and router.id not in _interfaces(subnet, observed):
        raise UsageError(f"{_ROUTER}: {router.name!r} has no interface in subnet {subnet.name or subnet.id}, should have one")
    if cluster.spec.network.disable_external_network:
        return
    if router is None and subnet is not None:
        raise UsageError(
            "spec.network.disableExternalNetwork: false, should be true: no router of yours leads out of subnet "
            f"{subnet.name or subnet.id}, so floating IPs do not lead to its machines"
        )
    if router is not None and not router.external_network_id:
        raise UsageError(f"{_ROUTER}: {router.name!r} leads to no external network, should lead to one")


def _external(cluster: Cluster, router: Router, *, observed: Observed) -> str:
    """The id of the network that the router leads to."""
    wanted = cluster.spec.network.external_network
    found = next((one for one in observed.networks if one.id == router.external_network_id), None)
    if wanted and found is not None and not is_named(wanted, found):
        raise UsageError(
            f"spec.network.externalNetwork: {wanted!r}, should be left out or {found.name!r}, the one of router {router.name}"
        )
    return router.external_network_id or wanted


def _range(cluster: Cluster, subnet: Subnet) -> IPv4Network:
    cidr, section = IPv4Network(subnet.cidr), cluster.spec.network
    if section.settled and section.node_cidr != cidr:
        should = f"should be left out or '{cidr}', the range of subnet {subnet.name or subnet.id}"
        raise UsageError(f"spec.network.nodeCIDR: '{section.node_cidr}', {should}")
    return cidr


def _check_ranges(cluster: Cluster, given: GivenNetwork, *, observed: Observed) -> None:
    """Of a settled spec: whether the machines get addresses, and whether all others stay apart from them."""
    section, subnet, router = cluster.spec.network, given.subnet, given.router
    if subnet is not None:
        name = subnet.name or subnet.id
        if not _LARGEST <= section.node_cidr.prefixlen <= _SMALLEST:
            raise UsageError(f"{_SUBNET}: {name!r} has {subnet.cidr}, should have a range of /{_LARGEST} to /{_SMALLEST}")
        if not subnet.dhcp:
            raise UsageError(f"{_SUBNET}: {name!r} has no DHCP, by which machines get their addresses, should have it")
        _check_chosen(cluster, given)
    near = {one.id: one for one in observed.subnets if given.network is not None and one.network_id == given.network.id}
    if router is not None:
        legs = (port for port in observed.ports if port.device_id == router.id and port.use is PortUse.ROUTER)
        inside = {identity for port in legs for identity in port.subnet_ids}
        near |= {one.id: one for one in observed.subnets if one.id in inside}
    for field, cidr in section.ranges.items():
        for other in near.values():
            own = subnet is not None and field == "nodeCIDR"
            if not own and ":" not in other.cidr and cidr.overlaps(IPv4Network(other.cidr)):
                where = f"subnet {other.name or other.id} of yours"
                raise UsageError(f"spec.network.{field}: '{cidr}', should be apart from {other.cidr}, {where}")
    for route in router.routes if router is not None else ():
        if ":" not in route.destination and section.pod_cidr.overlaps(IPv4Network(route.destination)):
            raise UsageError(
                f"spec.network.podCIDR: '{section.pod_cidr}', should be apart from {route.destination}, a route of router "
                f"{router.name if router else ''}"
            )


def _check_chosen(cluster: Cluster, given: GivenNetwork) -> None:
    """Addresses of the subnet that the spec chooses: the cloud must give them to nobody else."""
    subnet, spec = given.subnet, cluster.spec
    if subnet is None:
        return
    home, pools = IPv4Network(subnet.cidr), _pools(subnet)
    free = "outside of the addresses that the subnet gives away, " + ", ".join(f"{first} to {last}" for first, last in pools)
    api = spec.control_plane.api_server_fixed_ip
    if api is not None and (api not in home or str(api) == subnet.gateway or _within(api, api, pools=pools)):
        raise UsageError(f"spec.controlPlane.apiServerFixedIP: '{api}', should be an address of {home}, {free}")
    for cidr in spec.services.announce.ranges:
        if cidr.overlaps(home) and (not cidr.subnet_of(home) or _within(cidr[0], cidr[-1], pools=pools)):
            raise UsageError(f"spec.services.announce.ranges: '{cidr}', should be {free}")
        for field, own in spec.network.ranges.items():
            if field != "nodeCIDR" and cidr.overlaps(own):
                raise UsageError(f"spec.services.announce.ranges: '{cidr}', should be apart from {field} {own}")


def _within(first: IPv4Address, last: IPv4Address, *, pools: Iterable[tuple[IPv4Address, IPv4Address]]) -> bool:
    return any(first <= end and last >= begin for begin, end in pools)


def addresses_given(subnet: Subnet) -> int:
    """How many addresses an IPv4 subnet gives away."""
    return sum(int(last) - int(first) + 1 for first, last in _pools(subnet))


def _pools(subnet: Subnet) -> tuple[tuple[IPv4Address, IPv4Address], ...]:
    home = IPv4Network(subnet.cidr)
    return tuple((IPv4Address(first), IPv4Address(last)) for first, last in subnet.pools) or ((home[2], home[-2]),)


def given_addresses(
    given: GivenNetwork, observed: Observed, *, own: Collection[str], taken: Collection[str] = ()
) -> GivenAddresses | None:
    """Addresses of machines on a network that exists; None where moyai chooses them. ``own``: ids of the cluster's ports.
    ``taken``: addresses that the spec chooses."""
    network, subnet = given.network, given.subnet
    if network is None or subnet is None:
        return None
    ports = [one for one in observed.ports if one.network_id == network.id and one.fixed_ips]
    used = {ip for port in ports for ip in port.fixed_ips} | {subnet.gateway, *taken}
    every = (str(IPv4Address(number)) for first, last in _pools(subnet) for number in range(int(first), int(last) + 1))
    free = tuple(islice((one for one in every if one not in used), 1000))
    return GivenAddresses(
        {port.name: port.fixed_ips[0] for port in ports if port.id in own}, free, where=subnet.name or subnet.id
    )


def given_notes(cluster: Cluster, given: GivenNetwork, *, guessed: bool) -> Iterator[str]:
    """What happens to objects of the user's. ``guessed``: whether the plan has addresses that the cloud is yet to choose."""
    network, router, by_routes = given.network, given.router, cluster.spec.network.mode == "routes"
    if guessed and network is not None:
        yield (
            f"network {network.name} gives the machines their addresses when their ports are made: those of this plan are free "
            "as far as the cloud shows, and may become others"
        )
    if router is None:
        return
    gets = [
        *(["an interface in the cluster's subnet"] if network is None else []),
        *(["a route for each node"] if by_routes else []),
    ]
    if gets:
        yield f"router {router.name} is yours and stays: it gets {' and '.join(gets)}, which `down` takes away"
