"""Neutron: routers and their interfaces. ``cloud.capabilities.Routers``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from moyai.cloud.capabilities import Capability
from moyai.cloud.model import Router
from moyai.cloud.openstack import parse
from moyai.cloud.openstack.neutron.parts import NeutronBase
from moyai.core.errors import Conflict, NotFound, Terminal
from moyai.core.keys import Kind


class NeutronRouters(NeutronBase):
    needs = Capability.ROUTERS

    def permitted(self) -> bool:
        body = {"name": "moyai-asks-whether", "external_gateway_info": {"network_id": str(uuid4())}}
        return self._may("/routers", {"router": body}, operation="ask for a router")

    def routers(self, *, tag: str | None = None) -> list[Router]:
        rows = self._list(Kind.ROUTER, "list routers", tag=tag, query=self._own())
        return [parse.router(row) for row in rows]

    def router(self, router_id: str) -> Router:
        return parse.router(self._router(router_id))

    def create_router(self, *, name: str, tags: Sequence[str]) -> Router:
        return parse.router(self._create(Kind.ROUTER, name, body={"name": name}, tags=tags))

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
        self._delete(Kind.ROUTER, router_id)

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
            # 400 "Router already has a port on subnet"; 409 when the gateway's address is taken: this router may have it
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

    def _router(self, router_id: str) -> dict[str, Any]:
        found = self._neutron.get(f"/routers/{router_id}", operation="show router", object_id=router_id)
        return dict(found["router"])
