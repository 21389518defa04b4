"""What a Service of type LoadBalancer should be in the cloud, and the smallest changes that make it so. Pure.

What always holds: listeners, pools and members are told by what they do (transport and port, address and port), never by name
or order, so that a Service's ports may be reordered; only what a Service owns is changed or removed; members change in one
batch per pool; what is as wanted yields no step.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from ipaddress import ip_address
from typing import Any

from moyai.cloud.load_balancers import Listener, LoadBalancer, Member, Monitor, Pool
from moyai.core.errors import UsageError
from moyai.core.ids import cluster_tag
from moyai.kube.objects import Node, Service, ServicePort

#: Nodes with this label get no traffic from load balancers; kubeadm puts it on control planes.
EXCLUDE_LABEL = "node.kubernetes.io/exclude-from-external-load-balancers"
#: The autoscaler puts this taint on a node that it is about to remove.
_DOOMED_TAINT = "ToBeDeletedByClusterAutoscaler"
SERVICE_TAG_PREFIX = "kube_service_"


@dataclass(frozen=True)
class ClusterIdentity:
    """``uid`` marks what belongs to the cluster; ``name`` is in the names that users see in their cloud."""

    name: str
    uid: str


@dataclass(frozen=True)
class MonitorSettings:
    """Seconds and counts."""

    delay: int = 5
    timeout: int = 3
    max_retries: int = 1
    max_retries_down: int = 3


@dataclass(frozen=True)
class LoadBalancerSettings:
    """What configuration and annotations say about one Service's load balancer, checked.

    Times in milliseconds. ``floating_subnet``: a pattern for the name of the subnet. ``floating_address``: the address that the
    user asks for. ``proxy_protocol``: empty, PROXY or PROXYV2. ``load_balancer_id``: an existing load balancer to use.
    """

    internal: bool = False
    vip_subnet_id: str = ""
    vip_network_id: str = ""
    vip_port_id: str = ""
    vip_address: str = ""
    member_subnet_id: str = ""
    floating_network_id: str = ""
    floating_subnet_id: str = ""
    floating_subnet: str = ""
    floating_address: str = ""
    keep_floating_ip: bool = False
    provider: str = ""
    algorithm: str = "ROUND_ROBIN"
    flavor_id: str = ""
    zone: str = ""
    connection_limit: int = -1
    timeout_client_data_ms: int = 50_000
    timeout_member_connect_ms: int = 5_000
    timeout_member_data_ms: int = 50_000
    timeout_tcp_inspect_ms: int = 0
    proxy_protocol: str = ""
    x_forwarded_for: bool = False
    monitor: MonitorSettings | None = MonitorSettings()
    load_balancer_id: str = ""
    hostname: str = ""
    source_ranges: tuple[str, ...] = ()
    node_selector: Mapping[str, str | None] = field(default_factory=dict[str, "str | None"])


def load_balancer_name(cluster: ClusterIdentity, service: Service) -> str:
    """As openstack-cloud-controller-manager calls it."""
    return f"{SERVICE_TAG_PREFIX}{cluster.name}_{service.namespace}_{service.name}"[:255]


def floating_ip_description(cluster: ClusterIdentity, service_key: str) -> str:
    """With the UID first, so that it is never cut off: the description alone tells whose it is."""
    return f"{cluster_tag(cluster.uid)} floating IP of service {service_key} of cluster {cluster.name}"[:255]


def eligible_nodes(nodes: Iterable[Node], selector: Mapping[str, str | None] | None = None) -> list[Node]:
    """The nodes that take traffic, by name. Whether one is Ready is left to the health monitor, which knows sooner."""

    def fits(node: Node) -> bool:
        if not node.provider_id or not node.internal_ips or node.deleting or EXCLUDE_LABEL in node.labels:
            return False
        if any(taint.key == _DOOMED_TAINT for taint in node.taints):
            return False
        return all(key in node.labels and value in (None, node.labels[key]) for key, value in (selector or {}).items())

    return sorted((node for node in nodes if fits(node)), key=lambda node: node.name)


def desired_load_balancer(
    service: Service, nodes: Iterable[Node], settings: LoadBalancerSettings, cluster: ClusterIdentity
) -> LoadBalancer:
    """The whole tree as it should be. Raises UsageError for what no load balancer can do."""
    name = load_balancer_name(cluster, service)
    members = eligible_nodes(nodes, settings.node_selector)
    return LoadBalancer(
        name=name,
        description=f"Kubernetes external service {service.key} from cluster {cluster.name}"[:255],
        tags=(cluster_tag(cluster.uid), name),
        vip_subnet_id=settings.vip_subnet_id,
        vip_network_id=settings.vip_network_id,
        vip_port_id=settings.vip_port_id,
        vip_address=settings.vip_address,
        provider=settings.provider,
        zone=settings.zone,
        flavor_id=settings.flavor_id,
        listeners=tuple(_listener(service, port, members, settings, name) for port in service.ports),
    )


def _listener(
    service: Service, port: ServicePort, nodes: Sequence[Node], settings: LoadBalancerSettings, name: str
) -> Listener:
    if port.protocol not in ("TCP", "UDP", "SCTP"):
        raise UsageError(f"port {port.port} has protocol {port.protocol}", hint="a load balancer takes TCP, UDP and SCTP")
    if not port.node_port:
        raise UsageError(
            f"port {port.port} has no NodePort, which the load balancer sends to",
            hint="leave spec.allocateLoadBalancerNodePorts at true",
        )
    tcp = port.protocol == "TCP"
    http = tcp and settings.x_forwarded_for
    suffix = f"{port.protocol.lower()}_{port.port}_{name}"
    return Listener(
        name=f"listener_{suffix}"[:255],
        protocol="HTTP" if http else port.protocol,
        port=port.port,
        pool=_pool(service, port, nodes, settings, suffix, name),
        allowed_cidrs=settings.source_ranges,
        connection_limit=settings.connection_limit,
        # UDP has no connections that could time out
        timeout_client_data_ms=settings.timeout_client_data_ms if tcp else None,
        timeout_member_connect_ms=settings.timeout_member_connect_ms if tcp else None,
        timeout_member_data_ms=settings.timeout_member_data_ms if tcp else None,
        timeout_tcp_inspect_ms=settings.timeout_tcp_inspect_ms if tcp else None,
        insert_headers={"X-Forwarded-For": "true"} if http else {},
        tags=(name,),
    )


def _pool(
    service: Service, port: ServicePort, nodes: Sequence[Node], settings: LoadBalancerSettings, suffix: str, name: str
) -> Pool:
    protocol = port.protocol
    if protocol == "TCP" and settings.x_forwarded_for:
        protocol = "HTTP"
    elif protocol == "TCP" and settings.proxy_protocol:
        protocol = settings.proxy_protocol
    monitor_port = service.health_check_node_port if service.local_traffic else 0
    return Pool(
        name=f"pool_{suffix}"[:255],
        protocol=protocol,
        algorithm=settings.algorithm,
        members=tuple(
            Member(
                address=_address(node),
                port=port.node_port,
                subnet_id=settings.member_subnet_id,
                name=node.name[:255],
                monitor_port=monitor_port or None,
            )
            for node in nodes
        ),
        monitor=_monitor(service, port, settings, suffix),
        persistence="SOURCE_IP" if service.client_affinity else "",
        tags=(name,),
    )


def _address(node: Node) -> str:
    # IPv4 first: the NodePort answers on both, and IPv4 is what every load balancer can
    return min(node.internal_ips, key=lambda text: ip_address(text).version)


def _monitor(service: Service, port: ServicePort, settings: LoadBalancerSettings, suffix: str) -> Monitor | None:
    times = settings.monitor or (MonitorSettings() if service.local_traffic and service.health_check_node_port else None)
    if times is None:
        return None
    plain = Monitor(
        name=f"monitor_{suffix}"[:255],
        type={"UDP": "UDP-CONNECT", "SCTP": "SCTP"}.get(port.protocol, "TCP"),
        delay=times.delay,
        timeout=times.timeout,
        max_retries=times.max_retries,
        max_retries_down=times.max_retries_down,
    )
    if service.local_traffic and service.health_check_node_port:
        # kube-proxy answers 200 on this port only on nodes that have a pod of the Service
        return replace(plain, type="HTTP", url_path="/healthz", http_method="GET", expected_codes="200")
    return plain


# --- from what is there to what should be -----------------------------------------------------------------------------


@dataclass(frozen=True)
class DeleteListener:
    listener_id: str
    pool_id: str


@dataclass(frozen=True)
class DeletePool:
    pool_id: str


@dataclass(frozen=True)
class CreateListener:
    """With everything in it, one after the other."""

    listener: Listener


@dataclass(frozen=True)
class UpdateListener:
    listener_id: str
    changes: Mapping[str, Any]


@dataclass(frozen=True)
class CreatePool:
    """With its members and monitor."""

    listener_id: str
    pool: Pool


@dataclass(frozen=True)
class UpdatePool:
    pool_id: str
    changes: Mapping[str, Any]


@dataclass(frozen=True)
class SetMembers:
    pool_id: str
    members: tuple[Member, ...]


@dataclass(frozen=True)
class CreateMonitor:
    pool_id: str
    monitor: Monitor


@dataclass(frozen=True)
class UpdateMonitor:
    monitor_id: str
    changes: Mapping[str, Any]


@dataclass(frozen=True)
class DeleteMonitor:
    monitor_id: str


Step = (
    DeleteListener
    | DeletePool
    | CreateListener
    | UpdateListener
    | CreatePool
    | UpdatePool
    | SetMembers
    | CreateMonitor
    | UpdateMonitor
    | DeleteMonitor
)

_LISTENER_COMPARED = (
    "allowed_cidrs",
    "connection_limit",
    "timeout_client_data_ms",
    "timeout_member_connect_ms",
    "timeout_member_data_ms",
    "timeout_tcp_inspect_ms",
    "insert_headers",
)
_POOL_COMPARED = ("algorithm", "persistence")
_MONITOR_COMPARED = ("delay", "timeout", "max_retries", "max_retries_down", "url_path", "http_method", "expected_codes")


def plan_changes(desired: LoadBalancer, observed: LoadBalancer, *, shared: bool) -> list[Step]:
    """Steps in an order that never needs one port twice. ``shared``: others use the load balancer too, so only what carries
    the Service's tag is ours. Raises UsageError when a port that is wanted belongs to somebody else.
    """
    owned = {one.key: one for one in observed.listeners if _ours(one.tags, desired.name, shared)}
    foreign = {one.key for one in observed.listeners} - set(owned)
    wanted = {one.key: one for one in desired.listeners}
    removals: list[Step] = []
    changes: list[Step] = []
    additions: list[Step] = []
    for key, listener in owned.items():
        target = wanted.get(key)
        if target is None or target.protocol != listener.protocol:
            removals.append(DeleteListener(listener.id, listener.pool.id if listener.pool else ""))
            if target:
                additions.append(CreateListener(target))
        else:
            changes += _listener_steps(target, listener)
    for key, target in wanted.items():
        if key in foreign:
            raise UsageError(
                f"{key[0]} port {key[1]} of load balancer {observed.name} is taken by another user of it",
                hint="choose another port or another load balancer",
            )
        if key not in owned:
            additions.append(CreateListener(target))
    removals += [DeletePool(pool.id) for pool in observed.loose_pools if _ours(pool.tags, desired.name, shared)]
    return removals + changes + additions


def _ours(tags: Collection[str], name: str, shared: bool) -> bool:
    return name in tags or (not shared and not any(tag.startswith(SERVICE_TAG_PREFIX) for tag in tags))


def plan_removal(name: str, observed: LoadBalancer) -> list[Step]:
    """Take a Service (by its tag ``name``) out of a load balancer that others use."""
    return plan_changes(LoadBalancer(name=name), observed, shared=True)


def _differences(desired: object, observed: object, names: Iterable[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in names:
        want, have = getattr(desired, name), getattr(observed, name)
        if name == "allowed_cidrs":
            if set(want) != set(have):
                found[name] = want
        elif want is not None and want != have:
            found[name] = want
    return found


def _listener_steps(desired: Listener, observed: Listener) -> list[Step]:
    steps: list[Step] = []
    if changes := _differences(desired, observed, _LISTENER_COMPARED):
        steps.append(UpdateListener(observed.id, changes))
    want, have = desired.pool, observed.pool
    if want is None:
        return steps
    if have is not None and have.protocol != want.protocol:
        steps.append(DeletePool(have.id))
        have = None
    if have is None:
        return [*steps, CreatePool(observed.id, want)]
    if changes := _differences(want, have, _POOL_COMPARED):
        steps.append(UpdatePool(have.id, changes))
    if not same_members(want.members, have.members):
        steps.append(SetMembers(have.id, want.members))
    return steps + _monitor_steps(want.monitor, have)


def same_members(desired: Iterable[Member], observed: Iterable[Member]) -> bool:
    """Whether both mean the same backends; a subnet that nobody asked for is no difference."""
    have = {one.key: one for one in observed}
    want = {one.key: one for one in desired}
    return have.keys() == want.keys() and all(
        one.weight == have[key].weight
        and one.monitor_port == have[key].monitor_port
        and one.subnet_id in ("", have[key].subnet_id)
        for key, one in want.items()
    )


def _monitor_steps(want: Monitor | None, pool: Pool) -> list[Step]:
    have = pool.monitor
    if want is None:
        return [DeleteMonitor(have.id)] if have else []
    if have is None:
        return [CreateMonitor(pool.id, want)]
    if have.type != want.type:
        return [DeleteMonitor(have.id), CreateMonitor(pool.id, want)]
    changes = _differences(want, have, _MONITOR_COMPARED)
    return [UpdateMonitor(have.id, changes)] if changes else []


def describe(step: Step) -> str:
    """A step in words, for logs and for tests of whole plans."""
    parts: list[str] = []
    for item in fields(step):
        value = getattr(step, item.name)
        if isinstance(value, Listener | Pool | Monitor):
            value = value.name
        elif item.name == "members":
            value = " ".join(f"{one.address}:{one.port}" for one in step.members) if isinstance(step, SetMembers) else ""
        elif isinstance(value, Mapping):
            value = " ".join(f"{key}={new}" for key, new in value.items())  # pyright: ignore[reportUnknownVariableType]
        parts.append(str(value))
    return f"{type(step).__name__} {' '.join(parts)}".strip()


def tell(step: Step) -> str:
    """A step as a user would say it, for an event."""
    match step:
        case CreateListener():
            return f"{step.listener.protocol} port {step.listener.port} opened"
        case DeleteListener():
            return "a port closed"
        case SetMembers():
            return f"traffic goes to {len(step.members)} nodes"
        case UpdateListener() | UpdatePool() | UpdateMonitor():
            return "changed " + ", ".join(key.removesuffix("_ms").replace("_", " ") for key in step.changes)
        case CreateMonitor():
            return f"health check by {step.monitor.type}"
        case DeleteMonitor():
            return "health check taken away"
        case CreatePool():
            return f"backends made anew ({step.pool.protocol})"
        case DeletePool():
            return "old backends taken away"
