"""Mode ``routes``: the cloud's router has a route for each node's pod range, so that nothing is encapsulated.

These are the routes that `up` makes. While the cluster runs, the route controller keeps them by ``plan.route_table``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from moyai.cloud.capabilities import Capability
from moyai.cloud.model import Route, SourceAddress
from moyai.plan import keys
from moyai.plan import steps as s
from moyai.plan.existing import Existing
from moyai.plan.node_network import NetworkConf
from moyai.plan.nodes import PlannedNode
from moyai.plan.pod_network.node_files import node_files
from moyai.plan.pod_network.sources import allow_sources, own_range
from moyai.plan.route_table import within
from moyai.spec.cluster_network import NetworkSpec


@dataclass(frozen=True)
class RoutedPods:
    network: NetworkSpec
    needs: Capability | None = Capability.POD_ROUTING
    needs_sources: bool = True
    by_router: bool = True
    bare: bool = True
    conf: NetworkConf | None = None
    ready: bool = True

    def send_from(self, node: PlannedNode) -> tuple[SourceAddress, ...]:
        return own_range(node)

    def routes(self, nodes: Sequence[PlannedNode]) -> int:
        return len(nodes)

    def steps(self, nodes: Sequence[PlannedNode], *, existing: Existing, leaving: Sequence[str]) -> Iterator[s.Step]:
        yield from allow_sources(nodes, existing)
        wanted = {Route(node.pod_cidr, node.address) for node in nodes}
        router = existing.router
        have = set(router.routes) if router is not None else set[Route]()
        add = tuple(sorted(wanted - have))
        stale = tuple(sorted(route for route in have - wanted if within(route.destination, [str(self.network.pod_cidr)])))
        if add:
            # a next hop must be on one of the router's subnets
            after = (s.created(keys.ROUTER), s.created(keys.INTERFACE))
            yield s.AddRoutes(key=keys.ROUTES, after=after, routes=add)
        if stale and router is not None:
            after = tuple(s.deleted(keys.server(name)) for name in leaving)
            yield s.RemoveRoutes(key=keys.ROUTES, after=after, router_id=router.id, routes=stale)

    def files(self, node: PlannedNode, *, mtu: int) -> Mapping[str, str]:
        return node_files(node, self.network, mtu=mtu, bare=True)
