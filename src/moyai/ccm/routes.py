"""The route controller: each node's pod CIDR is reachable by the router, via the node, and the node's port may send from it.

What always holds: routes are added and removed in one atomic call each; a route whose destination is outside of the cluster's
pod range is never touched; a route to a machine that has no Node yet stays, and one to nothing is removed only after a while,
because the lifecycle makes routes before machines. ``plan.route_table`` decides.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection

from moyai.ccm.servers import Servers
from moyai.cloud.model import Port, Route
from moyai.core.clock import Clock
from moyai.kube.informer import Informer
from moyai.kube.objects import Node, network_available
from moyai.kube.resources import NODES, Json
from moyai.kube.watching import Kube
from moyai.kube.workqueue import WorkQueue
from moyai.plan.route_table import missing_sources, plan_routes
from moyai.runtime.calls import CloudCalls
from moyai.runtime.controllers import Part
from moyai.runtime.reconciler import Result

_log = logging.getLogger(__name__)

KEY = "routes"
_SETTLE_SECONDS = 0.3
_RESYNC_SECONDS = 600.0
#: How long a route to nowhere rests before it is removed.
_ORPHAN_SECONDS = 120.0


class RouteController:
    """One key for all: what is wanted is one table. ``ranges``: the cluster's pod CIDRs."""

    def __init__(
        self,
        *,
        kube: Kube,
        nodes: Informer[Node],
        calls: CloudCalls,
        servers: Servers,
        router_id: str,
        ranges: Collection[str],
        clock: Clock,
    ) -> None:
        self._kube = kube
        self._nodes = nodes
        self._cloud, self._call = calls.cloud, calls.call
        self._servers = servers
        self._router_id = router_id
        self._ranges = tuple(ranges)
        self._clock = clock
        self._orphans: dict[Route, float] = {}

    def part(self) -> Part:
        return Part("route", self.reconcile, self.watch)

    def watch(self, queue: WorkQueue) -> None:
        def changed(_key: str, old: Node | None, new: Node | None) -> None:
            if _routed(old) != _routed(new):
                queue.add_later(KEY, _SETTLE_SECONDS)

        self._nodes.add_handler(changed)

    async def reconcile(self, _key: str) -> Result:
        nodes = self._nodes.all()
        ids = [one for one in (self._servers.id_of(node) for node in nodes) if one]
        router, servers, ports = await asyncio.gather(
            self._call(self._cloud.routers.router, self._router_id),
            self._servers.all(max_age=5),
            self._ports(ids),
        )
        live = {address.address for server in servers for address in server.addresses}
        plan = plan_routes(nodes, router.routes, ranges=self._ranges, live_hops=live)
        taken = {route.destination for route in plan.add}
        due = self._due([route for route in plan.remove if route.destination not in taken])
        replaced = [route for route in plan.remove if route.destination in taken]
        # what is replaced goes first: a router takes no two routes to one destination
        if remove := sorted({*due, *replaced}):
            _log.info("removing routes: %s", ", ".join(f"{one.destination} via {one.nexthop}" for one in remove))
            await self._call(self._cloud.pod_routing.remove_routes, self._router_id, remove)
        if plan.add:
            _log.info("adding routes: %s", ", ".join(f"{one.destination} via {one.nexthop}" for one in plan.add))
            await self._call(self._cloud.pod_routing.add_routes, self._router_id, plan.add)
        await self._sources(nodes, ports)
        await self._conditions([node for node in nodes if node.name in plan.nodes])
        return Result(requeue_after=_ORPHAN_SECONDS / 4 if self._orphans else _RESYNC_SECONDS)

    def _due(self, stale: Collection[Route]) -> list[Route]:
        """Of the routes that lead nowhere, those that have done so for long enough."""
        now = self._clock.monotonic()
        self._orphans = {route: self._orphans.get(route, now) for route in stale}
        due = [route for route, since in self._orphans.items() if now - since >= _ORPHAN_SECONDS]
        for route in due:
            del self._orphans[route]
        return due

    async def _ports(self, ids: list[str]) -> list[Port]:
        return await self._call(self._cloud.networks.ports, device_ids=ids) if ids else []

    async def _sources(self, nodes: Collection[Node], ports: Collection[Port]) -> None:
        by_machine: dict[str, list[Port]] = {}
        for port in ports:
            by_machine.setdefault(port.device_id, []).append(port)
        for node in nodes:
            for port in by_machine.get(self._servers.id_of(node) or "", ()):
                sources = missing_sources(port, node.pod_cidrs) if set(port.fixed_ips) & set(node.internal_ips) else None
                if sources is not None:
                    _log.info("port %s of %s may send from %s", port.id, node.name, ", ".join(node.pod_cidrs))
                    await self._call(self._cloud.networks.update_port, port.id, send_from=sources)

    async def _conditions(self, nodes: Collection[Node]) -> None:
        for node in nodes:
            if node.network_unavailable is False:
                continue
            condition = network_available(
                reason="RouteCreated", message="The router has a route to the node's pods", now=self._clock.now()
            )
            body: Json = {"status": {"conditions": [condition]}}
            await self._kube.patch(NODES, node.name, body=body, kind="strategic", subresource="status")


def _routed(node: Node | None) -> object:
    """What of a node matters to routes."""
    return (node.name, node.provider_id, node.internal_ips, node.pod_cidrs) if node and not node.deleting else None
