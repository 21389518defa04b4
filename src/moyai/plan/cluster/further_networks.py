"""Networks beside the cluster's own one: made where the spec has them, removed when nothing of the spec is in them any more.

A network that a machine leads out of has no gateway of the cloud's: its machines find their way by what moyai gives them.
"""

from __future__ import annotations

from collections.abc import Iterator

from moyai.core.keys import Kind
from moyai.plan import keys
from moyai.plan import steps as s
from moyai.plan.cluster.situation import Situation
from moyai.plan.cluster.waits import once_machines_boot
from moyai.plan.nodes import allocation_pool
from moyai.plan.observed import owns


def plan_further_networks(now: Situation) -> Iterator[s.Step]:
    existing = now.existing
    router = existing.router
    for one in now.spec.networks:
        network, subnet = keys.network(one.name), keys.subnet(one.name)
        if one.name not in existing.networks:
            yield s.CreateNetwork(key=network, name=keys.object_name(now.cluster.name, network))
        if one.name not in existing.subnets:
            yield s.CreateSubnet(
                key=subnet,
                after=(s.created(network),),
                name=keys.object_name(now.cluster.name, subnet),
                cidr=str(one.cidr),
                dns=tuple(str(server) for server in now.spec.network.dns),
                pool=allocation_pool(one.cidr),
                gateway=not one.gateway,
            )
        made = existing.subnets.get(one.name)
        plugged = (
            router is not None
            and made is not None
            and any(port.device_id == router.id and made.id in port.subnet_ids for port in now.observed.ports)
        )
        if not one.gateway and not plugged:
            after = (s.created(subnet), s.created(keys.ROUTER), s.created(keys.GATEWAY), *once_machines_boot(now))
            yield s.AddInterface(key=keys.interface(one.name), after=after)


def plan_leaving_networks(now: Situation, steps: tuple[s.Step, ...]) -> Iterator[s.Step]:
    """``steps``: what removes the machines and nodes that are in them."""
    wanted = {keys.object_name(now.cluster.name, keys.network(one.name)) for one in now.spec.networks}
    wanted.add(keys.object_name(now.cluster.name, keys.NETWORK))
    gone = tuple(step.id for step in steps if step.verb is s.Verb.DELETE and step.key.kind in (Kind.PORT, Kind.SERVER))
    router = now.existing.router
    for network in now.observed.networks:
        if not owns(now.recorded.uid, network) or network.name in wanted or network.external:
            continue
        last = gone
        for subnet in (one for one in now.observed.subnets if one.network_id == network.id):
            key = keys.subnet(subnet.name)
            inside = [
                one for one in now.observed.ports if router and one.device_id == router.id and subnet.id in one.subnet_ids
            ]
            if router is not None and inside:
                off = keys.interface(subnet.name)
                yield s.RemoveInterface(
                    key=off, after=gone, router_id=router.id, subnet_id=subnet.id, detail=f"on {router.name}"
                )
                last = (*last, s.StepId(s.Verb.REMOVE, off, f"on {router.name}"))
            yield s.Delete(key=key, after=last, object_id=subnet.id)
            last = (*last, s.deleted(key))
        yield s.Delete(key=keys.network(network.name), after=last, object_id=network.id)
