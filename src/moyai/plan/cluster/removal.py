"""Nodes that the spec no longer has: drained first, then out of the load balancers, then the machine, the Node object, and last
the port with its address.

Always holds: no machine is deleted while a load balancer sends to it, as far as the API can be asked for that.
"""

from __future__ import annotations

from collections.abc import Iterator

from moyai.cloud.capabilities import Capability
from moyai.cloud.model import Power
from moyai.core.keys import Kind
from moyai.plan import keys
from moyai.plan import steps as s
from moyai.plan.cluster.situation import Situation
from moyai.plan.observed import owns


def plan_removal(now: Situation) -> Iterator[s.Step]:
    ports = {port.name: port for port in now.observed.ports if owns(now.recorded.uid, port)}
    for name in now.leaving:
        server, node = keys.server(name), keys.node_object(name)
        yield from leave_service(now, name)
        if name in now.existing.servers:
            yield s.Delete(key=server, after=out_of_service(name), object_id=now.existing.servers[name].id)
        # an API that did not answer may have the Node all the same
        unknown = _unknown(now) and name in now.recorded.allocations
        if name in now.observed.kube_nodes or unknown:
            yield s.DeleteNode(key=node, after=(s.deleted(server), s.reached(s.API)), node=name)
        if name in ports:
            # the address is free for another node once nothing leads to it; the port goes last, with the node's allocation
            routes = s.StepId(s.Verb.REMOVE, keys.ROUTES)
            after = (*out_of_service(name), s.deleted(server), s.deleted(node), routes)
            yield s.Delete(key=keys.port(name), after=after, object_id=ports[name].id)


def leave_service(now: Situation, name: str) -> Iterator[s.Step]:
    """What a node does before its machine is deleted: its pods and disks leave it, then load balancers do.

    An API that did not answer is asked by the steps: a machine that is deleted without them loses what it was doing.
    """
    server = now.existing.servers.get(name)
    if server is None:
        return
    node, kube, unknown = keys.node_object(name), now.observed.kube, _unknown(now)
    known = kube.node(name) if kube else None
    # a machine that its cloud calls broken may do its work all the same; pods of one that is held still never leave it
    still = server.power in (Power.SUSPENDED, Power.HELD)
    works = (now.lives(name) and not still) or (known is not None and known.ready)
    drained = s.StepId(s.Verb.DRAIN, node)
    if works and (known is not None or unknown):
        yield s.DrainNode(key=node, after=(s.reached(s.API),), node=name)
    if Capability.LOAD_BALANCERS not in now.observed.capabilities or not (kube is not None or unknown):
        return
    excluded = s.StepId(s.Verb.EXCLUDE, node)
    if unknown or (known is not None and not known.excluded):
        yield s.ExcludeNode(key=node, after=(drained, s.reached(s.API)), node=name)
    ports = [port.fixed_ips for port in now.observed.ports if port.device_id == server.id]
    fixed = [address.address for address in server.addresses if address.kind == "fixed"]
    addresses = tuple(sorted({*fixed, *(ip for fixed_ips in ports for ip in fixed_ips)}))
    after = (drained, excluded, s.reached(s.API))
    yield s.WaitBalancers(key=s.balancers_without(name), after=after, node=name, addresses=addresses)


def out_of_service(name: str) -> tuple[s.StepId, ...]:
    """The steps of ``leave_service``."""
    node = keys.node_object(name)
    return (s.StepId(s.Verb.DRAIN, node), s.StepId(s.Verb.EXCLUDE, node), s.reached(s.balancers_without(name)))


def _unknown(now: Situation) -> bool:
    """Whether there is an API that did not answer."""
    return now.observed.kube is None and now.recorded.ready


def released(now: Situation, steps: tuple[s.Step, ...]) -> tuple[str, ...]:
    """Names of allocated nodes that are neither wanted nor touched by any step: nothing of them is left."""
    wanted = {node.name for node in now.nodes}
    named = {step.key.name for step in steps if step.key.kind in (Kind.SERVER, Kind.PORT, Kind.NODE)}
    return tuple(name for name in now.recorded.allocations if name not in wanted | named)
