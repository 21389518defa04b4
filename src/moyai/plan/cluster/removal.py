"""Nodes that the spec no longer has: out of the load balancers first, then drained, then the machine, the Node object, and last
the port with its address. A control plane leaves the others in between.

Always holds: no pod leaves a node and no machine is deleted while a load balancer sends to it, as far as the API can be asked
for that; one control plane leaves at a time, after those that are to stay are Ready; so does a node that another one replaces.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from moyai.cloud.capabilities import Capability
from moyai.cloud.model import Port, Power
from moyai.core.keys import Kind
from moyai.plan import keys
from moyai.plan import steps as s
from moyai.plan.cluster.api_balancer import lead_out
from moyai.plan.cluster.situation import Situation
from moyai.plan.nodes import pool_of_node
from moyai.plan.observed import owns


def plan_removal(now: Situation) -> Iterator[s.Step]:
    turn: tuple[s.StepId, ...] = ()
    for name in now.leaving_planes:
        yield from leave_control_plane(now, name, turn=turn)
        yield from _remove(now, name)
        # one at a time: two that leave together could be a majority
        turn = (s.StepId(s.Verb.REMOVE, keys.member(name)), s.deleted(keys.server(name)), s.deleted(keys.node_object(name)))
    # those that take the place of others are Ready and have what every node has
    well = (s.reached(s.API), s.reached(s.NODES), *(s.reached(addon.condition) for addon in now.addons))
    for name in now.leaving:
        if name not in now.leaving_planes:
            first = well if name in now.rolled else ()
            for step in (*leave_service(now, name), *_remove(now, name)):
                yield replace(step, after=(*first, *step.after))


def _remove(now: Situation, name: str) -> Iterator[s.Step]:
    """What deletes a node that is out of service."""
    server, node, port = keys.server(name), keys.node_object(name), _port(now, name)
    if name in now.existing.servers:
        yield s.Delete(key=server, after=out_of_service(name), object_id=now.existing.servers[name].id)
    # an API that did not answer may have the Node all the same
    unknown = _unknown(now) and name in now.recorded.allocations
    if name in now.observed.kube_nodes or unknown:
        yield s.DeleteNode(key=node, after=(s.deleted(server), s.reached(s.API)), node=name)
    if port is not None:
        # the address is free for another node once nothing leads to it; the port goes last, with the node's allocation
        routes = s.StepId(s.Verb.REMOVE, keys.ROUTES)
        after = (*out_of_service(name), s.deleted(server), s.deleted(node), routes)
        yield s.Delete(key=keys.port(name), after=after, object_id=port.id)


def _port(now: Situation, name: str) -> Port | None:
    return next((one for one in now.observed.ports if one.name == name and owns(now.recorded.uid, one)), None)


def leave_control_plane(now: Situation, name: str, *, turn: tuple[s.StepId, ...]) -> Iterator[s.Step]:
    """What a control plane does before its machine is deleted, once ``turn`` is done and all that stay are Ready.

    Its pods leave it as any node's do. Then its leadership of etcd goes to another one, its API server ends, and its member is
    removed, in this order: each is what the next one needs, so that no client waits for more than the address's move. Of a
    machine that does not run only the member is left. The machine goes last, since a member that is removed never comes back.
    """
    address = now.plane_address(name)
    if name in now.obsolete or not address:
        return
    begin = (s.reached(s.API), s.reached(s.PLANES), *turn)
    stay = now.control_planes
    names = tuple(node.name for node in stay)
    node, member = keys.node_object(name), keys.member(name)
    led_out = s.StepId(s.Verb.REMOVE, keys.api_member(name))
    moved = s.StepId(s.Verb.MOVE, member)
    yield from lead_out(now, name, after=(*begin, *_left(name), moved))
    if name in now.existing.servers and _works(now, name):
        for step in leave_service(now, name):
            yield replace(step, after=(*begin, *step.after))
        yield s.MoveLeadership(key=member, after=(*begin, *_left(name)), node=name, address=address, stay=names)
        yield s.StopServing(
            key=node,
            after=(*begin, *_left(name), moved, led_out),
            node=name,
            address=address,
            stay=names,
            stay_addresses=tuple(one.address for one in stay),
        )
    known = name in now.existing.servers or name in now.observed.kube_nodes or _port(now, name) is not None
    stopped = (moved, led_out, s.StepId(s.Verb.STOP, node))
    after = (*begin, *_left(name), *stopped)
    yield s.RemoveMember(key=member, after=after, node=name, address=address, stay=names, release=not known)


def _works(now: Situation, name: str) -> bool:
    """Whether a machine that exists does its work; one that its cloud calls broken may do it all the same."""
    still = now.existing.servers[name].power in (Power.OFF, Power.SUSPENDED, Power.HELD)
    known = now.observed.kube.node(name) if now.observed.kube else None
    return (now.lives(name) and not still) or (known is not None and known.ready)


def leave_service(now: Situation, name: str) -> Iterator[s.Step]:
    """What a node does before its machine is deleted: load balancers leave it, then its pods and disks do. The other way round,
    load balancers of Services that only send to nodes with pods (externalTrafficPolicy Local) would send to a node without any.

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
    excluded, without = s.StepId(s.Verb.EXCLUDE, node), s.reached(s.balancers_without(name))
    if works and (known is not None or unknown):
        yield s.DrainNode(key=node, after=(excluded, without, s.reached(s.API)), node=name, rules=_rules(now, name))
    if Capability.LOAD_BALANCERS not in now.observed.capabilities or not (kube is not None or unknown):
        return
    if known is not None and known.role == "control-plane" and known.excluded and not known.removing:
        return  # kubeadm excluded it from the beginning: no load balancer has ever sent to it
    if unknown or (known is not None and not known.excluded):
        yield s.ExcludeNode(key=node, after=(s.reached(s.API),), node=name)
    ports = [port.fixed_ips for port in now.observed.ports if port.device_id == server.id]
    fixed = [address.address for address in server.addresses if address.kind == "fixed"]
    addresses = tuple(sorted({*fixed, *(ip for fixed_ips in ports for ip in fixed_ips)}))
    yield s.WaitBalancers(key=s.balancers_without(name), after=(excluded, s.reached(s.API)), node=name, addresses=addresses)


