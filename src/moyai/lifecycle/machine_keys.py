"""Gives running machines the keys and certificates that the record has, and waits until their static pods use them.

A pod on the machine does it, with ``bootstrap/data/machine_keys.py``. Always holds: keys go to the machine on the program's
standard input, never as an argument or an object of the API; each call may come again at any time; a connection that ends early
proves nothing, so the machine is asked again until it says that nothing is left to change.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from importlib import resources
from typing import Any

from moyai.bootstrap import pki as authorities
from moyai.core.clock import Clock
from moyai.core.errors import Conflict, MoyaiError, NotFound, Retriable, Terminal
from moyai.core.progress import Progress
from moyai.core.waiting import NotYet, until
from moyai.kube.objects import parse_pod
from moyai.kube.objects.meta import part, rows, text
from moyai.kube.quick import KubeApi, ProgramFailed
from moyai.kube.resources import NODES, PODS, Json
from moyai.lifecycle.etcd_members import Etcd
from moyai.lifecycle.plane_pod import NAMESPACE, own_image, plane_pod
from moyai.plan import steps as s
from moyai.plan.rotation import Rotated, Rotation

#: Seconds: for the pod to run; for a machine to have its keys; for static pods to run again, of which the API server is one.
POD_TIMEOUT, KEYS_TIMEOUT, STATIC_TIMEOUT, WORD_TIMEOUT = 120.0, 180.0, 300.0, 15.0
_PAUSE = 0.5
#: Folders of the machine, by role: of Kubernetes' keys, of the kubelet's, of moyai's programs.
_FOLDERS = {
    "control-plane": ("/etc/kubernetes", "/var/lib/kubelet/pki", "/usr/local/lib/moyai"),
    "worker": ("/etc/kubernetes", "/var/lib/kubelet/pki"),
}
ANNOTATION = "moyai.dev/keys"


@dataclass(frozen=True)
class MachineOrder:
    """What the program on a machine is asked for; its head says what each of it means."""

    now: str
    files: Mapping[str, str] = field(repr=False, default_factory=dict[str, str])
    renews: bool = False
    chain: str = ""
    flags: Mapping[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]])
    pods: tuple[str, ...] = ()
    generation: str = ""
    kubelet: str = field(repr=False, default="")

    @property
    def kubelet_name(self) -> str:
        """The file that the kubelet's new certificate gets."""
        return f"kubelet-client-{datetime.fromisoformat(self.now):%Y-%m-%d-%H-%M-%S}.pem"

    def line(self) -> bytes:
        found: dict[str, Any] = {
            "now": self.now, "files": self.files, "renews": self.renews, "chain": self.chain, "flags": self.flags,
            "pods": self.pods, "generation": self.generation, "kubelet": self.kubelet,
        }  # fmt: skip
        return json.dumps(found).encode() + b"\n"


def program() -> str:
    return (resources.files("moyai.bootstrap") / "data" / "machine_keys.py").read_text(encoding="utf-8")


