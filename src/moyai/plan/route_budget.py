"""How many more nodes the pod network can have: by the router's routes, by the cluster's ranges, by what a port may send from.

A spec that needs more is refused elsewhere (``capacity``, ``nodes``); here the user is warned before. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from moyai.cloud.model import Port, Route, Router
from moyai.plan.pod_network import pod_network_of
from moyai.plan.route_table import within
from moyai.spec.model import ClusterSpec


@dataclass(frozen=True)
class Limit:
    """``name``: of what is counted. ``by_nodes``: whether each further node takes one. ``advice``: what helps."""

    name: str
    used: int
    limit: int
    by_nodes: bool = True
    advice: str = ""

    @property
    def left(self) -> int:
        return max(self.limit - self.used, 0)

    @property
    def near(self) -> bool:
        """Whether the user should do something about it now: a tenth is left, or two."""
        return self.left <= max(2, self.limit // 10)


@dataclass(frozen=True)
class RouteBudget:
    limits: tuple[Limit, ...]

    @property
    def nodes_left(self) -> int:
        """How many nodes can still be added."""
        return min(one.left for one in self.limits if one.by_nodes)

    def warnings(self) -> Iterator[str]:
        """A sentence for each limit that is near."""
        for one in self.limits:
            if one.near:
                more = "1 more node fits" if one.left == 1 else f"{one.left or 'no'} more nodes fit"
                begin = f"{more} into the pod network: " if one.by_nodes else ""
                yield f"{begin}{one.used} of {one.limit} {one.name} are used{f'; {one.advice}' if one.advice else ''}"


def route_budget(
    spec: ClusterSpec, *, nodes: int, foreign_routes: int, ports: Iterable[Port] = (), sources_of_port: int = 0
) -> RouteBudget:
    """``nodes``: that the cluster has, or is to have. ``foreign_routes``: of the router, that are not the cluster's. ``ports``:
    of the cluster's machines. ``sources_of_port``: the cloud's (``CloudKind``)."""
    network = spec.network
    limits: list[Limit] = []
    if pod_network_of(spec).by_router:
        advice = (
            "have the operator raise the limit and say so in spec.network.maxRoutes; the modes host-gw, bgp and vxlan need no "
            "routes in the router"
        )
        used = nodes + foreign_routes
        limits.append(Limit("routes of the router (spec.network.maxRoutes)", used, limit=network.max_routes, advice=advice))
    advice = f"nodeCIDR {network.node_cidr} and podCIDR {network.pod_cidr} cannot change"
    limits.append(Limit("node addresses and pod ranges", nodes, spec.max_nodes, advice=advice))
    sources = {port.name: len(port.send_from) for port in ports}
    if sources and sources_of_port:
        name = max(sorted(sources), key=lambda one: sources[one])
        limits.append(Limit(f"further source addresses of port {name}", sources[name], sources_of_port, by_nodes=False))
    return RouteBudget(tuple(limits))


def foreign_routes(routers: Iterable[Router], spec: ClusterSpec) -> tuple[Route, ...]:
    """Routes in these routers that somebody else put there."""
    routes = (route for router in routers for route in router.routes)
    return tuple(route for route in routes if not within(route.destination, [str(spec.network.pod_cidr)]))
