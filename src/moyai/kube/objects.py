"""Facts about Kubernetes objects: what moyai's controllers know of a Node and a Service, frozen and small.

``parse_*`` take the API's JSON. What no controller looks at is not kept: a cache of facts costs a tenth of one of objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

Json = dict[str, Any]


def _strings() -> dict[str, str]:
    return {}


@dataclass(frozen=True)
class Reference:
    """Which object an event is about."""

    kind: str
    name: str
    uid: str
    namespace: str = ""


@dataclass(frozen=True)
class Taint:
    key: str
    effect: str
    value: str = ""


@dataclass(frozen=True)
class NodeAddress:
    """``type``: InternalIP, ExternalIP, Hostname …"""

    type: str
    address: str


@dataclass(frozen=True)
class Node:
    """``ready`` None: not said yet. ``network_unavailable``: the condition's status where there is one."""

    name: str
    uid: str
    version: str = ""
    provider_id: str = ""
    labels: Mapping[str, str] = field(default_factory=_strings)
    annotations: Mapping[str, str] = field(default_factory=_strings)
    taints: tuple[Taint, ...] = ()
    addresses: tuple[NodeAddress, ...] = ()
    pod_cidrs: tuple[str, ...] = ()
    ready: bool | None = None
    network_unavailable: bool | None = None
    deleting: bool = False

    @property
    def internal_ips(self) -> tuple[str, ...]:
        return tuple(one.address for one in self.addresses if one.type == "InternalIP")

    @property
    def reference(self) -> Reference:
        return Reference("Node", self.name, self.uid)


@dataclass(frozen=True)
class Lease:
    """``renewed`` as its holder wrote it: two of them may be compared for equality only. ``seconds``: how long it lasts."""

    name: str
    renewed: str
    seconds: int


@dataclass(frozen=True)
class Pod:
    """``static``: the copy of a pod that its kubelet runs from a file."""

    namespace: str
    name: str
    uid: str
    node: str = ""
    phase: str = ""
    deleting: bool = False
    static: bool = False


@dataclass(frozen=True)
class ServicePort:
    """``node_port`` 0: none was given."""

    name: str
    protocol: str
    port: int
    node_port: int


@dataclass(frozen=True)
class Ingress:
    """Where a load balancer answers. ``ip_mode``: VIP or Proxy, None where not said."""

    ip: str = ""
    hostname: str = ""
    ip_mode: str | None = None


@dataclass(frozen=True)
class Service:
    namespace: str
    name: str
    uid: str
    version: str = ""
    type: str = "ClusterIP"
    ports: tuple[ServicePort, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=_strings)
    finalizers: tuple[str, ...] = ()
    load_balancer_class: str = ""
    load_balancer_ip: str = ""
    source_ranges: tuple[str, ...] = ()
    local_traffic: bool = False
    health_check_node_port: int = 0
    client_affinity: bool = False
    ingress: tuple[Ingress, ...] = ()
    deleting: bool = False

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def reference(self) -> Reference:
        return Reference("Service", self.name, self.uid, self.namespace)


def object_key(found: Json) -> str:
    """``namespace/name``, or ``name`` for what has no namespace."""
    meta = _dict(found.get("metadata"))
    namespace = str(meta.get("namespace") or "")
    return f"{namespace}/{meta['name']}" if namespace else str(meta["name"])


def parse_node(found: Json) -> Node:
    meta, spec, status = (_dict(found.get(part)) for part in ("metadata", "spec", "status"))
    conditions = {str(one.get("type")): str(one.get("status")) for one in _list(status.get("conditions"))}
    cidrs: tuple[str, ...] = tuple(str(one) for one in spec.get("podCIDRs") or ())
    if not cidrs and spec.get("podCIDR"):
        cidrs = (str(spec["podCIDR"]),)
    return Node(
        name=str(meta["name"]),
        uid=str(meta.get("uid") or ""),
        version=str(meta.get("resourceVersion") or ""),
        provider_id=str(spec.get("providerID") or ""),
        labels=_text_map(meta.get("labels")),
        annotations=_text_map(meta.get("annotations")),
        taints=tuple(
            Taint(str(one["key"]), str(one.get("effect") or ""), str(one.get("value") or ""))
            for one in _list(spec.get("taints"))
        ),
        addresses=tuple(NodeAddress(str(one["type"]), str(one["address"])) for one in _list(status.get("addresses"))),
        pod_cidrs=cidrs,
        ready=_truth(conditions.get("Ready")),
        network_unavailable=_truth(conditions.get("NetworkUnavailable")),
        deleting=bool(meta.get("deletionTimestamp")),
    )


def parse_lease(found: Json) -> Lease:
    spec = _dict(found.get("spec"))
    return Lease(
        name=str(_dict(found.get("metadata"))["name"]),
        renewed=str(spec.get("renewTime") or ""),
        seconds=int(spec.get("leaseDurationSeconds") or 0),
    )


def parse_pod(found: Json) -> Pod:
    meta, spec, status = (_dict(found.get(part)) for part in ("metadata", "spec", "status"))
    return Pod(
        namespace=str(meta.get("namespace") or ""),
        name=str(meta["name"]),
        uid=str(meta.get("uid") or ""),
        node=str(spec.get("nodeName") or ""),
        phase=str(status.get("phase") or ""),
        deleting=bool(meta.get("deletionTimestamp")),
        static="kubernetes.io/config.mirror" in _text_map(meta.get("annotations")),
    )


def parse_service(found: Json) -> Service:
    meta, spec, status = (_dict(found.get(part)) for part in ("metadata", "spec", "status"))
    ingress = _list(_dict(status.get("loadBalancer")).get("ingress"))
    return Service(
        namespace=str(meta["namespace"]),
        name=str(meta["name"]),
        uid=str(meta.get("uid") or ""),
        version=str(meta.get("resourceVersion") or ""),
        type=str(spec.get("type") or "ClusterIP"),
        ports=tuple(
            ServicePort(
                name=str(one.get("name") or ""),
                protocol=str(one.get("protocol") or "TCP"),
                port=int(one["port"]),
                node_port=int(one.get("nodePort") or 0),
            )
            for one in _list(spec.get("ports"))
        ),
        annotations=_text_map(meta.get("annotations")),
        finalizers=tuple(str(one) for one in meta.get("finalizers") or ()),
        load_balancer_class=str(spec.get("loadBalancerClass") or ""),
        load_balancer_ip=str(spec.get("loadBalancerIP") or ""),
        source_ranges=tuple(str(one) for one in spec.get("loadBalancerSourceRanges") or ()),
        local_traffic=spec.get("externalTrafficPolicy") == "Local",
        health_check_node_port=int(spec.get("healthCheckNodePort") or 0),
        client_affinity=spec.get("sessionAffinity") == "ClientIP",
        ingress=tuple(Ingress(str(one.get("ip") or ""), str(one.get("hostname") or ""), one.get("ipMode")) for one in ingress),
        deleting=bool(meta.get("deletionTimestamp")),
    )


def _truth(status: str | None) -> bool | None:
    """``Unknown`` counts as no: nobody has heard of the node for a while."""
    return None if status is None else status == "True"


def _dict(value: object) -> Json:
    return cast("Json", value) if isinstance(value, dict) else {}


def _list(value: object) -> Iterable[Json]:
    return cast("list[Json]", value) if isinstance(value, list) else []


def _text_map(value: object) -> dict[str, str]:
    return {str(key): str(text) for key, text in _dict(value).items()}
