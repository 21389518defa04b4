"""What the nodes' security groups let through to announced Services. Pure.

A packet reaches a node with the Service's own port, and a rule cannot tell to which of a node's addresses a packet goes. So a
port at which nodes themselves answer is never opened. A cloud has each rule once, and Services have ports in common: the rules
are of all announced Services together, and one description marks them.
"""

from __future__ import annotations

from collections.abc import Iterable

from moyai.cloud.model import SecurityGroupRule
from moyai.core.errors import UsageError
from moyai.core.ids import ClusterIdentity, cluster_tag
from moyai.kube.objects import Service
from moyai.plan.load_balancer.source_ranges import fitting_ranges

#: Ports at which the nodes themselves answer everybody: protocol and port → what answers.
NODES_OWN = {
    ("TCP", 22): "SSH",
    ("TCP", 179): "BGP",
    ("TCP", 2379): "etcd",
    ("TCP", 2380): "etcd",
    ("TCP", 6443): "the Kubernetes API",
    ("TCP", 10250): "the kubelet",
    ("TCP", 10256): "kube-proxy's health",
    ("UDP", 3784): "BFD",
    ("UDP", 4784): "BFD",
    ("UDP", 4789): "packets between pods",
    ("UDP", 8472): "packets between pods",
}


def description(cluster: ClusterIdentity) -> str:
    """What marks the rules."""
    return f"{cluster_tag(cluster.uid)} announced"


def desired_rules(
    services: Iterable[Service], cluster: ClusterIdentity, *, group_ids: Iterable[str]
) -> frozenset[SecurityGroupRule]:
    """The Services' ports, open to their source ranges, to everybody where a Service has none."""
    groups = tuple(group_ids)
    return frozenset(
        SecurityGroupRule(
            group_id=group,
            protocol=protocol.lower(),
            port_min=port,
            port_max=port,
            remote_cidr=source,
            description=description(cluster),
        )
        for service in services
        for protocol, port in _ports(service)
        if (protocol, port) not in NODES_OWN
        for source in _sources(service)
        for group in groups
    )


def remarks(service: Service) -> tuple[tuple[str, str], ...]:
    """What of a Service is not let through, for its events (reason, message)."""
    closed = [
        f"Port {port}/{protocol} stays closed to machines outside of the cluster: on nodes it is {NODES_OWN[protocol, port]}"
        for protocol, port in _ports(service)
        if (protocol, port) in NODES_OWN
    ]
    found = [("PortNotOpened", "; ".join(closed))] if closed else []
    try:
        _, left_out = fitting_ranges(service.source_ranges, 4)
    except UsageError as error:
        left_out, found = (), [*found, ("SourceRangesLeftOut", str(error))]
    if left_out:
        found.append(
            (
                "SourceRangesLeftOut",
                f"Without effect, because they are no ranges of IPv4, as the address is: {', '.join(left_out)}",
            )
        )
    return tuple(found)


def _ports(service: Service) -> list[tuple[str, int]]:
    return sorted({(one.protocol, one.port) for one in service.ports})


def _sources(service: Service) -> tuple[str, ...]:
    try:
        return fitting_ranges(service.source_ranges, 4)[0] or ("0.0.0.0/0",)
    except UsageError:
        return ()
