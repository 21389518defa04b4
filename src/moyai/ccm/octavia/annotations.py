"""Annotations of Services: what openstack-cloud-controller-manager's users write, read and checked.

``read_settings`` turns configuration and annotations into ``LoadBalancerSettings``. A wrong value is a UsageError that names
the annotation, the value and what is right; it is never guessed and never ignored.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from uuid import UUID

from moyai.ccm.settings import CcmConfig, LoadBalancerClass
from moyai.cloud.load_balancers import BalancingAlgorithm, TrafficProtocol
from moyai.core.errors import UsageError
from moyai.core.truth import truth
from moyai.kube.objects import Service
from moyai.plan.load_balancer.service_settings import LoadBalancerSettings, MonitorSettings

PREFIX = "loadbalancer.openstack.org/"
INTERNAL = "service.beta.kubernetes.io/openstack-internal-load-balancer"
SOURCE_RANGES = "service.beta.kubernetes.io/load-balancer-source-ranges"
#: Written by the controller: where the load balancer is. A user may write them too, as a wish.
LOAD_BALANCER_ID = PREFIX + "load-balancer-id"
LOAD_BALANCER_ADDRESS = PREFIX + "load-balancer-address"
#: Which values of the two the controller wrote: those are no wishes, wherever a backup takes them.
WRITTEN = "moyai.dev/load-balancer-written"

#: What ``lb-method`` may be, here and in cloud.conf.
_ALGORITHMS = {
    "ROUND_ROBIN": BalancingAlgorithm.ROUND_ROBIN,
    "LEAST_CONNECTIONS": BalancingAlgorithm.LEAST_CONNECTIONS,
    "SOURCE_IP": BalancingAlgorithm.SOURCE_ADDRESS,
    "SOURCE_IP_PORT": BalancingAlgorithm.SOURCE_ADDRESS_AND_PORT,
}
_HOST = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")
_NOT_SUPPORTED = {
    "default-tls-container-ref": "terminate TLS in an ingress or gateway behind the load balancer",
    "enable-ingress-hostname": "not needed: the status says ipMode Proxy when the PROXY protocol is on",
}
#: Names (without prefix) that are read or written; anything else with the prefix is reported to the user once.
KNOWN = frozenset(
    {
        "floating-network-id",
        "floating-subnet",
        "floating-subnet-id",
        "subnet-id",
        "network-id",
        "member-subnet-id",
        "port-id",
        "connection-limit",
        "keep-floatingip",
        "proxy-protocol",
        "x-forwarded-for",
        "timeout-client-data",
        "timeout-member-connect",
        "timeout-member-data",
        "timeout-tcp-inspect",
        "enable-health-monitor",
        "health-monitor-delay",
        "health-monitor-timeout",
        "health-monitor-max-retries",
        "health-monitor-max-retries-down",
        "availability-zone",
        "flavor-id",
        "class",
        "load-balancer-id",
        "load-balancer-address",
        "hostname",
        "node-selector",
        "lb-method",
        "lb-provider",
    }
)


class _Annotations:
    def __init__(self, annotations: Mapping[str, str]) -> None:
        self._annotations = annotations

    def text(self, name: str, default: str = "") -> str:
        return self._annotations.get(name if "/" in name else PREFIX + name, default).strip()

    def has(self, name: str) -> bool:
        return bool(self.text(name))

    def uuid(self, name: str, default: str) -> str:
        value = self.text(name) or default
        if not value:
            return ""
        try:
            UUID(value)
        except ValueError:
            raise self.wrong(name, "the id (UUID) of the object in the cloud") from None
        return value

    def flag(self, name: str, *, default: bool) -> bool:
        value = self.text(name)
        if not value:
            return default
        said = truth(value)
        if said is None:
            raise self.wrong(name, '"true" or "false"')
        return said

    def number(self, name: str, default: int, *, low: int, high: int) -> int:
        value = self.text(name)
        if not value:
            return default
        # Python refuses to read a number of thousands of digits
        if not re.fullmatch(r"-?[0-9]{1,19}", value) or not low <= int(value) <= high:
            raise self.wrong(name, f"a whole number from {low} to {high}")
        return int(value)

    def wrong(self, name: str, right: str) -> UsageError:
        full = name if "/" in name else PREFIX + name
        return UsageError(f"annotation {full} is {self.text(name)!r}", hint=f"it must be {right}")


def unknown_annotations(service: Service) -> list[str]:
    """Annotations with the prefix that mean nothing to us, with what to do instead where we know it."""
    names = [name.removeprefix(PREFIX) for name in service.annotations if name.startswith(PREFIX)]
    found = [name for name in names if name not in KNOWN]
    return [f"{PREFIX}{name}" + (f" ({_NOT_SUPPORTED[name]})" if name in _NOT_SUPPORTED else "") for name in found]


def read_settings(service: Service, config: CcmConfig) -> LoadBalancerSettings:
    """What is to be made for the Service. Raises UsageError for the first thing that is wrong."""
    defaults = config.load_balancer
    reader = _Annotations(service.annotations)
    chosen = _chosen_class(reader, config)
    internal = reader.flag(INTERNAL, default=defaults.internal_lb)
    wanted = _wanted_address(service, reader)
    balancer, certain = _wanted_balancer(service, reader)
    subnet = reader.uuid("subnet-id", "" if reader.has("network-id") else chosen.subnet_id or defaults.subnet_id)
    proxy = _proxy_protocol(reader)
    forwarded = reader.flag("x-forwarded-for", default=False)
    if proxy and forwarded:
        raise reader.wrong("proxy-protocol", "left out where x-forwarded-for is set: each of them carries the client's address")
    return LoadBalancerSettings(
        internal=internal,
        vip_subnet_id=subnet,
        vip_network_id=reader.uuid("network-id", "" if subnet else chosen.network_id or defaults.network_id),
        vip_port_id=reader.uuid("port-id", ""),
        vip_address=wanted if internal else "",
        member_subnet_id=reader.uuid("member-subnet-id", chosen.member_subnet_id or defaults.member_subnet_id),
        floating_network_id=reader.uuid("floating-network-id", chosen.floating_network_id or defaults.floating_network_id),
        floating_subnet_id=reader.uuid("floating-subnet-id", chosen.floating_subnet_id or defaults.floating_subnet_id),
        floating_subnet=reader.text("floating-subnet", defaults.floating_subnet),
        floating_address="" if internal else wanted,
        keep_floating_ip=reader.flag("keep-floatingip", default=False),
        provider=reader.text("lb-provider", defaults.lb_provider),
        algorithm=_algorithm(reader, defaults.lb_method),
        flavor_id=reader.uuid("flavor-id", defaults.flavor_id),
        zone=reader.text("availability-zone", defaults.availability_zone),
        connection_limit=reader.number("connection-limit", -1, low=-1, high=2_147_483_647),
        timeout_client_data_ms=reader.number("timeout-client-data", 50_000, low=0, high=31_536_000_000),
        timeout_member_connect_ms=reader.number("timeout-member-connect", 5_000, low=0, high=31_536_000_000),
        timeout_member_data_ms=reader.number("timeout-member-data", 50_000, low=0, high=31_536_000_000),
        timeout_tcp_inspect_ms=reader.number("timeout-tcp-inspect", 0, low=0, high=31_536_000_000),
        proxy_protocol=proxy,
        x_forwarded_for=forwarded,
        monitor=_monitor(reader, config),
        load_balancer_id=balancer if certain else "",
        presumed_load_balancer_id="" if certain else balancer,
        hostname=_hostname(reader),
        source_ranges=_source_ranges(service, reader),
        node_selector=_node_selector(reader),
    )


def read_node_selector(service: Service) -> dict[str, str | None]:
    """Only the annotation ``node-selector``."""
    return _node_selector(_Annotations(service.annotations))


def settings_for_removal(service: Service, config: CcmConfig) -> LoadBalancerSettings:
    """As far as a removal needs them: a wrong annotation must not keep a Service from going."""
    try:
        return read_settings(service, config)
    except UsageError:
        reader = _Annotations(service.annotations)
        return LoadBalancerSettings(keep_floating_ip=truth(reader.text("keep-floatingip")) is True)


def outputs(service: Service, *, load_balancer_id: str, address: str, wished: bool) -> dict[str, str]:
    """What the controller keeps on the Service. ``wished``: the user chose the load balancer, so that its id is the user's."""
    written = [] if wished else [load_balancer_id]
    said = service.annotations.get(LOAD_BALANCER_ADDRESS)
    if said != address or said in _written(service) or _unmarked(service):
        written.append(address)  # else they are the user's own words
    return {LOAD_BALANCER_ID: load_balancer_id, LOAD_BALANCER_ADDRESS: address, WRITTEN: ",".join(written)}


