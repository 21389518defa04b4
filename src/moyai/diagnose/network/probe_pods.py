"""Pods that run a program of ours on the nodes for a while, in a namespace of their own.

A *pod probe* is an ordinary pod, as restricted as Pod Security knows it. A *host probe* has the node's network and may enter
the pods' namespaces; its programs change nothing, and send packets only where a user asks for it. Both use the image that the
cluster's own controllers run, which each node holds.

Always holds: nothing outside of the namespace is made, so its deletion removes everything; that is asked for however the block
ends. What a killed process left is found by a label and removed by the next one; a namespace whose owner lives is left alone.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timedelta
from importlib import resources
from typing import Any, Literal, Protocol, Self, TypeVar

from moyai.ccm import manifests as ccm
from moyai.core.clock import Clock
from moyai.core.errors import MoyaiError, Retriable, Terminal
from moyai.core.waiting import NotYet, until
from moyai.kube.objects import Pod, first_image, parse_pod
from moyai.kube.objects.meta import part, text, text_map
from moyai.kube.resources import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    KUBE_SYSTEM,
    NAMESPACES,
    PODS,
    SERVICE_ACCOUNTS,
    SERVICES,
    Json,
    Resource,
)
from moyai.linux import proc
from moyai.linux.pod_probe import PORT
from moyai.linux.proc import ProcessRecord

T = TypeVar("T")

LABEL, HOLDER = "moyai.dev/probe", "moyai.dev/probe-holder"
_FOLDER = "/opt/moyai-probe"
_PROGRAMS = ("pod_probe.py", "path_probe.py", "network_facts.py", "packet_watch.py")
#: A probe ends by itself after so long, whatever became of its owner.
LIFE = timedelta(minutes=15)
#: Seconds: for the pods to run; for a program in one of them.
START, RUN = 40.0, 30.0
_AT_ONCE = 16
ProbeKind = Literal["pod", "host"]


class ProbeApi(Protocol):
    """What is asked of ``kube.quick.KubeApi``."""

    def get(self, resource: Resource, name: str, *, namespace: str | None = None) -> Json: ...
    def list(self, resource: Resource, *, namespace: str | None = None) -> list[Json]: ...
    def create(self, resource: Resource, body: Mapping[str, Any], *, namespace: str | None = None) -> Json: ...
    def delete(self, resource: Resource, name: str) -> None: ...
    def execute(self, namespace: str, pod: str, *, command: Sequence[str], timeout: float) -> str: ...


class ProbePods:
    """``with ProbePods(api, clock=clock) as probes``. ``missing``: node → why it has no probe."""

    def __init__(self, api: ProbeApi, *, clock: Clock) -> None:
        self._api, self._clock = api, clock
        self._image = ""
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="probe")
        self.namespace = f"moyai-probe-{secrets.token_hex(3)}"
        self.missing: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._image = image_of(self._api)
        for name in leftovers(self._api.list(NAMESPACES), now=self._clock.now()):
            self._api.delete(NAMESPACES, name)
        try:
            self._api.create(NAMESPACES, _namespace(self.namespace))
            self._api.create(SERVICE_ACCOUNTS, _named("probe"), namespace=self.namespace)
            programs = {one: (resources.files("moyai.linux") / one).read_text(encoding="utf-8") for one in _PROGRAMS}
            self._api.create(CONFIG_MAPS, {**_named("programs"), "data": programs}, namespace=self.namespace)
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self._remove()

    def _remove(self) -> None:
        try:
            self._api.delete(NAMESPACES, self.namespace)
        finally:
            # programs that still run lose their connection with their pod
            self._pool.shutdown(wait=False, cancel_futures=True)

    def start(self, kind: ProbeKind, nodes: Collection[str]) -> dict[str, str]:
        """A probe on each node. Returns node → its address; a node that has none is in ``missing``."""
        made = self.each({node: lambda node=node: self._create(kind, node) for node in nodes})
        self.missing |= {node: str(error) for node, error in made.items() if isinstance(error, MoyaiError)}
        wanted = {_pod_name(kind, node): node for node in nodes if node not in self.missing}
        found: dict[str, Json] = {}

        def look() -> bool | NotYet:
            listed = self._api.list(PODS, namespace=self.namespace)
            found.update({text(part(one, "metadata"), "name"): one for one in listed})
            late = [node for name, node in wanted.items() if not _runs(found.get(name))]
            return NotYet(f"probes on {', '.join(late)}") if late else True

        try:
            until(look, clock=self._clock, timeout=START, pause=0.3)
        except Retriable:
            late = {node: found.get(name) for name, node in wanted.items() if not _runs(found.get(name))}
            self.missing |= {node: _why(parse_pod(one) if one else None) for node, one in late.items()}
        running = {node: found[name] for name, node in wanted.items() if node not in self.missing}
        return {node: text(part(one, "status"), "podIP") for node, one in running.items()}

    def services(self, nodes: Collection[str]) -> dict[str, str]:
        """A Service for each node's pod probe. Returns node → the Service's address; a node that has none is in ``missing``."""
        made = self.each({node: lambda node=node: self._service(node) for node in nodes})
        self.missing |= {node: f"its Service: {error}" for node, error in made.items() if isinstance(error, MoyaiError)}
        return {node: one for node, one in made.items() if isinstance(one, str)}

    def run(self, kind: ProbeKind, node: str, *, program: str, words: Sequence[str]) -> Any:
        """Run one of the programs in a node's probe; returns what it printed, read as JSON, None for nothing.

        Raises Terminal where it fails, Retriable where nothing answers.
        """
        command = ["python3", f"{_FOLDER}/{program}", *words]
        printed = self._api.execute(self.namespace, _pod_name(kind, node), command=command, timeout=RUN)
        try:
            return json.loads(printed) if printed else None
        except ValueError:
            raise Terminal(f"the probe on {node} printed no JSON but {printed[:80]!r}") from None

    def each(self, calls: Mapping[str, Callable[[], T]]) -> dict[str, T | MoyaiError]:
        """All calls at the same time: the result of each, or its error."""
        futures = {name: self._pool.submit(call) for name, call in calls.items()}
        return {name: _result(future) for name, future in futures.items()}

    def _create(self, kind: ProbeKind, node: str) -> None:
        self._api.create(PODS, probe_pod(kind, node, image=self._image), namespace=self.namespace)

    def _service(self, node: str) -> str:
        labels = {LABEL: "pod", "moyai.dev/node": _short(node)}
        ports = [{"port": PORT, "protocol": "TCP"}]
        body = {**_named(f"to-{_short(node)}"), "spec": {"selector": labels, "ports": ports}}
        made = self._api.create(SERVICES, body, namespace=self.namespace)
        return text(part(made, "spec"), "clusterIP")


def leftovers(namespaces: Iterable[Json], *, now: datetime) -> list[str]:
    """Names of the probes' namespaces whose process has ended, or that are older than a probe lives."""
    found: list[str] = []
    here = _here()
    for one in namespaces:
        meta = part(one, "metadata")
        if LABEL not in text_map(meta, "labels") or meta.get("deletionTimestamp"):
            continue
        place, _, process = text_map(meta, "annotations").get(HOLDER, "").rpartition(" ")
        try:
            old = now - datetime.fromisoformat(text(meta, "creationTimestamp")) > LIFE
        except ValueError:
            old = False
        if old or (place == here and not _alive(process)):
            found.append(text(meta, "name"))
    return found


