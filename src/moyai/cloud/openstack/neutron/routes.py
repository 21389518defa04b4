"""Neutron: extra routes of a router (``cloud.capabilities.PodRouting``)."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from typing import Any

from moyai.cloud.capabilities import Capability
from moyai.cloud.model import Route, Router
from moyai.cloud.openstack import parse
from moyai.cloud.openstack.neutron.parts import NeutronBase
from moyai.core.errors import Conflict

#: How often a read-modify-write of routes starts again when somebody else was faster.
_ROUTE_TRIES = 8


class NeutronPodRouting(NeutronBase):
    needs = Capability.POD_ROUTING

    def add_routes(self, router_id: str, routes: Collection[Route]) -> Router:
        """Atomic also for a cloud without extraroute-atomic: there by the router's revision number."""
        return self._change_routes(router_id, "add_extraroutes", operation="add router routes", add=routes, remove=())

    def remove_routes(self, router_id: str, routes: Collection[Route]) -> Router:
        """Routes that are not there are no error."""
        return self._change_routes(router_id, "remove_extraroutes", operation="remove router routes", add=(), remove=routes)

    def _change_routes(
        self, router_id: str, action: str, *, operation: str, add: Collection[Route], remove: Collection[Route]
    ) -> Router:
        if self._has("extraroute-atomic"):
            changed = self._neutron.put(
                f"/routers/{router_id}/{action}",
                {"router": {"routes": _rows(add or remove)}},
                operation=operation,
                object_id=router_id,
            )
            return parse.router(changed["router"])
        for attempt in range(_ROUTE_TRIES):
            before = self._router(router_id)
            routes = {_normal(route) for route in parse.router(before).routes}
            wanted = (routes | {_normal(route) for route in add}) - {_normal(route) for route in remove}
            if wanted == routes:
                return parse.router(before)
            revision = before.get("revision_number")
            try:
                changed = self._neutron.put(
                    f"/routers/{router_id}",
                    {"router": {"routes": _rows(wanted)}},
                    operation=operation,
                    object_id=router_id,
                    headers={"If-Match": f"revision_number={revision}"} if revision is not None else {},
                )
            except Conflict:
                if attempt == _ROUTE_TRIES - 1:
                    raise
                continue
            return parse.router(changed["router"])
        raise AssertionError("unreachable")

    def _router(self, router_id: str) -> dict[str, Any]:
        found = self._neutron.get(f"/routers/{router_id}", operation="show router", object_id=router_id)
        return dict(found["router"])


def _normal(route: Route) -> Route:
    return Route(str(ipaddress.ip_network(route.destination, strict=False)), str(ipaddress.ip_address(route.nexthop)))


def _rows(routes: Collection[Route]) -> list[dict[str, str]]:
    return [{"destination": route.destination, "nexthop": route.nexthop} for route in sorted(routes)]