def _written(service: Service) -> frozenset[str]:
    return frozenset(service.annotations.get(WRITTEN, "").split(",")) - {""}


def _unmarked(service: Service) -> bool:
    """Whether both are set and their author is unknown: versions that wrote no ``WRITTEN`` always wrote both."""
    return WRITTEN not in service.annotations and {LOAD_BALANCER_ID, LOAD_BALANCER_ADDRESS} <= set(service.annotations)


def _wanted_balancer(service: Service, reader: _Annotations) -> tuple[str, bool]:
    """The load balancer that the user asks for, and whether it is certain that the user does."""
    if reader.text("load-balancer-id") in _written(service):
        return "", True
    return reader.uuid("load-balancer-id", ""), not _unmarked(service)


def _chosen_class(reader: _Annotations, config: CcmConfig) -> LoadBalancerClass:
    name = reader.text("class")
    if not name:
        return LoadBalancerClass()
    if name not in config.classes:
        known = ", ".join(sorted(config.classes)) or "there is none"
        raise reader.wrong("class", f"a LoadBalancerClass of the cloud config ({known})")
    return config.classes[name]


def _wanted_address(service: Service, reader: _Annotations) -> str:
    value, where = service.load_balancer_ip, "spec.loadBalancerIP"
    if not value and not service.ingress and not _unmarked(service):
        value, where = reader.text("load-balancer-address"), LOAD_BALANCER_ADDRESS
        value = "" if value in _written(service) else value
    if value:
        try:
            ip_address(value)
        except ValueError:
            raise UsageError(f"{where} is {value!r}", hint="it must be an IP address") from None
    return value


