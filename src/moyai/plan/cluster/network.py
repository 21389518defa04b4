"""How machines are connected with each other and with the outside: a strategy, chosen by what the cloud offers.

A private network behind a router whose gateway is on an external network, a private network and a card of each machine in
an external network, or a network that exists. Another one is another class here, and one more case of ``network_of``. It is
pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from moyai.cloud.capabilities import Capability
from moyai.core.errors import Terminal
from moyai.plan import keys
from moyai.plan import steps as s
from moyai.plan.cluster.situation import Situation
from moyai.plan.cluster.waits import once_machines_boot
from moyai.plan.existing import Existing
from moyai.plan.nodes import allocation_pool
from moyai.spec.model import Cluster


class MachineNetwork(Protocol):
    @property
    def external(self) -> bool:
        """Whether it leads to an external network of the cloud, which the spec may name."""
        ...

    @property
    def public_cards(self) -> bool:
        """Whether each machine is in the external network itself. Then it gives itself its address on the private one, where
        no cloud's service does, and rules of the firewall name ranges, because groups end at a zone's border."""
        ...

    def steps(self, now: Situation) -> Iterator[s.Step]:
        """What makes it."""
        ...

    def leads_out(self) -> tuple[s.StepId, ...]:
        """What must be done before a machine reaches the outside and can be reached from it."""
        ...

    def ports_of(self, existing: Existing) -> Existing:
        """The same without the ports about which nothing is to be said: from which addresses they may send."""
        ...


@dataclass(frozen=True)
class RoutedNetwork:
    """A network and a subnet of the cluster's own, behind a router of its own."""

    external: bool = True
    public_cards: bool = False

    def steps(self, now: Situation) -> Iterator[s.Step]:
        yield from _private_network(now)
        yield from _way_out(now)

    def leads_out(self) -> tuple[s.StepId, ...]:
        return (s.created(keys.INTERFACE), s.created(keys.GATEWAY))

    def ports_of(self, existing: Existing) -> Existing:
        return existing


@dataclass(frozen=True)
class CardedNetwork:
    """A network and a subnet of the cluster's own, and a card of each machine in an external network."""

    external: bool = True
    public_cards: bool = True

    def steps(self, now: Situation) -> Iterator[s.Step]:
        yield from _private_network(now)
        names = {port.name for port in now.observed.ports if port.network_id == now.external_network.id}
        for node in now.missing:
            key = keys.public_port(node.name)
            if key.name not in names:
                group = s.created(keys.security_group(node.role))
                yield s.CreatePublicPort(key=key, after=(group,), node=node, network_id=now.external_network.id)

    def leads_out(self) -> tuple[s.StepId, ...]:
        return ()

    def ports_of(self, existing: Existing) -> Existing:
        return replace(existing, ports={})


@dataclass(frozen=True)
class UsersNetwork:
    """A network and a subnet that exist. ``external``: whether a router leads from there to an external network."""

    external: bool
    public_cards: bool = False

    def steps(self, now: Situation) -> Iterator[s.Step]:
        yield from ()

    def leads_out(self) -> tuple[s.StepId, ...]:
        return ()

    def ports_of(self, existing: Existing) -> Existing:
        return existing


def network_of(cluster: Cluster, capabilities: frozenset[Capability]) -> MachineNetwork:
    """The strategy for a cluster on a cloud that offers this. Raises Terminal where there is none."""
    section, cloud = cluster.spec.network, cluster.spec.cloud
    if section.existing.network:
        return UsersNetwork(external=not section.disable_external_network)
    if Capability.ROUTERS in capabilities:
        return RoutedNetwork()
    if Capability.PUBLIC_CARDS in capabilities:
        return CardedNetwork()
    raise Terminal(
        f"cloud {cloud} has no {Capability.ROUTERS}: moyai connects machines by no other network than one behind a router",
        hint="name a network of yours in spec.network.existing, or use a cloud with routers",
    )


def _private_network(now: Situation) -> Iterator[s.Step]:
    name, addresses, existing = now.cluster.name, now.spec.network, now.existing
    if existing.network is None:
        yield s.CreateNetwork(key=keys.NETWORK, name=keys.object_name(name, keys.NETWORK))
    if existing.subnet is None:
        yield s.CreateSubnet(
            key=keys.SUBNET,
            after=(s.created(keys.NETWORK),),
            name=keys.object_name(name, keys.SUBNET),
            cidr=str(addresses.node_cidr),
            dns=tuple(str(server) for server in addresses.dns),
            pool=allocation_pool(addresses.node_cidr),
        )


def _way_out(now: Situation) -> Iterator[s.Step]:
    existing = now.existing
    router, subnet = existing.router, existing.subnet
    if router is None:
        yield s.CreateRouter(key=keys.ROUTER, name=keys.object_name(now.cluster.name, keys.ROUTER))
    if router is None or not router.external_network_id:
        yield s.SetGateway(
            key=keys.GATEWAY,
            after=(s.created(keys.ROUTER), *once_machines_boot(now)),
            network_id=now.external_network.id,
        )
    plugged = (
        router is not None
        and subnet is not None
        and any(port.device_id == router.id and subnet.id in port.subnet_ids for port in now.observed.ports)
    )
    if not plugged:
        # behind the gateway: a connection that passes a router before the router translates addresses is never answered
        after = (s.created(keys.SUBNET), s.created(keys.ROUTER), s.created(keys.GATEWAY), *once_machines_boot(now))
        yield s.AddInterface(key=keys.INTERFACE, after=after)
