"""Services, and where their load balancers answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from moyai.kube.objects.meta import NamespacedName, Reference, deleting, part, rows, text, text_map, texts
from moyai.kube.resources import Json


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
    annotations: Mapping[str, str] = field(default_factory=dict[str, str])
    finalizers: tuple[str, ...] = ()
    load_balancer_class: str = ""
    load_balancer_ip: str = ""
    source_ranges: tuple[str, ...] = ()
    local_traffic: bool = False
    health_check_node_port: int = 0
    client_affinity: bool = False
    ingress: tuple[Ingress, ...] = ()
    deleting: bool = False
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    selector: Mapping[str, str] = field(default_factory=dict[str, str])
    cluster_ips: tuple[str, ...] = ()
    external_ips: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def full_name(self) -> NamespacedName:
        return NamespacedName(self.namespace, self.name)

    @property
    def reference(self) -> Reference:
        return Reference("Service", self.name, self.uid, self.namespace)

    @property
    def balanced(self) -> bool:
        """Whether it asks for a load balancer."""
        return self.type == "LoadBalancer"

    @property
    def address(self) -> str:
        """Where its load balancer answers, empty until that is known."""
        return next((one.ip or one.hostname for one in self.ingress), "")

    @property
    def tcp_ports(self) -> tuple[int, ...]:
        return tuple(one.port for one in self.ports if one.protocol == "TCP")


def parse_service(found: Json) -> Service:
    meta, spec, status = (part(found, key) for key in ("metadata", "spec", "status"))
    return Service(
        namespace=str(meta["namespace"]),
        name=str(meta["name"]),
        uid=text(meta, "uid"),
        version=text(meta, "resourceVersion"),
        type=text(spec, "type") or "ClusterIP",
        ports=tuple(
            ServicePort(
                name=text(one, "name"),
                protocol=text(one, "protocol") or "TCP",
                port=int(one["port"]),
                node_port=int(one.get("nodePort") or 0),
            )
            for one in rows(spec, "ports")
        ),
        annotations=text_map(meta, "annotations"),
        finalizers=texts(meta, "finalizers"),
        load_balancer_class=text(spec, "loadBalancerClass"),
        load_balancer_ip=text(spec, "loadBalancerIP"),
        source_ranges=texts(spec, "loadBalancerSourceRanges"),
        local_traffic=spec.get("externalTrafficPolicy") == "Local",
        health_check_node_port=int(spec.get("healthCheckNodePort") or 0),
        client_affinity=spec.get("sessionAffinity") == "ClientIP",
        ingress=tuple(
            Ingress(text(one, "ip"), text(one, "hostname"), one.get("ipMode"))
            for one in rows(part(status, "loadBalancer"), "ingress")
        ),
        deleting=deleting(found),
        labels=text_map(meta, "labels"),
        selector=text_map(spec, "selector"),
        cluster_ips=texts(spec, "clusterIPs") or tuple(filter(None, (text(spec, "clusterIP"),))),
        external_ips=texts(spec, "externalIPs"),
    )
