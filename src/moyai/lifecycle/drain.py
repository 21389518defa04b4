"""Taking a node out of service: cordon it, evict its pods, wait for its disks, exclude it from load balancers, and delete its
Node object. And putting it back, when it is wanted after all.

Always holds: disruption budgets are respected; a Node object goes after its disks, because Kubernetes does not detach disks
from a Node that is gone; an annotation on the Node says what was done to it, so that what somebody else did is never undone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

from moyai.ccm.taints import taint_list
from moyai.core.clock import Clock
from moyai.core.errors import Conflict, NotFound, Retriable, Terminal
from moyai.core.ids import REMOVAL_KEY
from moyai.core.progress import Progress
from moyai.core.waiting import NotYet, until
from moyai.kube.objects import Node, Pod, Taint, parse_attachment, parse_node, parse_pod
from moyai.kube.objects.node import CONTROL_PLANE, EXCLUDE_LABEL
from moyai.kube.quick import KubeApi
from moyai.kube.resources import NODES, PODS, VOLUME_ATTACHMENTS, Json
from moyai.plan.steps import DrainRules

#: Seconds for pods that were deleted against their budgets; they have their grace period.
OVERRIDE_TIMEOUT = 90.0
#: Seconds for its disks. No other node gets them while Kubernetes assumes that this node has them mounted. A kubelet reports
#: every 10 s which disks it has mounted, and the cloud controller manager fences a machine that is gone. Without either,
#: Kubernetes waits for 6 minutes.
DISKS_TIMEOUT = 60.0
#: What the annotation says was done.
_CORDONED, _EXCLUDED, _STOPPED = "cordoned", "excluded", "stopped"
#: Keeps pods off the control plane.
_KEPT = Taint(CONTROL_PLANE, "NoSchedule")
#: The kubelet's reason for a pod whose node selector or affinity its node does not match.
_UNMATCHED = "NodeAffinity"
#: Seconds between two looks, and while a disruption budget refuses.
_PAUSE, _REFUSED_PAUSE = 0.5, 2.0


def forget_node(api: KubeApi, name: str, *, clock: Clock) -> None:
    """Delete the Node of a machine that is gone, after its disks: Kubernetes does not detach disks from a Node that is gone.

    And then the pods of DaemonSets, which nobody evicts: Kubernetes removes pods of a Node that is gone after some time only,
    and a new machine of this name would run them as they are, with images that it may not have. The other way round, a
    DaemonSet would lack a pod on a Node that it still counts.
    """
    _wait_for_disks(api, name, clock=clock)
    pods = [one for one in map(parse_pod, api.list(PODS, fields=f"spec.nodeName={name}")) if "DaemonSet" in one.owners]
    api.delete(NODES, name)
    for pod in pods:
        api.delete(PODS, pod.name, namespace=pod.namespace, grace=0)


def cordon(api: KubeApi, name: str) -> None:
    """No new pod is placed on the node. NotFound where there is none."""
    node = parse_node(api.get(NODES, name))
    if not node.cordoned:
        note = _noted(node, _CORDONED)
        api.patch(NODES, name, body={"metadata": {"annotations": note}, "spec": {"unschedulable": True}})


def exclude(api: KubeApi, name: str) -> None:
    """Load balancers send nothing more to the node, whichever cloud controller manager makes them."""
    with suppress(NotFound):
        node = parse_node(api.get(NODES, name))
        if EXCLUDE_LABEL not in node.labels:
            meta = {"annotations": _noted(node, _EXCLUDED), "labels": {EXCLUDE_LABEL: ""}}
            api.patch(NODES, name, body={"metadata": meta})


def note_stopped(api: KubeApi, name: str) -> None:
    """The control plane's API server ends now, and its machine does not come back."""
    note = _noted(parse_node(api.get(NODES, name)), _STOPPED)
    api.patch(NODES, name, body={"metadata": {"annotations": note}})


def is_stopped(node: Node) -> bool:
    """Whether ``note_stopped`` was called."""
    return _STOPPED in node.annotations.get(REMOVAL_KEY, "").split(",")


def return_to_service(api: KubeApi, name: str) -> None:
    """Undo ``cordon`` and ``exclude``, as far as they did it."""
    with suppress(NotFound):
        done = parse_node(api.get(NODES, name)).annotations.get(REMOVAL_KEY, "").split(",")
        meta: Json = {"annotations": {REMOVAL_KEY: None}}
        if _EXCLUDED in done:
            meta["labels"] = {EXCLUDE_LABEL: None}
        spec: Json = {"unschedulable": None} if _CORDONED in done else {}
        api.patch(NODES, name, body={"metadata": meta, "spec": spec})