def _proxy_protocol(reader: _Annotations) -> TrafficProtocol | None:
    value = reader.text("proxy-protocol").lower()
    if value in ("v2", "proxyv2"):
        return TrafficProtocol.PROXY_V2
    if value in ("v1", "proxyv1"):
        return TrafficProtocol.PROXY_V1
    if value and truth(value) is None:
        raise reader.wrong("proxy-protocol", '"true" (version 1), "v1", "v2" or "false"')
    return TrafficProtocol.PROXY_V1 if truth(value) else None


def _algorithm(reader: _Annotations, default: str) -> BalancingAlgorithm:
    found = _ALGORITHMS.get(reader.text("lb-method", default).upper())
    if found is None:
        raise reader.wrong("lb-method", f"one of {', '.join(_ALGORITHMS)}")
    return found


def _monitor(reader: _Annotations, config: CcmConfig) -> MonitorSettings | None:
    defaults = config.load_balancer
    settings = MonitorSettings(
        delay=reader.number("health-monitor-delay", defaults.monitor_delay, low=1, high=3600),
        timeout=reader.number("health-monitor-timeout", defaults.monitor_timeout, low=1, high=3600),
        max_retries=reader.number("health-monitor-max-retries", defaults.monitor_max_retries, low=1, high=10),
        max_retries_down=reader.number("health-monitor-max-retries-down", defaults.monitor_max_retries_down, low=1, high=10),
    )
    if settings.timeout > settings.delay:
        raise UsageError(
            f"health monitor: time-out {settings.timeout} s is longer than the delay {settings.delay} s",
            hint=f"make {PREFIX}health-monitor-timeout at most {PREFIX}health-monitor-delay",
        )
    return settings if reader.flag("enable-health-monitor", default=defaults.create_monitor) else None


def _hostname(reader: _Annotations) -> str:
    value = reader.text("hostname").lower()
    if value and (len(value) > 253 or not _HOST.fullmatch(value)):
        raise reader.wrong("hostname", "a host name such as app.example.org")
    return value


def _source_ranges(service: Service, reader: _Annotations) -> tuple[str, ...]:
    where = "spec.loadBalancerSourceRanges"
    given = service.source_ranges
    if not given and reader.has(SOURCE_RANGES):
        where = SOURCE_RANGES
        given = tuple(part.strip() for part in reader.text(SOURCE_RANGES).split(",") if part.strip())
    found: set[str] = set()
    for text in given:
        try:
            found.add(str(ip_network(text.strip(), strict=False)))
        except ValueError:
            raise UsageError(f"{where} holds {text!r}", hint="it must be a list of CIDRs such as 192.0.2.0/24") from None
    # everybody, written out, is the same as no limit
    return () if "0.0.0.0/0" in found and found <= {"0.0.0.0/0", "::/0"} else tuple(sorted(found))


def _node_selector(reader: _Annotations) -> dict[str, str | None]:
    selector: dict[str, str | None] = {}
    for part in reader.text("node-selector").split(","):
        key, equals, value = part.strip().partition("=")
        if not key:
            if part.strip():
                raise reader.wrong("node-selector", "labels such as env=prod,pool=edge")
            continue
        selector[key.strip()] = value.strip() if equals else None
    return selector
