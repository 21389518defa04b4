"""The router's route table while a cluster runs: one route for each Node's pod CIDR, via the Node's address. Pure.

The route controller keeps the table by these functions. `up` makes the first routes, from the spec's nodes
(``plan.pod_network.routes``), before there is a Node. A route is the cluster's own when its destination lies within the
cluster's pod range; every other route is foreign and stays.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from moyai.cloud.model import Port, Route, SourceAddress
from moyai.kube.objects import Node


@dataclass(frozen=True)
class RoutePlan:
    """What to add to and to remove from the router; ``nodes``: names of the nodes whose route will stand."""

    add: tuple[Route, ...] = ()
    remove: tuple[Route, ...] = ()
    nodes: tuple[str, ...] = ()


def within(destination: str, ranges: Iterable[str]) -> bool:
    """Whether a CIDR lies in one of ``ranges``."""
    try:
        network = ip_network(destination, strict=False)
    except ValueError:
        return False
    for text in ranges:
        outer = ip_network(text, strict=False)
        if network.version == outer.version and network.subnet_of(outer):  # pyright: ignore[reportArgumentType]
            return True
    return False


def desired_routes(nodes: Iterable[Node], ranges: Iterable[str]) -> dict[Route, str]:
    """Route → name of its node. A node without address or pod CIDR has none yet, one outside of ``ranges`` gets none."""
    ranges = tuple(ranges)
    found: dict[Route, str] = {}
    for node in nodes:
        if node.deleting:
            continue
        for cidr in node.pod_cidrs:
            if not within(cidr, ranges):
                continue
            hop = _same_family(cidr, node.internal_ips)
            if hop:
                found[Route(str(ip_network(cidr, strict=False)), hop)] = node.name
    return found


def plan_routes(
    nodes: Iterable[Node], observed: Iterable[Route], *, ranges: Iterable[str], live_hops: Collection[str] = ()
) -> RoutePlan:
    """``ranges``: the cluster's pod CIDRs. ``live_hops``: addresses of machines that are there, Node or not: a route to one of
    them stays (the machine is about to join) unless its pod CIDR is another node's.
    """
    ranges = tuple(ranges)
    wanted = desired_routes(nodes, ranges)
    taken = {route.destination for route in wanted}
    own = {route for route in observed if within(route.destination, ranges)}
    stale = {route for route in own - set(wanted) if route.nexthop not in live_hops or route.destination in taken}
    return RoutePlan(
        add=tuple(sorted(set(wanted) - own)),
        remove=tuple(sorted(stale)),
        nodes=tuple(sorted(set(wanted.values()))),
    )


def missing_sources(port: Port, pod_cidrs: Iterable[str]) -> tuple[SourceAddress, ...] | None:
    """What the port may send from, with the pod CIDRs added; None when nothing is missing. What others added stays."""
    known = {one.address for one in port.send_from}
    missing = [cidr for cidr in pod_cidrs if cidr not in known]
    if not missing:
        return None
    return (*port.send_from, *(SourceAddress(cidr) for cidr in missing))


def _same_family(cidr: str, addresses: Iterable[str]) -> str:
    version = ip_network(cidr, strict=False).version
    return next((one for one in addresses if ip_address(one).version == version), "")