def image_of(api: ProbeApi) -> str:
    """The image of moyai that the cluster's nodes hold."""
    image = first_image(api.get(DEPLOYMENTS, ccm.NAME, namespace=KUBE_SYSTEM))
    if not image:
        raise Terminal(f"Deployment {ccm.NAME} names no image: the cluster's nodes hold none that a probe could run")
    return image


def probe_pod(kind: ProbeKind, node: str, *, image: str) -> Json:
    """A pod on this node. It is bound without the scheduler, so it runs on a node that takes no new pods, too."""
    host = kind == "host"
    restricted = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True}
    rights = {
        **restricted,
        "capabilities": {"drop": ["ALL"], **({"add": ["NET_ADMIN", "NET_RAW", "SYS_ADMIN"]} if host else {})},
    }
    user = {} if host else {"runAsNonRoot": True, "runAsUser": 65534, "runAsGroup": 65534}
    sleeping = ["python3", "-c", f"import time; time.sleep({LIFE.total_seconds()})"]
    mounts: list[Json] = [{"name": "programs", "mountPath": _FOLDER, "readOnly": True}]
    volumes: list[Json] = [{"name": "programs", "configMap": {"name": "programs"}}]
    if host:
        mounts.append(
            {"name": "namespaces", "mountPath": "/run/netns", "readOnly": True, "mountPropagation": "HostToContainer"}
        )
        volumes.append({"name": "namespaces", "hostPath": {"path": "/run/netns"}})
    container: Json = {
        "name": "probe",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": sleeping if host else ["python3", f"{_FOLDER}/pod_probe.py", "serve"],
        "env": [{"name": "NODE_NAME", "value": node}],
        "resources": {"requests": {"cpu": "5m", "memory": "20Mi"}, "limits": {"memory": "300Mi"}},
        "securityContext": rights,
        "volumeMounts": mounts,
    }
    meta: Json = {"name": _pod_name(kind, node), "labels": {LABEL: kind, "moyai.dev/node": _short(node)}}
    spec: Json = {
        "nodeName": node,
        "hostNetwork": host,
        "serviceAccountName": "probe",
        "automountServiceAccountToken": False,
        "restartPolicy": "Never",
        "activeDeadlineSeconds": int(LIFE.total_seconds()),
        "terminationGracePeriodSeconds": 1,
        "tolerations": [{"operator": "Exists"}],
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}, **user},
        "containers": [container],
        "volumes": volumes,
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def _namespace(name: str) -> Json:
    labels = {LABEL: "true", "app.kubernetes.io/managed-by": "moyai"}
    # a host probe is more than any stricter level permits
    labels |= {f"pod-security.kubernetes.io/{mode}": "privileged" for mode in ("enforce", "audit", "warn")}
    return {"metadata": {"name": name, "labels": labels, "annotations": {HOLDER: _holder()}}}


