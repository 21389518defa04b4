"""cloud.conf: the cloud controller manager's configuration file, in the format of openstack-cloud-controller-manager.

Sections ``[Global]`` (how to reach the cloud), ``[LoadBalancer]`` (defaults for Services), ``[Route]``, and ``[Moyai]`` and
``[Announce]``, which upstream ignores. What holds for every such file: ``cloud.config_file``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_network

from moyai.cloud.adapter import Adapter
from moyai.cloud.config_file import LOGIN_SECTION, parse_section, read_sections, write_section
from moyai.cloud.kind import Login
from moyai.core.errors import UsageError
from moyai.plan.fencing import POLICIES

#: The controllers that there are, in the order of the start.
CONTROLLERS = ("node", "node-lifecycle", "fencing", "route", "service", "egress-ips")
#: Those that a manifest may name in its arguments (``runtime.controller_names``). No name comes to them.
SETTLED_CONTROLLERS = ("node", "node-lifecycle", "fencing", "route", "service")


@dataclass(frozen=True)
class LoadBalancerConfig:
    """Defaults for every Service; annotations of a Service go first. Delays and time-outs of the monitor in seconds."""

    enabled: bool = True
    floating_network_id: str = ""
    floating_subnet_id: str = ""
    floating_subnet: str = ""
    subnet_id: str = ""
    network_id: str = ""
    member_subnet_id: str = ""
    lb_provider: str = ""
    lb_method: str = "ROUND_ROBIN"
    flavor_id: str = ""
    availability_zone: str = ""
    create_monitor: bool = True
    monitor_delay: int = 5
    monitor_timeout: int = 3
    monitor_max_retries: int = 1
    monitor_max_retries_down: int = 3
    internal_lb: bool = False
    manage_security_groups: bool = True


@dataclass(frozen=True)
class RouteConfig:
    router_id: str = ""


@dataclass(frozen=True)
class ClusterConfig:
    """Section ``[Moyai]``. ``cluster_uid`` marks what belongs to the cluster. ``node_security_group_ids``: groups that get
    NodePort rules.

    ``fencing``: one of ``plan.fencing.POLICIES``.
    """

    cluster_uid: str = ""
    node_security_group_ids: tuple[str, ...] = ()
    fencing: str = "verify"


@dataclass(frozen=True)
class AnnounceConfig:
    """Section ``[Announce]``: Services whose addresses nodes announce. ``ranges``: CIDRs of the addresses that the cloud lets
    nodes answer for; none: no Service is announced. ``load_balancer_class``: one more class of such Services."""

    ranges: tuple[str, ...] = ()
    load_balancer_class: str = ""


@dataclass(frozen=True)
class LoadBalancerClass:
    """A named set of network choices: section ``[LoadBalancerClass "NAME"]``, chosen by the annotation ``class``."""

    floating_network_id: str = ""
    floating_subnet_id: str = ""
    subnet_id: str = ""
    network_id: str = ""
    member_subnet_id: str = ""


@dataclass(frozen=True)
class CcmConfig:
    cloud: Login
    load_balancer: LoadBalancerConfig = LoadBalancerConfig()
    route: RouteConfig = RouteConfig()
    cluster: ClusterConfig = ClusterConfig()
    classes: dict[str, LoadBalancerClass] = field(default_factory=dict[str, LoadBalancerClass])
    announce: AnnounceConfig = AnnounceConfig()


_SECTIONS = {"LoadBalancer": "load_balancer", "Route": "route", "Moyai": "cluster", "Announce": "announce"}
_TYPES: dict[str, type] = {
    "load_balancer": LoadBalancerConfig,
    "route": RouteConfig,
    "cluster": ClusterConfig,
    "announce": AnnounceConfig,
}


def read_ccm_config(text: str, adapter: Adapter) -> CcmConfig:
    """Parse the file's text. Raises UsageError that names section, key and what would be right."""
    sections = read_sections(text)
    parts: dict[str, object] = {}
    classes: dict[str, LoadBalancerClass] = {}
    for section, raw in sections.items():
        kind, _, argument = section.partition(" ")
        if kind == "LoadBalancerClass":
            classes[argument.strip().strip('"')] = parse_section(section, LoadBalancerClass, raw=raw)
        elif section in _SECTIONS:
            name = _SECTIONS[section]
            parts[name] = parse_section(section, _TYPES[name], raw=raw)
    parts = {name: parts.get(name) or kind() for name, kind in _TYPES.items()}
    login = adapter.read_login(sections.get(LOGIN_SECTION, {}))
    config = CcmConfig(login, **parts, classes=classes)  # pyright: ignore[reportArgumentType]
    if login.missing:
        raise UsageError(f"cloud config has no {login.missing}", hint=f"give it in section [{LOGIN_SECTION}]")
    for one in config.announce.ranges:
        try:
            ip_network(one)
        except ValueError:
            raise UsageError(f"cloud config: [Announce] ranges has {one!r}, which is no CIDR") from None
    if config.cluster.fencing not in POLICIES:
        hint = f"there are: {', '.join(POLICIES)}"
        raise UsageError(f"cloud config: [Moyai] fencing = {config.cluster.fencing!r} is no policy", hint=hint)
    return config


def write_ccm_config(config: CcmConfig) -> str:
    """The file's text: what differs from the defaults."""
    lines = config.cloud.lines()
    for section, name in _SECTIONS.items():
        lines += write_section(f"[{section}]", getattr(config, name))
    for name, chosen in config.classes.items():
        lines += write_section(f'[LoadBalancerClass "{name}"]', chosen)
    return "\n".join(lines) + "\n"
