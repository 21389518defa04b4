"""The cluster's own network: a subnet for its machines, and the router that leads out of it."""

from __future__ import annotations

from collections.abc import Iterator

from moyai.plan import keys
from moyai.plan import steps as s
from moyai.plan.cluster.situation import Situation
from moyai.plan.cluster.waits import once_machines_boot
from moyai.plan.nodes import allocation_pool


def plan_network(now: Situation) -> Iterator[s.Step]:
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
    router, subnet = existing.router, existing.subnet
    if router is None:
        yield s.CreateRouter(key=keys.ROUTER, name=keys.object_name(name, keys.ROUTER))
    if router is None or not router.external_network_id:
        yield s.SetGateway(
            key=keys.GATEWAY,
            after=(s.created(keys.ROUTER), *once_machines_boot(now)),
            network_id=now.choices.external_network.id,
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
