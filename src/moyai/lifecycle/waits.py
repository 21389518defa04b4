"""Waiting for machines and for Kubernetes, with words that say what is waited for and why it will not come.

Always holds: a wait ends: with success, with its time-out, or as soon as another wait has found the reason (a server that
failed makes it pointless to wait for its API). A time-out names what is missing and shows the machine's last console lines.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable

from moyai.cloud.capabilities import Machines
from moyai.cloud.model import Power, Server
from moyai.core.clock import Clock
from moyai.core.errors import MoyaiError, Terminal
from moyai.core.ids import cluster_tag
from moyai.core.progress import Progress
from moyai.core.waiting import NotYet, until
from moyai.kube.objects import Node, parse_daemon_set, parse_deployment, parse_node, parse_pod
from moyai.kube.quick import KubeApi
from moyai.kube.resources import DAEMON_SETS, DEPLOYMENTS, KUBE_SYSTEM, NODES, PODS

#: Seconds that each wait may take; generous, because a busy host is slow (and kubelets have waits of their own).
MACHINE_TIMEOUT = 300.0
API_TIMEOUT = 300.0
NODES_TIMEOUT = 300.0
ADDONS_TIMEOUT = 300.0


def wait(
    check: Callable[[], str],
    *,
    clock: Clock,
    abort: threading.Event,
    progress: Progress,
    timeout: float,
    failed: Callable[[str], MoyaiError],
    interval: float = 0.5,
) -> None:
    """Until ``check`` returns "" (what it returns else is what is still missing). ``failed`` makes the error of a time-out.

    ``abort`` is set when another wait has found that this one is pointless; it then ends with ``Stopped``.
    """

    def look() -> NotYet | None:
        missing = check()
        return NotYet(missing) if missing else None

    until(
        look,
        clock=clock,
        timeout=timeout,
        pause=interval,
        on_wait=progress.progress,
        late=lambda seen: failed(seen.missing),
        abort=abort,
    )


def machines(
    compute: Machines, uid: str, *, names: Collection[str], clock: Clock, abort: threading.Event, progress: Progress
) -> dict[str, Server]:
    """Wait until these servers run; Terminal with the cloud's own reason when one is broken."""
    seen: dict[str, Server] = {}
    settled = frozenset[str]()

    def check() -> str:
        nonlocal settled
        before, settled = settled, compute.settled_servers(tag=cluster_tag(uid)) & frozenset(names)
        if settled == before and len(settled) < len(names):
            return still_missing()
        seen.clear()
        seen.update({server.name: server for server in compute.servers(tag=cluster_tag(uid)) if server.name in names})
        for server in seen.values():
            if server.power.broken:
                abort.set()
                raise broken(compute, server)
        return still_missing()

    def still_missing() -> str:
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
    # a cloud reports the failure an instant before its reason
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


def last_lines(compute: Machines, server_id: str) -> str:
    """The end of a machine's console, joined to one line; empty when there is none."""
    try:
        text = compute.console_log(server_id, lines=30)
    except MoyaiError:
        return ""
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    ours = [line for line in lines if "moyai:" in line]
    return " / ".join(line[-200:] for line in (*ours[-1:], *lines[-3:]))


