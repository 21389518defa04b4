"""The settings of one Service's load balancer, checked and free of their source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from moyai.cloud.load_balancers import BalancingAlgorithm, TrafficProtocol


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
    user asks for. ``proxy_protocol``: PROXY_V1 or PROXY_V2; None: members do not learn the client's address by it.
    ``load_balancer_id``: an existing load balancer to use; ``presumed_load_balancer_id``: an existing load balancer that the
    user asks for, or that was written for the Service earlier: which of the two is not known. ``source_ranges``: CIDRs of both
    families.
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
    algorithm: BalancingAlgorithm = BalancingAlgorithm.ROUND_ROBIN
    flavor_id: str = ""
    zone: str = ""
    connection_limit: int = -1
    timeout_client_data_ms: int = 50_000
    timeout_member_connect_ms: int = 5_000
    timeout_member_data_ms: int = 50_000
    timeout_tcp_inspect_ms: int = 0
    proxy_protocol: TrafficProtocol | None = None
    x_forwarded_for: bool = False
    monitor: MonitorSettings | None = MonitorSettings()
    load_balancer_id: str = ""
    presumed_load_balancer_id: str = ""
    hostname: str = ""
    source_ranges: tuple[str, ...] = ()
    node_selector: Mapping[str, str | None] = field(default_factory=dict[str, "str | None"])