class MachineKeys:
    def __init__(self, api: Callable[[], KubeApi], *, clock: Clock) -> None:
        self._open, self._clock = api, clock

    def give(self, step: s.SetMachineKeys, order: MachineOrder, *, progress: Progress) -> None:
        """Content where the machine has all of it. Terminal where it does not get there in time."""
        api = self._open()
        pod = _pod_name(step.node)
        # of an earlier run: it may end in the middle of the work
        with suppress(MoyaiError):
            api.delete(PODS, pod, namespace=NAMESPACE, grace=0)
        self._until(lambda: self._started(api, step), timeout=POD_TIMEOUT, node=step.node, progress=progress)

        kubelet = ""

        def ask() -> NotYet | None:
            nonlocal kubelet
            command = ["python3", "-c", program()]
            try:
                said = api.execute(NAMESPACE, pod, command=command, timeout=WORD_TIMEOUT, given=order.line())
            except ProgramFailed:
                raise
            except Terminal as error:
                # the machine's own API server starts again and does not know anybody's rights yet, its kubelet asks it for them
                return NotYet(error.message)
            try:
                answer = json.loads(said)
                changed, kubelet = answer["changed"], str(answer["kubelet"])
            except (ValueError, KeyError, TypeError):
                raise Retriable(f"the machine of {step.node} does not say what it has") from None
            return NotYet(f"{step.node} has got {', '.join(changed)}") if changed else None

        before = self._heard(api, step.node) if order.kubelet else ""
        self._until(ask, timeout=KEYS_TIMEOUT, node=step.node, progress=progress)
        if before and kubelet == order.kubelet_name:
            self._until(
                lambda: self._back(api, step.node, before=before), timeout=KEYS_TIMEOUT, node=step.node, progress=progress
            )
        if step.role == "worker":
            self._tidy(api, step.node)

    def wait(self, step: s.WaitStaticPods, progress: Progress) -> None:
        """Content where all static pods of the control plane run with this generation, and etcd is whole."""
        api = self._open()
        self._until(lambda: self._run(api, step), timeout=STATIC_TIMEOUT, node=step.node, progress=progress)
        self._tidy(api, step.node)

    def _tidy(self, api: KubeApi, node: str) -> None:
        with suppress(MoyaiError):  # it ends by itself
            api.delete(PODS, _pod_name(node), namespace=NAMESPACE, grace=0)

    def _heard(self, api: KubeApi, node: str) -> str:
        """When the node's kubelet was last heard of; some other word where the API does not answer just now."""
        try:
            return _heartbeat(api.get(NODES, node))
        except MoyaiError:
            return "unknown"

    def _back(self, api: KubeApi, node: str, *, before: str) -> NotYet | None:
        """A kubelet that has started again is not Ready for a moment; what it said before counts no more."""
        found = api.get(NODES, node)
        if _heartbeat(found) == before:
            return NotYet(f"the kubelet of {node} has not been heard of since it was ended")
        return None if _ready(found) else NotYet(f"node {node} is not Ready again yet")

    def _started(self, api: KubeApi, step: s.SetMachineKeys) -> NotYet | None:
        pod = _pod_name(step.node)
        with suppress(Conflict):
            made = plane_pod(
                pod,
                api.get(NODES, step.node),
                image=own_image(api),
                container="keys",
                folders=_FOLDERS[step.role],
                read_only=False,
                sees_processes=True,
            )
            api.create(PODS, made, namespace=NAMESPACE)
        found = parse_pod(api.get(PODS, pod, namespace=NAMESPACE))
        if found.finished or found.deleting:
            api.delete(PODS, pod, namespace=NAMESPACE, grace=0)
        why = next((f" ({one.message or one.ended})" for one in found.containers if one.ended), "") or found.message
        return None if found.phase == "Running" else NotYet(f"pod {pod} is {found.phase or 'not started'}{why}")

    def _run(self, api: KubeApi, step: s.WaitStaticPods) -> NotYet | None:
        for name in step.pods:
            pod = f"{name}-{step.node}"
            try:
                found = api.get(PODS, pod, namespace=NAMESPACE)
            except NotFound:
                return NotYet(f"{pod} does not run yet")
            if text(part(part(found, "metadata"), "annotations"), ANNOTATION) != step.generation or not _ready(found):
                return NotYet(f"{pod} does not run with its new keys yet")
        etcd = Etcd(api, (step.node,))
        members = etcd.members()
        well = etcd.healthy(members)
        ill = sorted(one.name or one.address for one in members if one.id not in well)
        return NotYet(f"etcd of {', '.join(ill)} is not healthy") if ill else None

    def _until(self, look: Callable[[], NotYet | None], *, timeout: float, node: str, progress: Progress) -> None:
        def late(seen: NotYet) -> Terminal:
            return Terminal(
                f"node {node} does not get its keys: waited {timeout:.0f} s: {seen.missing}",
                hint="`moyai status` shows the nodes; the same command goes on here",
            )

        until(look, clock=self._clock, timeout=timeout, pause=_PAUSE, retry=Retriable, on_wait=progress.progress, late=late)


def _pod_name(node: str) -> str:
    return f"keys-{node}"


def _heartbeat(node: Json) -> str:
    conditions = rows(part(node, "status"), "conditions")
    return next((text(one, "lastHeartbeatTime") for one in conditions if text(one, "type") == "Ready"), "")


def _ready(pod: Json) -> bool:
    conditions = rows(part(pod, "status"), "conditions")
    return any((text(one, "type"), text(one, "status")) == ("Ready", "True") for one in conditions)


def plane_order(pki: authorities.Pki, rotation: Rotation, *, encryption: str, now: str, renewal: str) -> MachineOrder:
    """For a control plane. ``encryption``: the API server's configuration of its keys, empty where it has none. ``renewal``:
    the program that renews certificates on the machine."""
    files = {f"etc/kubernetes/pki/{name}": content.decode() for name, content in pki.files.items()}
    if encryption:
        files["etc/kubernetes/api-server/encryption.yaml"] = encryption
    if renewal:
        files["usr/local/lib/moyai/renew-certificates"] = renewal
    signing = f"/etc/kubernetes/pki/{authorities.SIGNING}"
    return MachineOrder(
        now,
        files=files,
        renews=rotation.what is Rotated.CERTIFICATES,
        chain=pki.files.get(authorities.CROSS, b"").decode(),
        flags={"kube-controller-manager": {"cluster-signing-cert-file": signing}} if authorities.SIGNING in pki.files else {},
        pods=rotation.pods,
        generation=rotation.generation,
    )


def worker_order(pki: authorities.Pki, *, now: str) -> MachineOrder:
    return MachineOrder(now, files={"etc/kubernetes/pki/ca.crt": pki.ca.decode()})
