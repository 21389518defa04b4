"""How machines are connected with each other and with the outside: a strategy, chosen by what the cloud offers.

Today's is a private network behind a router whose gateway is on an external network. Another one (a private network with public
addresses on the machines themselves) is another class here or in a module of its own, and one more case of ``network_of``. It
is pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from moyai.cloud.capabilities import Capability
from moyai.core.errors import Terminal
from moyai.plan import keys
from moyai.plan import steps as s
from moyai.plan.cluster.situation import Situation
from moyai.plan.cluster.waits import once_machines_boot
from moyai.plan.nodes import allocation_pool


class MachineNetwork(Protocol):
    @property
    def external(self) -> bool:
        """Whether it leads to an external network of the cloud, which the spec may name."""
        ...

    def steps(self, now: Situation) -> Iterator[s.Step]:
        """What makes it."""
        ...

    def leads_out(self) -> tuple[s.StepId, ...]:
        """What must be done before a machine reaches the outside and can be reached from it."""
        ...


@dataclass(frozen=True)
class RoutedNetwork:
    """A network and a subnet of the cluster's own, behind a router of its own."""

    external: bool = True

    def steps(self, now: Situation) -> Iterator[s.Step]:
        yield from _private_network(now)
        yield from _way_out(now)

    def leads_out(self) -> tuple[s.StepId, ...]:
        return (s.created(keys.INTERFACE), s.created(keys.GATEWAY))


def network_of(cloud: str, capabilities: frozenset[Capability]) -> MachineNetwork:
    """The strategy for a cloud that offers this. Raises Terminal where there is none."""
    if Capability.ROUTERS in capabilities:
        return RoutedNetwork()
    raise Terminal(
        f"cloud {cloud} has no {Capability.ROUTERS}: moyai connects machines by no other network than one behind a router",
        hint="use a cloud with routers",
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
