"""Waiting for machines and for Kubernetes, with words that say what is waited for and why it will not come.

Always holds: a wait ends: with success, with its time-out, or as soon as another wait has found the reason (a server that
failed makes it pointless to wait for its API). A time-out names what is missing and shows the machine's last console lines.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence

from moyai.cloud.capabilities import Machines
from moyai.cloud.model import Power, Server
from moyai.core.clock import Clock
from moyai.core.errors import MoyaiError, Retriable, Terminal
from moyai.core.ids import cluster_tag
from moyai.core.progress import Step as Progress
from moyai.kube.quick import Json, KubeApi, condition

#: Seconds that each wait may take; generous, because a busy host is slow (and kubelets have waits of their own).
MACHINE_TIMEOUT = 300.0
API_TIMEOUT = 300.0
NODES_TIMEOUT = 300.0
ADDONS_TIMEOUT = 300.0
UNINITIALIZED = "node.cloudprovider.kubernetes.io/uninitialized"


class Abort:
    """Set by whoever finds that waiting is pointless; the others then stop quietly."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        self._event.set()

    @property
    def is_set(self) -> bool:
        return self._event.is_set()


class Stopped(Terminal):
    """Another task failed; this one ended with it and has nothing to add."""


def wait(
    check: Callable[[], str],
    *,
    clock: Clock,
    abort: Abort,
    progress: Progress,
    timeout: float,
    failed: Callable[[str], MoyaiError],
    interval: float = 0.5,
) -> None:
    """Until ``check`` returns "" (what it returns else is what is still missing). ``failed`` makes the error of a time-out."""
    end = clock.monotonic() + timeout
    said = ""
    while True:
        try:
            missing = check()
        except Retriable as error:
            missing = error.message
        if not missing:
            return
        if abort.is_set:
            raise Stopped(f"stopped waiting ({missing})")
        if clock.monotonic() >= end:
            raise failed(missing)
        if missing != said:
            progress.progress(missing)
            said = missing
        clock.sleep(interval)


def machines(
    compute: Machines, uid: str, names: Collection[str], *, clock: Clock, abort: Abort, progress: Progress
) -> dict[str, Server]:
    """Wait until these servers run; Terminal with the cloud's own reason when one is broken."""
    seen: dict[str, Server] = {}
    settled = frozenset[str]()

    def check() -> str:
        nonlocal settled
        before, settled = settled, compute.settled_servers(tag=cluster_tag(uid)) & frozenset(names)
        if settled == before and len(settled) < len(names):
            return said()
        seen.clear()
        seen.update({server.name: server for server in compute.servers(tag=cluster_tag(uid)) if server.name in names})
        for server in seen.values():
            if server.power.broken:
                abort.set()
                raise broken(compute, server)
        return said()

    def said() -> str:
        waiting = sorted(name for name in names if name not in seen or seen[name].power is not Power.RUNNING)
        return f"{len(names) - len(waiting)} of {len(names)} machines run" if waiting else ""

    def failed(missing: str) -> MoyaiError:
        slow = [server for server in seen.values() if server.power is not Power.RUNNING]
        text = f"waited {MACHINE_TIMEOUT:.0f} s for machines: {missing}"
        return Terminal(text + (f"; {slow[0].name} is in {slow[0].status}" if slow else ""))

    wait(check, clock=clock, abort=abort, progress=progress, timeout=MACHINE_TIMEOUT, failed=failed)
    return seen


def broken(compute: Machines, server: Server) -> Terminal:
    """A server that will not come to life: its fault and the end of its console, in one line."""
    console = last_lines(compute, server.id)
    # Nova says ERROR an instant before it says why
    reason = server.fault or _fault(compute, server.id) or "the cloud gives no reason"
    return Terminal(
        f"server {server.name} is in {server.status}: {reason}" + (f"; its console ends with: {console}" if console else ""),
        hint="`moyai up` replaces it",
    )


def _fault(compute: Machines, server_id: str) -> str:
    try:
        return compute.server(server_id).fault
    except MoyaiError:
        return ""


def last_lines(compute: Machines, server_id: str, count: int = 3) -> str:
    """The end of a machine's console, joined to one line; empty when there is none."""
    try:
        text = compute.console_log(server_id, lines=30)
    except MoyaiError:
        return ""
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    ours = [line for line in lines if "moyai:" in line]
    return " / ".join(line[-200:] for line in (lines[-count:] if not ours else [*ours[-1:], *lines[-count:]]))


def api_answers(api: KubeApi, compute: Machines, server_id: str, *, clock: Clock, abort: Abort, progress: Progress) -> None:
    """Wait until the API server is ready, asked through its public address."""

    def failed(_: str) -> MoyaiError:
        return _late(f"the API at {api.server} to answer", API_TIMEOUT, compute, {server_id: "the control plane"})

    wait(
        lambda: "" if api.ready() else f"{api.server} does not answer yet",
        clock=clock,
        abort=abort,
        progress=progress,
        timeout=API_TIMEOUT,
        failed=failed,
        interval=0.3,
    )