def _here() -> str:
    """This boot of this machine, and which pids mean the same in it."""
    return f"{ProcessRecord.of(os.getpid()).boot} {proc.namespace(os.getpid(), 'pid')}"


def _holder() -> str:
    return f"{_here()} {os.getpid()}/{proc.start_time(os.getpid())}"


def _alive(process: str) -> bool:
    pid, _, start = process.partition("/")
    return pid.isdigit() and str(proc.start_time(int(pid))) == start


def _named(name: str) -> Json:
    return {"metadata": {"name": name}}


def _short(node: str) -> str:
    """A node's name as a label's value and as part of a Service's name, which have 63 characters at most."""
    return node.replace(".", "-")[-59:].lstrip("-")


def _pod_name(kind: ProbeKind, node: str) -> str:
    return f"{kind}-{node}"


def _runs(found: Json | None) -> bool:
    pod = parse_pod(found) if found else None
    return pod is not None and pod.phase == "Running" and bool(text(part(found or {}, "status"), "podIP"))


def _why(pod: Pod | None) -> str:
    if pod is None:
        return "its probe is gone"
    held = next((f"{one.waiting or one.ended}: {one.message}" for one in pod.containers if one.waiting or one.ended), "")
    return " ".join((held or pod.message or "its kubelet does not start the probe").split())


def _result(future: Future[T]) -> T | MoyaiError:
    try:
        return future.result()
    except MoyaiError as error:
        return error
