"""How a cluster is: its machines as the cloud lists them, its nodes, add-ons and load balancers as Kubernetes does.

Read side by side, and told apart: what cannot be asked is said to be unknown, never guessed.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from moyai.cloud.capabilities import Cloud
from moyai.cloud.model import Power, Server
from moyai.core.errors import MoyaiError
from moyai.core.ids import POOL_KEY, cluster_tag
from moyai.kube.quick import Json, KubeApi, condition
from moyai.lifecycle import apply
from moyai.lifecycle.clusters import open_api
from moyai.lifecycle.record import Record
from moyai.plan.rules import API_PORT
from moyai.spec.load import validate


@dataclass(frozen=True)
class NodeStatus:
    """``machine``: the server's status in the cloud, or ``gone``. ``node``: Ready, NotReady, absent or unknown."""

    name: str
    role: str
    pool: str
    zone: str
    address: str
    machine: str
    node: str
    version: str = ""
    fault: str = ""


@dataclass(frozen=True)
class ClusterStatus:
    """``api``: ready or why not. ``addons``: name → ready pods of wanted ones. ``problems``: empty when all is well."""

    name: str
    uid: str
    cloud: str
    kubernetes: str
    api: str
    api_url: str
    nodes: tuple[NodeStatus, ...] = ()
    addons: tuple[tuple[str, str], ...] = ()
    services: tuple[dict[str, Any], ...] = ()
    problems: tuple[str, ...] = field(default=())


def read(record: Record, cloud: Cloud) -> ClusterStatus:
    """The state of a recorded cluster. Raises only for a record that cannot be read."""
    spec = validate(record.spec, source="record").spec
    api = open_api(record)
    with ThreadPoolExecutor(2, thread_name_prefix="status") as pool:
        listing = pool.submit(_servers, cloud, record.uid)
        servers, cloud_problem = listing.result()
        answer, kube, api_problem = pool.submit(_kube, api).result()
    nodes = _nodes(record, spec.network.pod_cidr, servers, kube)
    problems = [problem for problem in (cloud_problem, api_problem) if problem]
    if servers is not None:
        running = {server.name for server in servers if server.power is Power.RUNNING}
        idle = [n for n in nodes if n.name not in running]
        problems += [f"machine {n.name} is {n.machine}: {n.fault or 'no reason given'}" for n in idle]
    problems += [f"node {n.name} is {n.node}" for n in nodes if n.node not in ("Ready", "unknown")]
    addons = tuple(_addons(kube))
    problems += [f"add-on {name} has {count} pods ready" for name, count in addons if len(set(count.split("/"))) > 1]
    return ClusterStatus(
        name=record.name,
        uid=record.uid,
        cloud=spec.cloud,
        kubernetes=spec.kubernetes_version,
        api=answer,
        api_url=f"https://{record.api_address}:{API_PORT}" if record.api_address else "",
        nodes=tuple(nodes),
        addons=addons,
        services=tuple(kube["balanced"]) if kube else (),
        problems=tuple(problems),
    )


def _servers(cloud: Cloud, uid: str) -> tuple[list[Server] | None, str]:
    try:
        return cloud.machines.servers(tag=cluster_tag(uid)), ""
    except MoyaiError as error:
        return None, f"the cloud cannot be asked: {error}"


def _kube(api: KubeApi | None) -> tuple[str, dict[str, Any] | None, str]:
    if api is None:
        return "not there yet", None, "the cluster was never finished: `moyai up` goes on"
    try:
        facts: dict[str, Any] = {
            "nodes": api.items("/api/v1/nodes", timeout=5),
            "deployments": api.items("/apis/apps/v1/namespaces/kube-system/deployments", timeout=5),
            "daemonsets": api.items("/apis/apps/v1/namespaces/kube-system/daemonsets", timeout=5),
            "balanced": apply.balanced(api),
        }
    except MoyaiError as error:
        return "no answer", None, str(error)
    return "ready", facts, ""


def _nodes(record: Record, _: Any, servers: list[Server] | None, kube: dict[str, Any] | None) -> list[NodeStatus]:
    cluster = validate(record.spec, source="record")
    machines = {server.name: server for server in servers or []}
    objects: dict[str, Json] = {node["metadata"]["name"]: node for node in kube["nodes"]} if kube else {}
    found: list[NodeStatus] = []
    for name in sorted(
        {*record.recorded().seats, *machines}, key=lambda name: ("-control-plane-" not in name, len(name), name)
    ):
        machine = machines.get(name)
        node = objects.get(name)
        state = "unknown" if kube is None else "absent" if node is None else "Ready" if condition(node, "Ready") else "NotReady"
        pool = (machine.metadata.get(POOL_KEY) if machine else "") or name.removeprefix(f"{cluster.name}-").rpartition("-")[0]
        seat = record.recorded().seats.get(name)
        fixed = next((address.address for address in machine.addresses if address.kind == "fixed"), "") if machine else ""
        found.append(
            NodeStatus(
                name=name,
                role="control-plane" if pool == "control-plane" else "worker",
                pool=pool,
                zone=machine.zone if machine else seat.zone if seat else "",
                address=fixed,
                machine=machine.status if machine else "?" if servers is None else "gone",
                node=state,
                version=node["status"]["nodeInfo"]["kubeletVersion"] if node else "",
                fault=machine.fault if machine else "",
            )
        )
    return found


def _addons(kube: dict[str, Any] | None) -> list[tuple[str, str]]:
    if kube is None:
        return []
    rows: list[tuple[str, str]] = []
    for item in kube["deployments"]:
        wanted = item["spec"].get("replicas", 1)
        ready = item.get("status", {}).get("readyReplicas", 0)
        rows.append((item["metadata"]["name"], f"{ready}/{wanted}"))
    for item in kube["daemonsets"]:
        status = item.get("status", {})
        rows.append((item["metadata"]["name"], f"{status.get('numberReady', 0)}/{status.get('desiredNumberScheduled', 0)}"))
    return sorted(rows)