def nodes_ready(
    api: KubeApi,
    compute: Machines,
    servers: dict[str, str],
    *,
    clock: Clock,
    abort: Abort,
    progress: Progress,
) -> None:
    """Wait until the nodes of these machines (name → server id) are Ready and known to the cloud controller manager."""

    missing_names: list[str] = []

    def check() -> str:
        ready, initialised = node_states(api.items("/api/v1/nodes"))
        missing_names[:] = sorted(set(servers) - ready)
        if missing_names:
            return f"{len(servers) - len(missing_names)} of {len(servers)} nodes are Ready"
        missing_names[:] = sorted(set(servers) - initialised)
        return f"the cloud controller manager has not met {', '.join(missing_names)} yet" if missing_names else ""

    def failed(missing: str) -> MoyaiError:
        return _late(f"nodes: {missing}", NODES_TIMEOUT, compute, {servers[name]: name for name in missing_names[:1]})

    wait(check, clock=clock, abort=abort, progress=progress, timeout=NODES_TIMEOUT, failed=failed)


def node_states(nodes: Sequence[Json]) -> tuple[set[str], set[str]]:
    """(names of Ready nodes, names of nodes that the cloud controller manager has initialised)."""
    ready = {node["metadata"]["name"] for node in nodes if condition(node, "Ready")}
    known = {node["metadata"]["name"] for node in nodes if UNINITIALIZED not in _taints(node)}
    return ready, known


def _taints(node: Json) -> set[str]:
    taints: list[Json] = node["spec"].get("taints") or []
    return {str(taint["key"]) for taint in taints}


def addons_run(
    api: KubeApi,
    names: Collection[str],
    daemon_sets: Collection[str] = ("kube-proxy",),
    *,
    clock: Clock,
    abort: Abort,
    progress: Progress,
) -> None:
    """Wait until these Deployments of kube-system have all their pods, and these DaemonSets theirs on every node."""

    def check() -> str:
        found = {item["metadata"]["name"]: item for item in api.items("/apis/apps/v1/namespaces/kube-system/deployments")}
        for name in names:
            if name not in found:
                return f"{name} is not there yet"
            if not deployment_done(found[name]):
                return f"{name} is not ready yet"
        found = {item["metadata"]["name"]: item for item in api.items("/apis/apps/v1/namespaces/kube-system/daemonsets")}
        for name in daemon_sets:
            if name not in found or not daemon_set_done(found[name]):
                return f"{name} is not ready yet"
        return ""

    def failed(missing: str) -> MoyaiError:
        reason = _pod_trouble(api)
        return Terminal(f"waited {ADDONS_TIMEOUT:.0f} s for add-ons: {missing}" + (f"; {reason}" if reason else ""))

    wait(check, clock=clock, abort=abort, progress=progress, timeout=ADDONS_TIMEOUT, failed=failed, interval=0.3)


def deployment_done(item: Json) -> bool:
    """Whether a Deployment's newest version runs with all its pods available."""
    wanted = item["spec"].get("replicas", 1)
    status = item.get("status", {})
    current = status.get("observedGeneration", 0) >= item["metadata"].get("generation", 0)
    return current and status.get("updatedReplicas", 0) >= wanted and status.get("availableReplicas", 0) >= wanted


def daemon_set_done(item: Json) -> bool:
    """Whether a DaemonSet has its pod ready on every node."""
    status = item.get("status", {})
    return status.get("numberReady", 0) >= max(1, status.get("desiredNumberScheduled", 1))


def _pod_trouble(api: KubeApi, namespace: str = "kube-system") -> str:
    """The first reason why a container of the namespace does not run."""
    try:
        pods = api.items(f"/api/v1/namespaces/{namespace}/pods")
    except MoyaiError:
        return ""
    for pod in pods:
        containers: list[Json] = pod.get("status", {}).get("containerStatuses") or []
        for container in containers:
            waiting: Json = container.get("state", {}).get("waiting") or {}
            if waiting and waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
                text = f"pod {pod['metadata']['name']}: {waiting['reason']} {waiting.get('message', '')}"
                return " ".join(text.split())[:300]
    return ""


def _late(what: str, timeout: float, compute: Machines, machines: dict[str, str]) -> Terminal:
    consoles = [f"console of {name}: {last_lines(compute, server_id)}" for server_id, name in machines.items()]
    return Terminal(f"waited {timeout:.0f} s for {what}; {'; '.join(consoles)}", hint="`moyai up` goes on from here")
