"""What is wrong with nodes whose machines exist: not registered, not Ready for long, left cordoned by a removal that was called
off.

Always holds: `up` waits for a machine that may still come by itself, and never restarts it. A node that may come back because
the network is repaired is not restarted in the same run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta

from moyai.cloud.model import Power
from moyai.plan import keys
from moyai.plan import steps as s
from moyai.plan.cluster.situation import Situation
from moyai.plan.nodes import PlannedNode
from moyai.plan.observed import KubeFacts
from moyai.plan.pod_network import PodNetwork

#: How long a node may be not Ready before its machine is restarted: by then Kubernetes has told its pods to leave.
UNREADY_LIMIT = timedelta(minutes=5)
#: Steps that may bring a silent node back.
_NETWORK = (
    s.CreateNetwork,
    s.CreateSubnet,
    s.CreateRouter,
    s.SetGateway,
    s.AddInterface,
    s.CreateGroup,
    s.SetRules,
    s.CreatePort,
    s.SetSendFrom,
    s.AddRoutes,
)


def plan_repair(now: Situation, steps: Sequence[s.Step], *, pods: PodNetwork) -> Iterator[s.Step]:
    """``steps``: what mends the network and the machines themselves."""
    kube = now.observed.kube
    if now.makes_cluster:
        return
    for node in now.control_planes:
        known = kube.node(node.name) if kube else None
        # an API that does not answer says nothing of the marks either
        # one that joins others is marked by its own kubeadm as well, which an interrupted run may not have come to
        stale = node.name in now.stale_nodes
        if (now.lives(node.name) or not now.only_plane(node)) and (known is None or known.role == "worker" or stale):
            after = (s.StepId(s.Verb.RESTART, keys.server(node.name)), s.reached(s.API))
            if not now.only_plane(node):
                after = (*after, s.created(keys.server(node.name)), s.reached(s.MACHINES))
            yield s.MarkControlPlane(key=keys.node_object(node.name), after=after, node=node.name)
    if kube is None:
        return
    # a node without a pod network of its user's is not Ready either, and no restart would change that
    quiet = pods.ready and not any(isinstance(step, _NETWORK) for step in steps)
    for node in now.nodes:
        known, server = kube.node(node.name), now.existing.servers.get(node.name)
        if server is not None and (why := _restart_reason(now, node, kube=kube, quiet=quiet)):
            key = keys.server(node.name)
            # a token comes over the API, which the restart of a control plane is to bring back
            token = (s.created(keys.TOKEN),) if node.role == "worker" else ()
            yield s.RestartServer(key=key, after=(s.StepId(s.Verb.RESUME, key), *token), server_id=server.id, why=why)
        if known is not None and known.removing and now.lives(node.name):
            yield s.UncordonNode(key=keys.node_object(node.name), after=(s.reached(s.API),), node=node.name)


def _restart_reason(now: Situation, node: PlannedNode, *, kube: KubeFacts, quiet: bool) -> str:
    """Why the node's machine is to be restarted; empty where it is not."""
    server, known, moment = now.existing.servers[node.name], kube.node(node.name), now.recorded.now
    if node.name in now.recorded.joining or server.power not in (Power.RUNNING, Power.SUSPENDED):
        return ""
    if known is None:
        return "it has no Node object, and a kubelet registers only when it starts"
    since = known.ready_since
    if known.ready or since is None or moment is None or not quiet or server.power is Power.SUSPENDED:
        return ""
    if moment - since < UNREADY_LIMIT or not _bears_restart(now, node, kube=kube):
        return ""
    return f"its node has not been Ready since {since:%Y-%m-%d %H:%M} UTC"


def _bears_restart(now: Situation, node: PlannedNode, *, kube: KubeFacts) -> bool:
    """Whether etcd keeps its majority while the machine is away: of several control planes all others must be Ready."""
    if node.role == "worker" or now.only_plane(node):
        return True
    return all(other.name in kube.in_service for other in now.control_planes if other != node)


def cordon_notes(now: Situation) -> Iterator[str]:
    """Nodes that take no new pods because somebody said so: not `up`, which therefore does not undo it."""
    kube = now.observed.kube
    for node in now.nodes:
        known = kube.node(node.name) if kube else None
        if known is not None and known.cordoned and not known.removing:
            yield f"node {node.name} is cordoned: `moyai kubectl uncordon {node.name}` lets pods onto it again"
