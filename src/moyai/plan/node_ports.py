"""NodePorts in the nodes' security groups: which rules a Service needs, and what differs from those that are there. Pure.

A rule belongs to the Service that its description names, for rules have no tags; every other rule stays.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from moyai.cloud.model import SecurityGroupRule
from moyai.core.ids import ClusterIdentity, cluster_tag
from moyai.kube.objects import Service


def rule_description(cluster: ClusterIdentity, service_key: str) -> str:
    """What ties a rule to its Service. Clouds allow 255 characters."""
    return f"{cluster_tag(cluster.uid)} service {service_key}"[:255]


def service_of_rule(cluster: ClusterIdentity, description: str) -> str | None:
    """The key of the Service that ``rule_description`` was given, None for any other description: rules have no tags."""
    prefix = rule_description(cluster, "")
    return description.removeprefix(prefix) if description.startswith(prefix) else None


def desired_rules(
    service: Service, cluster: ClusterIdentity, *, group_ids: Iterable[str], sources: Iterable[str]
) -> list[SecurityGroupRule]:
    """The NodePorts of a Service (and its health check's), open to ``sources`` (CIDRs) in each group."""
    ports = {(port.protocol.lower(), port.node_port) for port in service.ports if port.node_port}
    if service.local_traffic and service.health_check_node_port:
        ports.add(("tcp", service.health_check_node_port))
    return [
        SecurityGroupRule(
            group_id=group,
            ethertype="IPv6" if ":" in source else "IPv4",
            protocol=protocol,
            port_min=port,
            port_max=port,
            remote_cidr=source,
            description=rule_description(cluster, service.key),
        )
        for group in group_ids
        for source in sources
        for protocol, port in sorted(ports)
    ]


def plan_rules(
    desired: Iterable[SecurityGroupRule], observed: Iterable[SecurityGroupRule]
) -> tuple[list[SecurityGroupRule], list[str]]:
    """Rules to add, and ids of rules to remove. ``observed``: this Service's only."""
    have = {replace(rule, id=""): rule.id for rule in observed}
    want = set(desired)
    return sorted(want - set(have), key=str), sorted(ident for rule, ident in have.items() if rule not in want)