def api_answers(
    api: KubeApi, compute: Machines, *, server_id: str, clock: Clock, abort: threading.Event, progress: Progress
) -> None:
    """Wait until the API server is ready, asked through its public address."""

    def failed(_: str) -> MoyaiError:
        return _late(
            f"the API at {api.server} to answer", compute, timeout=API_TIMEOUT, machines={server_id: "the control plane"}
        )

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
    *,
    servers: dict[str, str],
    clock: Clock,
    abort: threading.Event,
    progress: Progress,
    network: bool = True,
) -> None:
    """Wait until the nodes of these machines (name → server id) are Ready and known to the cloud controller manager.

    ``network`` false: until they are registered and known, because the user's own pod network makes them Ready.
    """

    missing_names: list[str] = []

    def check() -> str:
        nodes = tuple(map(parse_node, api.list(NODES)))
        ready, initialised = node_states(nodes)
        missing_names[:] = sorted(set(servers) - (ready if network else {node.name for node in nodes}))
        if missing_names:
            state = "Ready" if network else "registered"
            return f"{len(servers) - len(missing_names)} of {len(servers)} nodes are {state}"
        missing_names[:] = sorted(set(servers) - initialised)
        return f"the cloud controller manager has not initialised {', '.join(missing_names)} yet" if missing_names else ""

    def failed(missing: str) -> MoyaiError:
        named = {servers[name]: name for name in missing_names[:1]}
        # the kubelet's log has the reason; `up` recreates a machine that is gone
        why = [f"`moyai ssh {name} sudo journalctl -u kubelet` says why" for name in named.values()]
        hint = "; ".join((*why, "`moyai up` continues from here, and recreates a machine that you have deleted in the cloud"))
        return _late(f"nodes: {missing}", compute, timeout=NODES_TIMEOUT, machines=named, hint=hint)

    wait(check, clock=clock, abort=abort, progress=progress, timeout=NODES_TIMEOUT, failed=failed)


def node_states(nodes: Iterable[Node]) -> tuple[set[str], set[str]]:
    """(names of Ready nodes, names of nodes that the cloud controller manager has initialised)."""
    nodes = tuple(nodes)
    return {node.name for node in nodes if node.ready}, {node.name for node in nodes if not node.uninitialized}


def addons_run(
    api: KubeApi,
    names: Collection[str],
    *,
    daemon_sets: Collection[str] = ("kube-proxy",),
    nodes: Collection[str] = (),
    clock: Clock,
    abort: threading.Event,
    progress: Progress,
) -> None:
    """Wait until these Deployments of kube-system have all their pods, and these DaemonSets theirs on every node.

    ``nodes``: the cluster's. A DaemonSet's own count takes in a node some time after the node is Ready.
    """

    def check() -> str:
        deployments = map(parse_deployment, api.list(DEPLOYMENTS, namespace=KUBE_SYSTEM))
        found = {one.name: one.done for one in deployments}
        for name in names:
            if name not in found:
                return f"{name} is not there yet"
            if not found[name]:
                return f"{name} is not ready yet"
        listed = map(parse_daemon_set, api.list(DAEMON_SETS, namespace=KUBE_SYSTEM))
        counted = {one.name: one.wanted for one in listed if one.done}
        for name in daemon_sets:
            if name not in counted:
                return f"{name} is not ready yet"
        # asked last: there may be hundreds
        least = sum(node.name in nodes for node in map(parse_node, api.list(NODES))) if nodes and daemon_sets else 0
        return next((f"{name} is not ready yet" for name in daemon_sets if counted[name] < least), "")

    def failed(missing: str) -> MoyaiError:
        reason = _pod_trouble(api)
        return Terminal(f"waited {ADDONS_TIMEOUT:.0f} s for add-ons: {missing}" + (f"; {reason}" if reason else ""))

    wait(check, clock=clock, abort=abort, progress=progress, timeout=ADDONS_TIMEOUT, failed=failed, interval=0.3)


def _pod_trouble(api: KubeApi, namespace: str = KUBE_SYSTEM) -> str:
    """The first reason why a container of the namespace does not run."""
    try:
        pods = [parse_pod(one) for one in api.list(PODS, namespace=namespace)]
    except MoyaiError:
        return ""
    for pod in pods:
        for container in pod.containers:
            if container.held:
                return " ".join(f"pod {pod.name}: {container.waiting} {container.message}".split())[:300]
    return ""


def _late(
    what: str,
    compute: Machines,
    *,
    timeout: float,
    machines: dict[str, str],
    hint: str = "`moyai up` continues from here",
) -> Terminal:
    consoles = [f"console of {name}: {last_lines(compute, server_id)}" for server_id, name in machines.items()]
    return Terminal(f"waited {timeout:.0f} s for {what}; {'; '.join(consoles)}", hint=hint)
