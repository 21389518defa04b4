"""Extra routes of routers, as Neutron has them with extraroute-atomic."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from dataclasses import replace

from moyai.cloud.memory.session import MemoryApi, api
from moyai.cloud.model import Route, Router
from moyai.core.errors import Terminal


class MemoryPodRouting(MemoryApi):
    service = "pod_routing"

    @api
    def add_routes(self, router_id: str, routes: Collection[Route]) -> Router:
        router: Router = self._find(self._store.routers, router_id)
        wanted = {_normal(route) for route in routes}
        if not (new := wanted - set(router.routes)):
            return router
        interfaces = self._store.ports.by("device", router_id)
        connected = [
            ipaddress.ip_network(subnet.cidr)
            for port in interfaces
            for one in port.subnet_ids
            if (subnet := self._store.subnets.get(one))
        ]
        for route in new:
            if not any(ipaddress.ip_address(route.nexthop) in one for one in connected):
                words = f"Invalid format for routes: the nexthop is not connected with router: {route.nexthop}"
                raise self._refused(Terminal, words, object_id=router_id)
        with self._change():
            return self._store.routers.put(replace(router, routes=tuple(sorted({*router.routes, *new}))))

    @api
    def remove_routes(self, router_id: str, routes: Collection[Route]) -> Router:
        router: Router = self._find(self._store.routers, router_id)
        gone = {_normal(route) for route in routes}
        if not gone & set(router.routes):
            return router
        with self._change():
            return self._store.routers.put(replace(router, routes=tuple(one for one in router.routes if one not in gone)))


def _normal(route: Route) -> Route:
    return Route(str(ipaddress.ip_network(route.destination, strict=False)), str(ipaddress.ip_address(route.nexthop)))
