"""Nodes that the spec no longer has: drained first, then the machine, the Node object, and last the port with its address."""

from __future__ import annotations

from collections.abc import Iterator

from moyai.core.keys import Kind
from moyai.plan import keys
from moyai.plan import steps as s
from moyai.plan.cluster.situation import Situation
from moyai.plan.observed import owns


def plan_removal(now: Situation) -> Iterator[s.Step]:
    ports = {port.name: port for port in now.observed.ports if owns(now.recorded.uid, port)}
    for name in now.leaving:
        server, node = keys.server(name), keys.node_object(name)
        drained = s.StepId(s.Verb.DRAIN, node)
        if name in now.observed.kube_nodes and now.lives(name):
            yield s.DrainNode(key=node, after=(s.reached(s.API),), node=name)
        if name in now.existing.servers:
            yield s.Delete(key=server, after=(drained,), object_id=now.existing.servers[name].id)
        # an API that did not answer may have the Node all the same
        unknown = now.observed.kube is None and now.recorded.ready and name in now.recorded.allocations
        if name in now.observed.kube_nodes or unknown:
            yield s.DeleteNode(key=node, after=(s.deleted(server), s.reached(s.API)), node=name)
        if name in ports:
            # the address is free for another node once nothing leads to it; the port goes last, with the node's allocation
            routes = s.StepId(s.Verb.REMOVE, keys.ROUTES)
            after = (drained, s.deleted(server), s.deleted(node), routes)
            yield s.Delete(key=keys.port(name), after=after, object_id=ports[name].id)


def released(now: Situation, steps: tuple[s.Step, ...]) -> tuple[str, ...]:
    """Names of allocated nodes that are neither wanted nor touched by any step: nothing of them is left."""
    wanted = {node.name for node in now.nodes}
    named = {step.key.name for step in steps if step.key.kind in (Kind.SERVER, Kind.PORT, Kind.NODE)}
    return tuple(name for name in now.recorded.allocations if name not in wanted | named)
