"""Which nodes a load balancer sends traffic to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address

from moyai.kube.objects import Node
from moyai.kube.objects.node import EXCLUDE_LABEL

#: The autoscaler puts this taint on a node that it is about to remove.
_DOOMED_TAINT = "ToBeDeletedByClusterAutoscaler"


def eligible_nodes(nodes: Iterable[Node], selector: Mapping[str, str | None] | None = None) -> list[Node]:
    """The nodes that take traffic, by name. Whether one is Ready is left to the health monitor, which knows sooner."""

    def fits(node: Node) -> bool:
        if not node.provider_id or not node.internal_ips or node.deleting or EXCLUDE_LABEL in node.labels:
            return False
        if any(taint.key == _DOOMED_TAINT for taint in node.taints):
            return False
        return all(key in node.labels and value in (None, node.labels[key]) for key, value in (selector or {}).items())

    return sorted((node for node in nodes if fits(node)), key=lambda node: node.name)


class Backends:
    """The nodes of one moment that take traffic, worked out once for each selector that is asked for."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self._nodes = eligible_nodes(nodes)
        self._chosen: dict[frozenset[tuple[str, str | None]], tuple[tuple[str, str], ...]] = {}

    def of(self, selector: Mapping[str, str | None]) -> tuple[tuple[str, str], ...]:
        """Name and address of each, in order."""
        key = frozenset(selector.items())
        if key not in self._chosen:
            chosen = eligible_nodes(self._nodes, selector)
            self._chosen[key] = tuple((node.name, member_address(node)) for node in chosen)
        return self._chosen[key]


def member_address(node: Node) -> str:
    """The address of the node that a load balancer sends to."""
    # IPv4 first: the NodePort answers on both, and every load balancer can send to IPv4
    return min(node.internal_ips, key=lambda text: ip_address(text).version)
