"""Taking a node out of service: cordon it, evict its pods, wait for its disks, and delete its Node object.

Always holds: disruption budgets are respected; a Node object goes after its disks, because nobody takes them off a node that
Kubernetes no longer knows.
"""

from __future__ import annotations

from moyai.core.clock import Clock
from moyai.core.errors import NotFound, Retriable, Terminal
from moyai.core.progress import Step as Progress
from moyai.kube.objects import Pod, parse_attachment, parse_pod
from moyai.kube.quick import KubeApi
from moyai.kube.resources import NODES, PODS, VOLUME_ATTACHMENTS

#: Seconds in which pods must leave a node that is removed, disruption budgets included.
DRAIN_TIMEOUT = 180.0
#: Seconds for its disks, which no other node gets while Kubernetes thinks that this one may have them mounted: a kubelet
#: reports every 10 s which it has, and a machine that is gone is fenced by the cloud controller manager. Without either
#: Kubernetes gives them to another node after 6 minutes.
DISKS_TIMEOUT = 60.0


def forget_node(api: KubeApi, name: str, *, clock: Clock) -> None:
    """Delete the Node of a machine that is gone, after its disks: without it nobody takes them off."""
    _wait_for_disks(api, name, clock=clock)
    api.delete(NODES, name)


def cordon(api: KubeApi, name: str) -> None:
    """No new pod is placed on the node."""
    api.patch(NODES, name, {"spec": {"unschedulable": True}})


def _wait_for_disks(api: KubeApi, name: str, *, clock: Clock, progress: Progress | None = None) -> None:
    end = clock.monotonic() + DISKS_TIMEOUT
    while count := sum(parse_attachment(one).node == name for one in api.list(VOLUME_ATTACHMENTS)):
        if clock.monotonic() >= end:
            return
        if progress:
            progress.progress(f"{count} disks are still there")
        clock.sleep(0.5)


def drain(api: KubeApi, name: str, *, clock: Clock, progress: Progress, timeout: float = DRAIN_TIMEOUT) -> None:
    """Cordon a node, evict its pods, respecting disruption budgets, and let its disks go.

    Terminal when the pods have not left in time; disks that stay only take longer to come to another node.
    """
    try:
        cordon(api, name)
    except NotFound:
        return
    end = clock.monotonic() + timeout
    while True:
        pods = [pod for pod in map(parse_pod, api.list(PODS, fields=f"spec.nodeName={name}")) if _must_leave(pod)]
        if not pods:
            _wait_for_disks(api, name, clock=clock, progress=progress)
            return
        refused: dict[str, str] = {}
        for pod in pods:
            if not pod.deleting:
                try:
                    api.evict(pod.namespace, pod.name)
                except NotFound:
                    continue
                except Retriable as error:
                    refused[pod.key] = error.message
        left = ", ".join(sorted(pod.key for pod in pods)[:3])
        if clock.monotonic() >= end:
            why = next(iter(refused.values()), "they do not end")
            raise Terminal(
                f"node {name} could not be drained in {timeout:.0f} s: {len(pods)} pods stay ({left}): {why}",
                hint="the node is cordoned and everything else as it was; let the pods go and run `moyai up` again",
            )
        progress.progress(f"{len(pods)} pods are still there ({left})")
        clock.sleep(0.5 if not refused else 2.0)


def _must_leave(pod: Pod) -> bool:
    """Pods of DaemonSets come back at once, static ones belong to the machine, finished ones do no harm."""
    return not pod.static and not pod.finished and not {"DaemonSet", "Node"}.intersection(pod.owners)