def mark_control_plane(api: KubeApi, name: str, *, clock: Clock, progress: Progress, timeout: float) -> None:
    """Give the Node what `kubeadm init` gives it and no kubelet registers with, as soon as it is registered; and delete the
    pods that the kubelet refused before, as their node selectors matched no label.

    Terminal where it is not registered in time. Source: kubeadm's phase mark-control-plane.
    """

    def look() -> NotYet | None:
        try:
            node = parse_node(api.get(NODES, name))
        except NotFound:
            return NotYet(f"node {name} is not registered yet")
        if node.control_plane:
            return None  # it has them, but for what somebody took away on purpose
        taints = [*node.taints, *(() if _KEPT in node.taints else (_KEPT,))]
        labels = {CONTROL_PLANE: "", EXCLUDE_LABEL: ""}
        meta = {"resourceVersion": node.version, "labels": labels} if node.version else {"labels": labels}
        try:
            api.patch(NODES, name, body={"metadata": meta, "spec": {"taints": taint_list(taints)}})
        except Conflict:
            return NotYet(f"node {name} changes at the moment")
        return None

    def late(seen: NotYet) -> Terminal:
        return Terminal(f"waited {timeout:.0f} s: {seen.missing}", hint=f"`moyai ssh {name} journalctl -u kubelet` says why")

    until(look, clock=clock, timeout=timeout, pause=_PAUSE, on_wait=progress.progress, late=late)
    # a Deployment has made others in their place, and nobody else deletes them
    for pod in map(parse_pod, api.list(PODS, fields=f"spec.nodeName={name}")):
        if pod.phase == "Failed" and pod.reason == _UNMATCHED:
            with suppress(NotFound):
                api.delete(PODS, pod.name, namespace=pod.namespace)


def _noted(node: Node, what: str) -> dict[str, str]:
    """The annotation of a node to which one more thing is done."""
    done = [one for one in node.annotations.get(REMOVAL_KEY, "").split(",") if one]
    return {REMOVAL_KEY: ",".join(dict.fromkeys((*done, what)))}


def drain(api: KubeApi, name: str, *, clock: Clock, progress: Progress, rules: DrainRules | None = None) -> None:
    """Cordon a node, evict its pods, respecting disruption budgets, and let its disks go. ``rules``: of its pool.

    Terminal when the pods have not left in time; disks that stay only take longer to come to another node.
    """
    rules = rules or DrainRules()
    try:
        cordon(api, name)
    except NotFound:
        return
    why, begun = "they do not end", clock.monotonic()
    patience = rules.jobs + rules.timeout

    def look() -> NotYet | None:
        nonlocal why
        pods = [pod for pod in map(parse_pod, api.list(PODS, fields=f"spec.nodeName={name}")) if _must_leave(pod)]
        if not pods:
            return None
        passed = clock.monotonic() - begun
        left = f"{len(pods)} pods are still there ({_named(pods)})"
        if rules.override and passed >= patience:
            why = "they do not end, although they were deleted"
            _delete(api, pods)
            return NotYet(left)
        turn = min(_turn(pod, rules) for pod in pods)
        pods = [pod for pod in pods if _turn(pod, rules) == turn]
        jobs = [pod for pod in pods if "Job" in pod.owners] if passed < rules.jobs else []
        refused = _evict(api, [pod for pod in pods if pod not in jobs])
        why = refused or "they do not end"
        if jobs:
            left = f"{left}; pods of Jobs have {rules.jobs - passed:.0f} s to end ({_named(jobs)})"
        return NotYet(f"{left}: {refused}" if refused else left, pause=_REFUSED_PAUSE if refused else None)

    def late(seen: NotYet) -> Terminal:
        reason = "" if why in seen.missing else f": {why}"
        return Terminal(
            f"node {name} could not be drained in {timeout:.0f} s: {seen.missing}{reason}",
            hint="the node is cordoned and everything else as it was; let the pods go and run `moyai up` again",
        )

    timeout = patience + (OVERRIDE_TIMEOUT if rules.override else 0.0)
    until(look, clock=clock, timeout=timeout, pause=_PAUSE, on_wait=progress.progress, late=late)
    _wait_for_disks(api, name, clock=clock, progress=progress)


def _named(pods: Sequence[Pod]) -> str:
    return ", ".join(sorted(pod.key for pod in pods)[:3])


def _turn(pod: Pod, rules: DrainRules) -> int:
    """Which of ``order`` the pod's labels match first; those that match none come last."""
    own = set(pod.labels.items())
    return next((number for number, wanted in enumerate(rules.order) if own.issuperset(wanted)), len(rules.order))


def _delete(api: KubeApi, pods: Iterable[Pod]) -> None:
    for pod in pods:
        if not pod.deleting:
            api.delete(PODS, pod.name, namespace=pod.namespace)


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
