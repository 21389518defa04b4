"""`moyai policy audit`: what policies on trial would have dropped within the last hour, by what each node's kernel noted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from moyai.agent import manifests as agent
from moyai.agent.policy.flows import NotedFlow
from moyai.core.errors import MoyaiError
from moyai.core.progress import Reporter
from moyai.diagnose.network.read_network import cluster_policies
from moyai.kube.objects import parse_policy, parse_policy_namespace, parse_policy_pod
from moyai.kube.objects.meta import part, text, text_map
from moyai.kube.quick import KubeApi
from moyai.kube.resources import NAMESPACES, NETWORK_POLICIES, PODS, Json
from moyai.lifecycle.clusters import require_api
from moyai.lifecycle.record import Record
from moyai.plan.network_policy.evaluation import Policies
from moyai.plan.network_policy.pod_index import PodIndex
from moyai.plan.network_policy.trial import would_drop

_CALLS = 16
_SECONDS = 20.0


@dataclass(frozen=True)
class AuditEntry:
    """``policies``: keys, or the name of one of the cluster's tiers. ``direction``: ingress or egress, of ``pod``. ``source``,
    ``destination``: a pod's key or an address. ``seconds``: since the last packet. ``node``: whose kernel noted it."""

    policies: tuple[str, ...]
    direction: str
    pod: str
    source: str
    destination: str
    protocol: str
    port: int
    seconds: int
    node: str


@dataclass(frozen=True)
class AuditReport:
    """``trials``: keys of the policies on trial. ``unread``: node → why its kernel could not be asked."""

    cluster: str
    trials: tuple[str, ...]
    entries: tuple[AuditEntry, ...]
    unread: Mapping[str, str]

    def data(self) -> dict[str, Any]:
        return asdict(self)


def audit(record: Record, *, reporter: Reporter) -> AuditReport:
    """Raises Terminal for a cluster without an API, Retriable where it does not answer."""
    api = require_api(record)
    with reporter.step("look at the cluster"), ThreadPoolExecutor(3, thread_name_prefix="audit") as pool:
        listed = [pool.submit(api.list, one) for one in (PODS, NAMESPACES, NETWORK_POLICIES)]
        tiers = pool.submit(cluster_policies, api)
        found, namespaces, policies = (one.result() for one in listed)
    index = PodIndex()
    for one in map(parse_policy_namespace, namespaces):
        index.namespaces[one.name] = one.labels
    for pod in map(parse_policy_pod, found):
        index.change(pod.key, pod)
    with reporter.step("read what the nodes have noted"):
        noted, unread = _noted(api, found)
    known = Policies([parse_policy(one) for one in policies], tiers.result())
    trials = [one.key for one in known.namespaced if one.trial] + [one.name for one in known.cluster if one.trial]
    return AuditReport(
        record.name,
        trials=tuple(sorted(trials)),
        entries=entries(known, index, noted=noted),
        unread=unread,
    )


def entries(known: Policies, pods: PodIndex, *, noted: Mapping[str, Iterable[NotedFlow]]) -> tuple[AuditEntry, ...]:
    """``noted``: by node. What the policies of now would no longer drop is left out. The latest first."""

    def named(address: str) -> str:
        pod = pods.owner(address)
        return pod.key if pod else address

    made = [
        AuditEntry(
            one.policies,
            "ingress" if one.incoming else "egress",
            one.pod,
            named(flow.source),
            named(flow.destination),
            flow.protocol,
            flow.port,
            flow.seconds,
            node,
        )
        for node, flows in noted.items()
        for flow in flows
        for one in would_drop(
            known, pods, source=flow.source, destination=flow.destination, port=(flow.protocol, flow.port), node=node
        )
    ]
    return tuple(sorted(made, key=lambda one: (one.seconds, one.policies, one.source, one.destination)))


def _noted(api: KubeApi, pods: Iterable[Json]) -> tuple[dict[str, list[NotedFlow]], dict[str, str]]:
    """Asks each node's agent's pod for what its kernel has."""
    places = {
        text(part(pod, "spec"), "nodeName"): text(part(pod, "metadata"), "name")
        for pod in pods
        if part(pod, "metadata").get("namespace") == agent.NAMESPACE
        and text_map(pod, "metadata", "labels").get("app.kubernetes.io/name") == agent.NAME
    }
    found: dict[str, list[NotedFlow]] = {}
    unread: dict[str, str] = {}
    with ThreadPoolExecutor(_CALLS, thread_name_prefix="audit") as pool:
        asked = {node: pool.submit(_ask, api, name) for node, name in places.items() if node}
        for node, answer in asked.items():
            try:
                found[node] = answer.result()
            except (MoyaiError, ValueError, TypeError) as error:
                unread[node] = str(error)
    return found, unread


def _ask(api: KubeApi, pod: str) -> list[NotedFlow]:
    printed = api.execute(agent.NAMESPACE, pod, command=["moyai", "agent-flows"], timeout=_SECONDS)
    return [NotedFlow(**one) for one in json.loads(printed)]
