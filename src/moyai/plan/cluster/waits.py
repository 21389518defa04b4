"""What `up` waits for. A wait is planned where its condition does not hold yet, or where steps of the plan may end it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from moyai.cloud.capabilities import Capability
from moyai.cloud.model import Power
from moyai.core.ids import UNSEALING_KEY
from moyai.core.keys import Key, Kind
from moyai.plan import keys
from moyai.plan import steps as s
from moyai.plan.cluster.situation import Situation
from moyai.plan.pod_network import PodNetwork

#: Steps after which a machine boots, or goes on.
_BEGINS = (s.CreateServer, s.StartServer, s.ResumeServer, s.RestartServer)


def once_machines_boot(now: Situation) -> tuple[s.StepId, ...]:
    """What must be done before the things that no machine needs to boot: a new cluster's machines run first, since they take
    longest, and the cloud is free for them.

    Not where the API is needed before a machine can be made, for the API waits for the router. Where nodes leave, their
    draining waits for the API as well.
    """
    if not now.makes_cluster or now.renews_token or now.stale_nodes:
        return ()
    if now.leaving:
        return tuple(s.created(keys.server(node.name)) for node in now.nodes)
    return (s.reached(s.MACHINES),)


def plan_waits(
    now: Situation, steps: Sequence[s.Step], *, reachable: tuple[s.StepId, ...], pods: PodNetwork
) -> Iterator[s.Step]:
    """``steps``: all others of the plan. ``reachable``: what must be done before the API can answer."""
    plane = now.control_planes[0]
    began = tuple(step.id for step in steps if isinstance(step, _BEGINS))
    gone = (step for step in steps if step.key.kind in (Kind.SERVER, Kind.NODE) and step.verb is s.Verb.DELETE)
    # a node that is replaced leaves once the others are Ready
    removed = tuple(step.id for step in gone if step.key.name not in now.rolled)
    names = tuple(node.name for node in now.nodes if node.name not in now.held)
    servers = now.existing.servers
    if began or any(name in servers and servers[name].power is not Power.RUNNING for name in names):
        yield s.WaitMachines(key=s.MACHINES, after=began, nodes=names)
    starts = _starts_of_planes(now, began)
    kube = now.observed.kube
    if (starts and _stops(now)) or kube is None or not now.recorded.ready:
        restart = s.StepId(s.Verb.RESTART, keys.server(plane.name))
        if restart in began and now.only_plane(plane):
            # the API that answers must not be the one that is about to end
            yield s.WaitMachines(key=s.PLANE, after=(restart,), nodes=(plane.name,))
        seen = next((node for node in now.control_planes if now.lives(node.name)), plane)
        sent = (s.StepId(s.Verb.SEND, keys.server(now.founder)), *(_sent(one.key.name) for one in starts))
        pending = (_sent(node.name) for node in now.control_planes if now.lives(node.name))
        yield s.WaitApi(key=s.API, after=(*reachable, *starts, *sent, *pending, s.reached(s.PLANE)), node=seen.name)
    if began and now.leaving_planes:
        planes = tuple(node.name for node in now.control_planes)
        marks = tuple(s.StepId(s.Verb.SET, keys.node_object(name)) for name in planes)
        after = (s.reached(s.API), s.reached(s.MACHINES), *marks)
        yield s.WaitNodes(key=s.PLANES, after=after, nodes=planes, ready=pods.ready)
    # where servers have no metadata, the key came with the start
    for node in now.control_planes if Capability.METADATA in now.observed.capabilities else ():
        server = servers.get(node.name)
        if server is None or server.power.broken or UNSEALING_KEY in server.metadata:
            # the key has served: the machine has opened its secrets
            after = (s.created(keys.server(node.name)), s.reached(s.API if now.only_plane(node) else s.NODES))
            yield s.DeleteUnsealingKey(key=_unsealing_key(node.name), after=after, node=node.name)
    marked = s.StepId(s.Verb.SET, keys.node_object(plane.name))
    # a node is Ready after its machine runs: the time until then is the machine's
    joined = (s.reached(s.API), s.reached(s.MACHINES), marked, *removed, *map(_sent, names))
    if began or kube is None or not (kube.in_service if pods.ready else kube.registered) >= set(names):
        yield s.WaitNodes(key=s.NODES, after=joined, nodes=names, ready=pods.ready)
    joins = any(isinstance(step, s.RenewToken) or (isinstance(step, s.CreateServer) and step.by_token) for step in steps)
    if joins or (now.recorded.token_id if kube is None else kube.tokens):
        yield s.RevokeTokens(key=keys.TOKEN, after=(s.reached(s.NODES), s.created(keys.TOKEN)))
    scaled = {step.key.name: step.id for step in steps if isinstance(step, s.SetCopies)}
    applied = {step.addon: step.id for step in steps if isinstance(step, s.ApplyAddon)}
    for addon in now.addons:
        if addon.unwanted and addon.name not in applied:
            continue
        # nobody waits for what only a pod network of the user's would bring
        left_out = _gone(now) if pods.ready else _gone(now) | addon.after_network
        if addon.names <= left_out:
            continue
        changed = addon.name in applied or not scaled.keys().isdisjoint(addon.names)
        if began or kube is None or changed or not kube.running >= addon.names - left_out:
            own = (*filter(None, [applied.get(addon.name)]), *(step for name, step in scaled.items() if name in addon.names))
            # a DaemonSet does not count a node that has not joined yet
            yield s.WaitAddon(
                key=addon.condition,
                after=(*own, s.reached(s.API), s.reached(s.NODES)),
                addon=addon.name,
                deployments=tuple(name for name in addon.deployments if name not in left_out),
                daemon_sets=tuple(name for name in addon.daemon_sets if name not in left_out),
                required=addon.required,
                without=addon.without or f"{addon.name} does not run",
            )


def _sent(node: str) -> s.StepId:
    return s.StepId(s.Verb.SEND, keys.start(node))


def _stops(now: Situation) -> bool:
    """Whether the API stands still while its first machine begins."""
    return now.makes_cluster or now.only_plane(now.control_planes[0])


def _starts_of_planes(now: Situation, began: Sequence[s.StepId]) -> tuple[s.StepId, ...]:
    """The steps after which the API answers. A machine that joins others waits for their answer itself."""
    if _stops(now):
        return tuple(one for one in began if one.key == keys.server(now.control_planes[0].name))
    own = {keys.server(node.name) for node in now.control_planes}
    return tuple(one for one in began if one.key in own and one.verb is not s.Verb.CREATE)


def addon_notes(now: Situation) -> Iterator[str]:
    """What in kube-system no wait would bring: add-ons that somebody deleted, and what others have put there."""
    kube = now.observed.kube
    if kube is None:
        return
    gone = _gone(now)
    for name in sorted(gone):
        yield (
            f"{name} of kube-system is gone, and `up` applies add-ons only to a new cluster: restore it from a copy, or build "
            "the cluster again with `moyai down` and `moyai up`"
        )
    for name in sorted(kube.workloads - kube.running - _own(now)):
        yield f"{name} of kube-system, which is not moyai's, lacks pods: `moyai explain -n kube-system POD` says why"


def _own(now: Situation) -> frozenset[str]:
    return frozenset(name for addon in now.addons for name in addon.names)


def _gone(now: Situation) -> frozenset[str]:
    """Add-ons of ours that were applied, are not there any more, and are not applied again."""
    kube = now.observed.kube
    lasting = frozenset(name for addon in now.addons if not addon.live for name in addon.names)
    return lasting - kube.workloads if kube is not None and now.recorded.applied else frozenset()


def _unsealing_key(node: str) -> Key:
    return Key(Kind.UNSEALING_KEY, node)
