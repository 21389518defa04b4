"""`moyai bgp`: which BGP sessions each node has, and which prefixes it knows by which ways, as its FRR says."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from moyai.agent import manifests as agent
from moyai.agent.bgp.seen import SeenBgp, SeenPath, SeenSession
from moyai.core.errors import MoyaiError, UsageError, one_line
from moyai.core.progress import Reporter
from moyai.kube.objects.meta import part, text, text_map
from moyai.kube.quick import KubeApi
from moyai.kube.resources import PODS
from moyai.lifecycle.clusters import require_api
from moyai.lifecycle.record import Record
from moyai.lifecycle.ssh import machine_beside, ssh_command
from moyai.linux.kernel_routes import BgpKernelRoute
from moyai.linux.process import ProcessError, run

_CALLS = 16
_SECONDS = 20.0


@dataclass(frozen=True)
class BgpReport:
    """``nodes``: by name. ``unread``: node → why its FRR could not be asked."""

    cluster: str
    nodes: Mapping[str, SeenBgp]
    unread: Mapping[str, str]

    @property
    def down(self) -> list[str]:
        """Sessions that are not up, a sentence each."""
        return [
            f"{node} has no session with {one.about or one.address} ({one.address}): {one.state}"
            for node, seen in self.nodes.items()
            for one in seen.sessions
            if one.state != "Established"
        ]

    def data(self) -> dict[str, Any]:
        return asdict(self)


def read_bgp_of(record: Record, *, reporter: Reporter, node: str = "") -> BgpReport:
    """``node`` empty: of all. Raises UsageError for a cluster or a node without BGP, Terminal for a cluster without an API,
    Retriable where it does not answer."""
    spec = record.cluster.spec
    if router := machine_beside(record, node) if node else None:
        if router.bgp is None:
            raise UsageError(f"--on {node}: this machine has no BGP", hint="spec.machines[].bgp")
        with reporter.step(f"read what FRR of {router.name} says"):
            return _of_router(record, router.name)
    api = require_api(record)
    if spec.network.mode != "bgp" and not spec.services.announce.ranges:
        raise UsageError(
            f"cluster {record.name} has no BGP",
            hint="spec.network.mode: bgp is for pods, spec.services.announce.ranges with a BGPPeer for Services",
        )
    with reporter.step("read what the nodes' FRR says"):
        return bgp_report(api, record.name, node=node)


def bgp_report(api: KubeApi, cluster: str, *, node: str = "") -> BgpReport:
    pods = {
        text(part(pod, "spec"), "nodeName"): text(part(pod, "metadata"), "name")
        for pod in api.list(PODS, namespace=agent.NAMESPACE)
        if text_map(pod, "metadata", "labels").get("app.kubernetes.io/name") == agent.NAME
    }
    if node and node not in pods:
        raise UsageError(f"--on {node}: no agent runs on such a node", hint=f"nodes: {', '.join(sorted(filter(None, pods)))}")
    found: dict[str, SeenBgp] = {}
    unread: dict[str, str] = {}
    with ThreadPoolExecutor(_CALLS, thread_name_prefix="bgp") as pool:
        asked = {one: pool.submit(_ask, api, pods[one]) for one in sorted(pods) if one and node in ("", one)}
        for one, answer in asked.items():
            try:
                found[one] = answer.result()
            except (MoyaiError, ValueError, TypeError, KeyError) as error:
                unread[one] = str(error)
    return BgpReport(cluster, found, unread)


def _of_router(record: Record, name: str) -> BgpReport:
    """Of a router beside the cluster: its FRR runs in a container."""
    identity = f"seen-{os.getpid()}"
    words = ("sudo", "ctr", "-n", "k8s.io", "tasks", "exec", "--exec-id", identity, "moyai-router", "moyai", "agent-bgp")
    try:
        said = run(ssh_command(record, name, words=words), timeout=_SECONDS).stdout
        return BgpReport(record.name, {name: _seen(json.loads(said))}, {})
    except (ProcessError, ValueError, TypeError, KeyError) as error:
        return BgpReport(record.name, {}, {name: one_line(error)})


def _ask(api: KubeApi, pod: str) -> SeenBgp:
    said = json.loads(api.execute(agent.NAMESPACE, pod, command=["moyai", "agent-bgp"], timeout=_SECONDS))
    return _seen(said)


def _seen(said: dict[str, Any]) -> SeenBgp:
    return SeenBgp(
        tuple(SeenSession(**one) for one in said["sessions"]),
        tuple(SeenPath(**one) for one in said["paths"]),
        # an agent of before does not say it
        tuple(BgpKernelRoute(one["prefix"], tuple(one["gateways"])) for one in said.get("kernel", ())),
    )
