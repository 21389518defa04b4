"""Taking a node out of service: cordon it, evict its pods, wait for its disks, and delete its Node object.

Always holds: disruption budgets are respected; a Node object goes after its disks, because Kubernetes does not detach disks
from a Node that is gone.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from moyai.core.clock import Clock
from moyai.core.errors import NotFound, Retriable, Terminal
from moyai.core.progress import Progress
from moyai.core.waiting import NotYet, until
from moyai.kube.objects import Pod, parse_attachment, parse_pod
from moyai.kube.quick import KubeApi
from moyai.kube.resources import NODES, PODS, VOLUME_ATTACHMENTS

#: Seconds in which pods must leave a node that is removed, disruption budgets included.
DRAIN_TIMEOUT = 180.0
#: Seconds for its disks, which no other node gets while Kubernetes thinks that this one may have them mounted: a kubelet
#: reports every 10 s which it has, and a machine that is gone is fenced by the cloud controller manager. Without either
#: Kubernetes gives them to another node after 6 minutes.
DISKS_TIMEOUT = 60.0
#: Seconds between two looks, and while a disruption budget refuses.
_PAUSE, _REFUSED_PAUSE = 0.5, 2.0


def forget_node(api: KubeApi, name: str, *, clock: Clock) -> None:
    """Delete the Node of a machine that is gone, after its disks: Kubernetes does not detach disks from a Node that is gone."""
    _wait_for_disks(api, name, clock=clock)
    api.delete(NODES, name)


def cordon(api: KubeApi, name: str) -> None:
    """No new pod is placed on the node."""
    api.patch(NODES, name, body={"spec": {"unschedulable": True}})


def drain(api: KubeApi, name: str, *, clock: Clock, progress: Progress, timeout: float = DRAIN_TIMEOUT) -> None:
    """Cordon a node, evict its pods, respecting disruption budgets, and let its disks go.

    Terminal when the pods have not left in time; disks that stay only take longer to come to another node.
    """
    try:
        cordon(api, name)
    except NotFound:
        return
    why = "they do not end"

    def look() -> NotYet | None:
        nonlocal why
        pods = [pod for pod in map(parse_pod, api.list(PODS, fields=f"spec.nodeName={name}")) if _must_leave(pod)]
        if not pods:
            return None
        refused = _evict(api, pods)
        why = refused or "they do not end"
        left = ", ".join(sorted(pod.key for pod in pods)[:3])
        return NotYet(f"{len(pods)} pods are still there ({left})", pause=_REFUSED_PAUSE if refused else None)

    def late(seen: NotYet) -> Terminal:
        return Terminal(
            f"node {name} could not be drained in {timeout:.0f} s: {seen.missing}: {why}",
            hint="the node is cordoned and everything else as it was; let the pods go and run `moyai up` again",
        )

    until(look, clock=clock, timeout=timeout, pause=_PAUSE, on_wait=progress.progress, late=late)
    _wait_for_disks(api, name, clock=clock, progress=progress)


def _evict(api: KubeApi, pods: Iterable[Pod]) -> str:
    """Ask these pods to leave, where they have not begun to; returns why one of them may not yet."""
    refused = ""
    for pod in pods:
        if not pod.deleting:
            try:
                api.evict(pod.namespace, pod.name)
            except NotFound:
                continue
            except Retriable as error:
                refused = refused or error.message
    return refused


def _wait_for_disks(api: KubeApi, name: str, *, clock: Clock, progress: Progress | None = None) -> None:
    """Until no disk is at the node; after the time-out its disks are left to Kubernetes."""

    def look() -> NotYet | None:
        count = sum(parse_attachment(one).node == name for one in api.list(VOLUME_ATTACHMENTS))
        return NotYet(f"{count} disks are still there") if count else None

    report = progress.progress if progress else None
    with suppress(TimeoutError):
        until(look, clock=clock, timeout=DISKS_TIMEOUT, pause=_PAUSE, on_wait=report, late=_timed_out)


def _must_leave(pod: Pod) -> bool:
    """Pods of DaemonSets come back at once, static ones belong to the machine, finished ones do no harm."""
    return not pod.static and not pod.finished and not {"DaemonSet", "Node"}.intersection(pod.owners)


def _timed_out(seen: NotYet) -> Exception:
    """What ended the wait: an API that did not answer is an error, disks that stay are not."""
    return seen.error or TimeoutError()
