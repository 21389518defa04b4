"""What the lifecycle does inside a running cluster: tokens for late joiners, draining, forgetting nodes, Services' end."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any

from moyai.core.clock import Clock
from moyai.core.errors import Conflict, MoyaiError, NotFound, Retriable, Terminal
from moyai.core.progress import Step as Progress
from moyai.kube.quick import ATTACHMENTS, Json, KubeApi

#: Seconds in which pods must leave a node that is removed, disruption budgets included.
DRAIN_TIMEOUT = 180.0
#: Seconds for its disks, which no other node gets while Kubernetes thinks that this one may have them mounted: a kubelet tells
#: every 10 s which it has, and a machine that is gone is fenced by the cloud controller manager. Without either it takes 6
#: minutes until Kubernetes gives them to another node.
DISKS_TIMEOUT = 60.0
TOKEN_LIFE = timedelta(hours=1)


def add_token(api: KubeApi, token: str, clock: Clock) -> None:
    """Let ``token`` join nodes for an hour, as ``kubeadm token create`` does."""
    token_id, _, secret = token.partition(".")
    expires = (clock.now() + TOKEN_LIFE).strftime("%Y-%m-%dT%H:%M:%SZ")
    values = {
        "token-id": token_id,
        "token-secret": secret,
        "expiration": expires,
        "usage-bootstrap-authentication": "true",
        "usage-bootstrap-signing": "true",
        "auth-extra-groups": "system:bootstrappers:kubeadm:default-node-token",
    }
    try:
        api.create(
            "/api/v1/namespaces/kube-system/secrets",
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": f"bootstrap-token-{token_id}"},
                "type": "bootstrap.kubernetes.io/token",
                "data": {key: base64.b64encode(value.encode()).decode() for key, value in values.items()},
            },
        )
    except Conflict:
        return  # made by an earlier try


def node_names(api: KubeApi) -> frozenset[str]:
    return frozenset(node["metadata"]["name"] for node in api.items("/api/v1/nodes"))


def forget_node(api: KubeApi, name: str, *, clock: Clock) -> None:
    """Delete the Node of a machine that is gone, after its disks: without it nobody takes them off."""
    _wait_for_disks(api, name, clock=clock)
    api.delete(f"/api/v1/nodes/{name}")


def _wait_for_disks(api: KubeApi, name: str, *, clock: Clock, progress: Progress | None = None) -> None:
    end = clock.monotonic() + DISKS_TIMEOUT
    while count := sum(one["spec"].get("nodeName") == name for one in api.items(ATTACHMENTS)):
        if clock.monotonic() >= end:
            return
        if progress:
            progress.progress(f"{count} disks are still there")
        clock.sleep(0.5)


def drain(api: KubeApi, name: str, *, clock: Clock, progress: Progress, timeout: float = DRAIN_TIMEOUT) -> None:
    """Cordon a node, evict its pods, respecting disruption budgets, and let its disks go.

    Terminal when the pods have not left in time; disks that stay only take longer to come to another node.
    """
    try:
        api.patch(f"/api/v1/nodes/{name}", {"spec": {"unschedulable": True}})
    except NotFound:
        return
    end = clock.monotonic() + timeout
    while True:
        pods = [pod for pod in api.items(f"/api/v1/pods?fieldSelector=spec.nodeName%3D{name}") if _must_leave(pod)]
        if not pods:
            _wait_for_disks(api, name, clock=clock, progress=progress)
            return
        refused: dict[str, str] = {}
        for pod in pods:
            meta = pod["metadata"]
            if not meta.get("deletionTimestamp"):
                try:
                    _evict(api, meta["namespace"], meta["name"])
                except NotFound:
                    continue
                except Retriable as error:
                    refused[f"{meta['namespace']}/{meta['name']}"] = error.message
        left = ", ".join(sorted(f"{pod['metadata']['namespace']}/{pod['metadata']['name']}" for pod in pods)[:3])
        if clock.monotonic() >= end:
            why = next(iter(refused.values()), "they do not end")
            raise Terminal(
                f"node {name} could not be drained in {timeout:.0f} s: {len(pods)} pods stay ({left}): {why}",
                hint="the node is cordoned and everything else as it was; let the pods go and run `moyai up` again",
            )
        progress.progress(f"{len(pods)} pods are still there ({left})")
        clock.sleep(0.5 if not refused else 2.0)


def _evict(api: KubeApi, namespace: str, name: str) -> None:
    api.create(
        f"/api/v1/namespaces/{namespace}/pods/{name}/eviction",
        {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": namespace}},
    )


def _must_leave(pod: Json) -> bool:
    """Pods of DaemonSets come back at once, static ones belong to the machine, finished ones do no harm."""
    meta: Json = pod["metadata"]
    owners: list[Json] = meta.get("ownerReferences") or []
    if any(owner["kind"] in ("DaemonSet", "Node") for owner in owners):
        return False
    annotations: dict[str, Any] = meta.get("annotations") or {}
    return "kubernetes.io/config.mirror" not in annotations and pod["status"].get("phase") not in ("Succeeded", "Failed")


def delete_balanced_services(api: KubeApi, *, clock: Clock, progress: Progress, timeout: float = 10.0) -> list[str]:
    """Delete the Services of type LoadBalancer and wait for their end; returns those that are still there."""

    def balanced() -> list[tuple[str, str]]:
        services = api.items("/api/v1/services", timeout=3)
        return [
            (service["metadata"]["namespace"], service["metadata"]["name"])
            for service in services
            if service["spec"].get("type") == "LoadBalancer"
        ]

    end = clock.monotonic() + timeout
    left = balanced()
    for namespace, name in left:
        api.delete(f"/api/v1/namespaces/{namespace}/services/{name}")
    while left and clock.monotonic() < end:
        progress.progress(f"{len(left)} load balancers are still there")
        clock.sleep(0.3)
        try:
            left = balanced()
        except MoyaiError:
            break
    return [f"{namespace}/{name}" for namespace, name in left]
