"""How a control plane leaves the others: its leadership of etcd, the API's address, its API server, its member.

Always holds: each part may be done again at any time; nothing is taken from the machine before another one does the same work.
A pod on the machine does what only the machine can do. The pod belongs to the Node, so no drain waits for it, and it goes with
the Node.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from importlib import resources

from moyai.core.clock import Clock
from moyai.core.errors import Conflict, MoyaiError, Retriable, Terminal
from moyai.core.progress import Progress
from moyai.core.waiting import NotYet, until
from moyai.kube.objects import parse_pod
from moyai.kube.objects.meta import rows, texts
from moyai.kube.quick import KubeApi
from moyai.kube.resources import ENDPOINT_SLICES, NODES, PODS, Json
from moyai.lifecycle.drain import note_stopped
from moyai.lifecycle.etcd_members import Etcd, EtcdMember, may_leave
from moyai.lifecycle.plane_pod import NAMESPACE, own_image, plane_pod
from moyai.lifecycle.plane_status import shown_names
from moyai.plan import steps as s

#: Seconds: for etcd to take a change; for the pod to run; for another machine to take the API's address; for the API server to
#: end, which finishes its requests first, and whose address the others drop 15 s after it was last heard of.
ETCD_TIMEOUT, POD_TIMEOUT, ADDRESS_TIMEOUT, END_TIMEOUT = 60.0, 60.0, 30.0, 60.0
_PAUSE = 0.3
_MANIFESTS = "/etc/kubernetes/manifests"


class LeavingPlanes:
    def __init__(self, api: Callable[[], KubeApi], *, clock: Clock) -> None:
        self._open, self._clock = api, clock

    def move_leadership(self, step: s.MoveLeadership, progress: Progress) -> None:
        """Content where the machine does not lead, or is no member. Terminal where etcd does not bear that the machine goes."""
        etcd = Etcd(self._open(), (*step.stay, step.node))

        def look() -> NotYet | None:
            members = etcd.members()
            mine = _at(members, step.address)
            if mine is None or mine.learner:
                return None
            healthy = etcd.healthy(members)
            if why := may_leave(members, step.address, healthy=healthy):
                return NotYet(why)
            if etcd.leader() != mine.id:
                return None
            others = [one for one in members if one != mine and one.id in healthy and not one.learner]
            # those that stay first: else the leadership moves again with the next machine
            target = min(others, key=lambda one: (one.name not in step.stay, one.id))
            try:
                etcd.move_leader(mine, target)
            except MoyaiError as error:
                return NotYet(f"{target.name} is not the leader yet: {error.message}")
            return NotYet(f"{target.name} is not the leader yet")

        self._until(look, ETCD_TIMEOUT, step=step, progress=progress)

    def stop_serving(self, step: s.StopServing, progress: Progress) -> None:
        """Content where the API server has ended. Terminal where no other machine takes the address."""
        api = self._open()
        parts = (
            (self._others_serve, ADDRESS_TIMEOUT),
            (self._started, POD_TIMEOUT),
            (self._handed_over, ADDRESS_TIMEOUT),
            (self._ended, END_TIMEOUT),
            (self._tidied, END_TIMEOUT),
        )
        for wanted, timeout in parts:
            self._until(partial(wanted, api, step), timeout, step=step, progress=progress)

    def remove_member(self, step: s.RemoveMember, progress: Progress) -> None:
        """Content where no member has the address. Terminal where etcd does not bear the removal."""
        etcd = Etcd(self._open(), step.stay)

        def look() -> NotYet | None:
            members = etcd.members()
            mine = _at(members, step.address)
            if mine is None:
                return None
            if why := may_leave(members, step.address, healthy=etcd.healthy(one for one in members if one != mine)):
                return NotYet(why)
            etcd.remove(mine)
            return NotYet("etcd has not removed it yet")

        self._until(look, ETCD_TIMEOUT, step=step, progress=progress)

    # ---- the API server

    def _others_serve(self, api: KubeApi, step: s.StopServing) -> NotYet | None:
        serving = serving_addresses(api)
        if step.address not in serving or serving.intersection(step.stay_addresses):
            return None
        return NotYet("no API server of a control plane that stays works")

    def _started(self, api: KubeApi, step: s.StopServing) -> NotYet | None:
        if step.address not in serving_addresses(api):
            return None
        note_stopped(api, step.node)
        pod = _pod_name(step.node)
        with suppress(Conflict):
            api.create(PODS, leaving_pod(pod, api.get(NODES, step.node), image=own_image(api)), namespace=NAMESPACE)
        found = parse_pod(api.get(PODS, pod, namespace=NAMESPACE))
        if found.finished or found.deleting:
            # of an earlier run
            api.delete(PODS, pod, namespace=NAMESPACE, grace=0)
        why = next((f" ({one.message or one.ended})" for one in found.containers if one.ended), "") or found.message
        return None if found.phase == "Running" else NotYet(f"pod {pod} is {found.phase or 'not started'}{why}")

    def _handed_over(self, api: KubeApi, step: s.StopServing) -> NotYet | None:
        names = shown_names(api)
        if step.node in names:
            self._run(api, step, what="address")
        # nobody answers for a moment while the address moves; one that leaves later may take it as well
        return None if names and step.node not in names else NotYet("no other control plane has the API's address yet")

    def _ended(self, api: KubeApi, step: s.StopServing) -> NotYet | None:
        if step.address not in serving_addresses(api):
            return None
        self._run(api, step, what="servers")
        return NotYet("its API server has not ended yet")

    def _run(self, api: KubeApi, step: s.StopServing, *, what: str) -> None:
        with suppress(Retriable):  # the address may move before the answer comes; the effect is looked at
            api.execute(NAMESPACE, _pod_name(step.node), command=["python3", "-c", _program(), what], timeout=10)

    def _tidied(self, api: KubeApi, step: s.StopServing) -> NotYet | None:
        # its kubelet cannot report any more that the pod has ended
        api.delete(PODS, _pod_name(step.node), namespace=NAMESPACE, grace=0)
        return None

    def _until(self, look: Callable[[], NotYet | None], timeout: float, *, step: s.LeavingPlane, progress: Progress) -> None:
        def late(seen: NotYet) -> Terminal:
            return Terminal(
                f"control plane {step.node} cannot leave: waited {timeout:.0f} s: {seen.missing}",
                hint="`moyai status` shows the control planes; the next `moyai up` goes on here",
            )

        until(look, clock=self._clock, timeout=timeout, pause=_PAUSE, on_wait=progress.progress, late=late)


def serving_addresses(api: KubeApi) -> set[str]:
    """Addresses of the API servers that work, by what they say of themselves."""
    slice_ = api.get(ENDPOINT_SLICES, "kubernetes", namespace="default")
    return {address for one in rows(slice_, "endpoints") for address in texts(one, "addresses")}


def _at(members: Collection[EtcdMember], address: str) -> EtcdMember | None:
    return next((one for one in members if one.address == address), None)


def _pod_name(node: str) -> str:
    return f"leave-{node}"


def _program() -> str:
    return (resources.files("moyai.bootstrap") / "data" / "leave_control_planes.py").read_text(encoding="utf-8")


def leaving_pod(name: str, node: Json, *, image: str) -> Json:
    """A pod on this Node. It sees the machine's processes and the manifests of its static pods."""
    return plane_pod(name, node, image=image, container="leave", folders=(_MANIFESTS,), read_only=False, sees_processes=True)