def _rules(now: Situation, name: str) -> s.DrainRules:
    """Those of its pool; the usual ones for a control plane, and for a node whose pool the spec has no more."""
    pool = pool_of_node(name, now.cluster.name)
    drain = next((one.drain for one in now.spec.node_pools if one.name == pool), None)
    if drain is None:
        return s.DrainRules()
    order = tuple(tuple(sorted(labels.items())) for labels in drain.order)
    override = drain.at_timeout == "override"
    return s.DrainRules(order=order, jobs=drain.wait_for_jobs, timeout=drain.timeout, override=override)


def out_of_service(name: str) -> tuple[s.StepId, ...]:
    """The steps of ``leave_service`` and ``leave_control_plane``."""
    ended = (s.StepId(s.Verb.STOP, keys.node_object(name)), s.StepId(s.Verb.REMOVE, keys.member(name)))
    return (*_left(name), s.StepId(s.Verb.REMOVE, keys.api_member(name)), *ended)


def _left(name: str) -> tuple[s.StepId, ...]:
    node = keys.node_object(name)
    return (s.StepId(s.Verb.DRAIN, node), s.StepId(s.Verb.EXCLUDE, node), s.reached(s.balancers_without(name)))


def _unknown(now: Situation) -> bool:
    """Whether there is an API that did not answer."""
    return now.observed.kube is None and now.recorded.ready


def released(now: Situation, steps: tuple[s.Step, ...]) -> tuple[str, ...]:
    """Names of allocated nodes that are neither wanted nor spared nor touched by any step: nothing of them is left."""
    wanted = {*(node.name for node in now.nodes), *now.spared}
    named = {step.key.name for step in steps if step.key.kind in (Kind.SERVER, Kind.PORT, Kind.NODE, Kind.MEMBER)}
    return tuple(name for name in now.recorded.allocations if name not in wanted | named)
