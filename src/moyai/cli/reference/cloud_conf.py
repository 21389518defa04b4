"""docs/reference/cloud-conf.md, written from the dataclasses that the cloud controller manager and the CSI driver parse.

Always holds: every key that is parsed has a meaning here, and every meaning belongs to such a key. Otherwise ``render`` raises
ValueError.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from moyai.ccm.settings import AnnounceConfig, ClusterConfig, LoadBalancerClass, LoadBalancerConfig, RouteConfig
from moyai.cloud.adapter import Adapter
from moyai.cloud.config_file import LOGIN_SECTION
from moyai.cloud.factory import ADAPTERS, DEFAULT
from moyai.csi.settings import BlockStorageConfig, DriverConfig

_HEAD = """\
<!-- Written by `python -m moyai.cli.reference docs/reference`; edit src/moyai/cli/reference/cloud_conf.py. -->

# cloud.conf

cloud.conf is the file with which the cloud controller manager and the CSI driver reach the cloud. It has the format of
OpenStack's own cloud provider. `moyai up` writes one file for each of them, as Secrets in the namespace `kube-system`. You
write the file yourself only if you run `moyai ccm` or `moyai csi` in a cluster that moyai did not build.

Unknown sections and unknown keys are ignored, so an existing file continues to work. If a known key has a wrong value, the
program ends with one line that names the section and the key.

| type | form |
| --- | --- |
| text | with or without double quotes |
| true or false | `true`, `t`, `yes`, `on`, `1`, or `false`, `f`, `no`, `off`, `0`; a key without a value is true |
| number | a whole number; for durations also `5s` or `1m30s` |
| list | texts, separated by commas |
"""

_CCM, _CSI = "cloud controller manager", "CSI driver"
_NETWORKS = {
    "floating_network_id": "Network of the floating IPs.",
    "floating_subnet_id": "Subnet of the floating IPs, by id.",
    "subnet_id": "Subnet of the load balancers' own addresses.",
    "network_id": "Network of the load balancers' own addresses.",
    "member_subnet_id": "Subnet from which the load balancers reach their members.",
}


@dataclass(frozen=True)
class _Section:
    """``types``: the dataclasses whose fields are its keys. ``meanings``: key → its meaning."""

    name: str
    readers: str
    purpose: str
    types: tuple[type[Any], ...]
    meanings: Mapping[str, str]


_SECTIONS: tuple[_Section, ...] = (
    _Section(
        "LoadBalancer",
        _CCM,
        "Defaults for Services of type LoadBalancer. [Annotations](load-balancer-annotations.md) of a Service have priority.",
        (LoadBalancerConfig,),
        {
            **_NETWORKS,
            "enabled": "Whether Services get load balancers.",
            "floating_subnet": "Subnet of the floating IPs, by name; `*` stands for any text.",
            "lb_provider": "Octavia's provider; empty: the cloud's default.",
            "lb_method": "How connections are distributed: `ROUND_ROBIN`, `LEAST_CONNECTIONS`, `SOURCE_IP`, `SOURCE_IP_PORT`.",
            "flavor_id": "Octavia's flavor.",
            "availability_zone": "Octavia's availability zone.",
            "create_monitor": "Whether pools get health monitors.",
            "monitor_delay": "Seconds between two checks of a member.",
            "monitor_timeout": "Seconds until a check fails; at most the delay.",
            "monitor_max_retries": "Successful checks until a member is healthy.",
            "monitor_max_retries_down": "Failed checks until a member is not healthy.",
            "internal_lb": "Whether load balancers get no floating IP.",
            "manage_security_groups": "Whether NodePorts are opened in `[Moyai] node-security-group-ids`.",
        },
    ),
    _Section(
        'LoadBalancerClass "NAME"',
        _CCM,
        "A named choice of networks. A Service selects it with the annotation `loadbalancer.openstack.org/class`.",
        (LoadBalancerClass,),
        _NETWORKS,
    ),
    _Section(
        "Route",
        _CCM,
        "The pod network's routes.",
        (RouteConfig,),
        {"router_id": "Router that gets one route for each node; empty: the controller sets no routes."},
    ),
    _Section(
        "BlockStorage",
        _CSI,
        "Volumes.",
        (BlockStorageConfig,),
        {
            "ignore_volume_az": "Whether every machine reaches every volume, regardless of the zones' names.",
            "node_volume_attach_limit": "Volumes that one machine may have; 1 to 256.",
            "rescan_on_resize": "Whether nodes ask the kernel for a disk's size again before they grow its file system.",
        },
    ),
    _Section(
        "Moyai",
        f"{_CCM}, {_CSI}",
        "What only moyai needs. OpenStack's cloud provider ignores this section.",
        (ClusterConfig, DriverConfig),
        {
            "cluster_uid": "Mark of this cluster's objects: any word that no other cluster of the project has. Required.",
            "node_security_group_ids": "Security groups that get the rules for NodePorts.",
            "fencing": "What happens when a machine dies: `verify`, `poweroff` or `off` ([failover](../how-to/failover.md)).",
        },
    ),
    _Section(
        "Announce",
        _CCM,
        "Services whose addresses the nodes announce ([announced Services](../how-to/announced-services.md)). OpenStack's "
        "cloud provider ignores this section.",
        (AnnounceConfig,),
        {
            "ranges": "CIDRs of the addresses that the cloud lets nodes answer for; empty: no Service is announced.",
            "load_balancer_class": "One more `loadBalancerClass` of such Services.",
        },
    ),
)


def render() -> str:
    """The page as Markdown."""
    adapters = sorted(ADAPTERS, key=lambda one: one.name != DEFAULT)
    return "\n".join([_HEAD, *(_login(adapter) for adapter in adapters), *(_section(section) for section in _SECTIONS)])


def _login(adapter: Adapter) -> str:
    """The one section that each kind of cloud has its own keys for."""
    purpose = f"How to reach a cloud of the provider `{adapter.name}`. {adapter.login_purpose}"
    section = _Section(LOGIN_SECTION, f"{_CCM}, {_CSI}", purpose, (adapter.login_type,), adapter.login_meanings)
    return _section(section, "" if adapter.name == DEFAULT else f" of the provider `{adapter.name}`")


def _section(section: _Section, whose: str = "") -> str:
    name, meanings = section.name, section.meanings
    defaults: dict[str, object] = {item.name: item.default for kind in section.types for item in fields(kind)}
    if wrong := sorted(set(meanings) ^ set(defaults)):
        raise ValueError(f"[{name}]: {', '.join(wrong)}: either a key without a meaning, or a meaning without a key")
    rows = [
        f"| `{key.replace('_', '-')}` | {_type(default)} | {_default(default)} | {meanings[key]} |"
        for key, default in defaults.items()
    ]
    read_by = f"{section.purpose} Read by: {section.readers}."
    head = f"## `[{name}]`{whose}\n\n{read_by}\n\n| key | type | default | meaning |\n| --- | --- | --- | --- |"
    return "\n".join([head, *rows]) + "\n"


def _type(default: object) -> str:
    if isinstance(default, bool):
        return "true or false"
    if isinstance(default, int):
        return "number"
    return "list" if isinstance(default, tuple) else "text"


def _default(default: object) -> str:
    if default in ("", ()):
        return "empty"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"
