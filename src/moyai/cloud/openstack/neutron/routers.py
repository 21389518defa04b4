"""Neutron: routers, their interfaces and extra routes. Part of ``network.NeutronNetwork``."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Sequence
from typing import Any

from moyai.cloud.model import Route, Router
from moyai.cloud.openstack import parse
from moyai.cloud.openstack.neutron.parts import NeutronBase
from moyai.core.errors import Conflict, NotFound, Terminal

#: How often a read-modify-write of routes starts anew when somebody else was faster.
_ROUTE_TRIES = 8


class RouterCalls(NeutronBase):
    def routers(self, *, tag: str | None = None) -> list[Router]:
        rows = self._neutron.list("/routers", "routers", operation="list routers", params=self._own(tag))
        return [parse.router(row) for row in rows]

    def router(self, router_id: str) -> Router:
        return parse.router(self._router(router_id))

    def create_router(self, *, name: str, tags: Sequence[str]) -> Router:
        return parse.router(self._create("router", name, {"name": name}, tags))

    def set_router_gateway(self, router_id: str, network_id: str) -> Router:
        """Put the router on an external network; the one that it is on already is no error."""
        changed = self._neutron.put(
            f"/routers/{router_id}",
            {"router": {"external_gateway_info": {"network_id": network_id}}},
            operation="put the router on the external network",
            object_id=router_id,
        )
        return parse.router(changed["router"])

    def delete_router(self, router_id: str) -> None:
        self._delete("router", router_id)

    def add_router_interface(self, router_id: str, subnet_id: str) -> None:
        """A subnet that the router already has an interface in is no error."""
        try:
            self._neutron.put(
                f"/routers/{router_id}/add_router_interface",
                {"subnet_id": subnet_id},
                operation=f"add the router's interface in subnet {subnet_id}",
                object_id=router_id,
            )
        except NotFound:
            raise
        except (Conflict, Terminal):
            # 400 "Router already has a port on subnet", 409 when the gateway's address is taken: by whom decides
            params = {"device_id": router_id, "fixed_ips": f"subnet_id={subnet_id}"}
            if not self._neutron.list("/ports", "ports", operation="list router ports", params=params):
                raise

    def remove_router_interface(self, router_id: str, subnet_id: str) -> None:
        try:
            self._neutron.put(
                f"/routers/{router_id}/remove_router_interface",
                {"subnet_id": subnet_id},
                operation=f"remove the router's interface in subnet {subnet_id}",
                object_id=router_id,
            )
        except NotFound:
            return

    def add_routes(self, router_id: str, routes: Collection[Route]) -> Router:
        """Atomic also for a cloud without extraroute-atomic: there by the router's revision number."""
        return self._change_routes(router_id, "add_extraroutes", "add router routes", add=routes, remove=())

    def remove_routes(self, router_id: str, routes: Collection[Route]) -> Router:
        """Routes that are not there are no error."""
        return self._change_routes(router_id, "remove_extraroutes", "remove router routes", add=(), remove=routes)

    def _change_routes(
        self, router_id: str, action: str, operation: str, *, add: Collection[Route], remove: Collection[Route]
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
