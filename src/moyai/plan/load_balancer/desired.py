"""The whole tree of load balancer, listeners, pools, members and monitors that a Service asks for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from moyai.cloud.load_balancers import (
    CheckType,
    Listener,
    LoadBalancer,
    Member,
    Monitor,
    Pool,
    SessionPersistence,
    TrafficProtocol,
)
from moyai.core.errors import UsageError
from moyai.core.ids import ClusterIdentity, cluster_tag
from moyai.kube.objects import Node, Service, ServicePort
from moyai.plan.load_balancer.eligibility import eligible_nodes, member_address
from moyai.plan.load_balancer.names import load_balancer_name, service_uid_tag
from moyai.plan.load_balancer.service_settings import LoadBalancerSettings, MonitorSettings

#: Protocol of a Service's port → what a listener takes, and by what its members are checked.
_PROTOCOLS = {
    "TCP": (TrafficProtocol.TCP, CheckType.TCP),
    "UDP": (TrafficProtocol.UDP, CheckType.UDP),
    "SCTP": (TrafficProtocol.SCTP, CheckType.SCTP),
}


def desired_load_balancer(
    service: Service, nodes: Iterable[Node], *, settings: LoadBalancerSettings, cluster: ClusterIdentity
) -> LoadBalancer:
    """The whole tree as it should be. Raises UsageError for what no load balancer can do."""
    name = load_balancer_name(cluster, service)
    tags = (name, service_uid_tag(service))
    chosen = eligible_nodes(nodes, settings.node_selector)
    tree = _WantedTree(name=name, tags=tags, service=service, settings=settings, nodes=chosen)
    return LoadBalancer(
        name=name,
        description=f"Kubernetes external service {service.key} from cluster {cluster.name}"[:255],
        tags=(cluster_tag(cluster.uid), *tags),
        vip_subnet_id=settings.vip_subnet_id,
        vip_network_id=settings.vip_network_id,
        vip_port_id=settings.vip_port_id,
        vip_address=settings.vip_address,
        provider=settings.provider,
        zone=settings.zone,
        flavor_id=settings.flavor_id,
        listeners=tuple(tree.listener(port) for port in service.ports),
    )


@dataclass(frozen=True)
class _WantedTree:
    name: str
    tags: tuple[str, ...]
    service: Service
    settings: LoadBalancerSettings
    nodes: Sequence[Node]

    def listener(self, port: ServicePort) -> Listener:
        if port.protocol not in _PROTOCOLS:
            raise UsageError(f"port {port.port} has protocol {port.protocol}", hint="a load balancer takes TCP, UDP and SCTP")
        if not port.node_port:
            raise UsageError(
                f"port {port.port} has no NodePort, which the load balancer sends to",
                hint="leave spec.allocateLoadBalancerNodePorts at true",
            )
        settings = self.settings
        protocol, _ = _PROTOCOLS[port.protocol]
        tcp = protocol is TrafficProtocol.TCP
        http = tcp and settings.x_forwarded_for
        return Listener(
            name=self._part_name("listener", port),
            protocol=TrafficProtocol.HTTP if http else protocol,
            port=port.port,
            pool=self._pool(port),
            allowed_cidrs=settings.source_ranges,
            connection_limit=settings.connection_limit,
            # UDP has no connections that could time out
            timeout_client_data_ms=settings.timeout_client_data_ms if tcp else None,
            timeout_member_connect_ms=settings.timeout_member_connect_ms if tcp else None,
            timeout_member_data_ms=settings.timeout_member_data_ms if tcp else None,
            timeout_tcp_inspect_ms=settings.timeout_tcp_inspect_ms if tcp else None,
            insert_headers={"X-Forwarded-For": "true"} if http else {},
            tags=self.tags,
        )

    def _part_name(self, part: str, port: ServicePort) -> str:
        return f"{part}_{port.protocol.lower()}_{port.port}_{self.name}"[:255]

    def _pool(self, port: ServicePort) -> Pool:
        service, settings = self.service, self.settings
        protocol, _ = _PROTOCOLS[port.protocol]
        if protocol is TrafficProtocol.TCP and settings.x_forwarded_for:
            protocol = TrafficProtocol.HTTP
        elif protocol is TrafficProtocol.TCP and settings.proxy_protocol:
            protocol = settings.proxy_protocol
        monitor_port = service.health_check_node_port if service.local_traffic else 0
        return Pool(
            name=self._part_name("pool", port),
            protocol=protocol,
            algorithm=settings.algorithm,
            members=tuple(
                Member(
                    address=member_address(node),
                    port=port.node_port,
                    subnet_id=settings.member_subnet_id,
                    name=node.name[:255],
                    monitor_port=monitor_port or None,
                )
                for node in self.nodes
            ),
            monitor=self._monitor(port),
            persistence=SessionPersistence.SOURCE_ADDRESS if service.client_affinity else SessionPersistence.NONE,
            tags=self.tags,
        )

    def _monitor(self, port: ServicePort) -> Monitor | None:
        # kube-proxy answers 200 on this port only on nodes that have a pod of the Service
        by_kube_proxy = self.service.local_traffic and self.service.health_check_node_port
        times = self.settings.monitor or (MonitorSettings() if by_kube_proxy else None)
        if times is None:
            return None
        _, check = _PROTOCOLS[port.protocol]
        plain = Monitor(
            name=self._part_name("monitor", port),
            type=check,
            delay=times.delay,
            timeout=times.timeout,
            max_retries=times.max_retries,
            max_retries_down=times.max_retries_down,
        )
        if by_kube_proxy:
            return replace(plain, type=CheckType.HTTP, url_path="/healthz", http_method="GET", expected_codes="200")
        return plain
