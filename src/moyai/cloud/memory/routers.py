"""Routers and their interfaces, as Neutron has them."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import replace

from moyai.cloud.memory.session import api
from moyai.cloud.memory.subnet_addresses import MemoryRanges
from moyai.cloud.model import Port, PortUse, Router, Subnet
from moyai.core.errors import Conflict, PermissionRefused


class MemoryRouters(MemoryRanges):
    service = "routers"

    @api
    def permitted(self) -> bool:
        return self._store.routers_allowed

    @api
    def routers(self, *, tag: str | None = None) -> list[Router]:
        return self._listed(self._store.routers, tag)

    @api
    def router(self, router_id: str) -> Router:
        return self._find(self._store.routers, router_id)

    @api
    def create_router(self, *, name: str, tags: Sequence[str]) -> Router:
        if not self._store.routers_allowed:
            raise self._refused(PermissionRefused, "rule:create_router is disallowed by policy")
        self._store.take("router")
        return self._make(self._store.routers, Router(self._store.new_id(), name), tags=tags)

    @api
    def set_router_gateway(self, router_id: str, network_id: str) -> Router:
        router: Router = self._find(self._store.routers, router_id)
        self._find(self._store.networks, network_id)
        if router.external_network_id == network_id:
            return router
        with self._change():
            return self._store.routers.put(replace(router, external_network_id=network_id))

    @api
    def delete_router(self, router_id: str) -> None:
        if router_id not in self._store.routers:
            return
        if self._store.ports.count("device", router_id):
            raise self._refused(Conflict, f"Router {router_id} still has ports", object_id=router_id)
        with self._change():
            self._store.routers.drop(router_id)

    @api
    def add_router_interface(self, router_id: str, subnet_id: str) -> None:
        store = self._store
        self._find(store.routers, router_id)
        subnet: Subnet = self._find(store.subnets, subnet_id)
        if self._interface(router_id, subnet_id):
            return
        gateway = self._choose(subnet, subnet.gateway)
        with self._change():
            port = Port(store.new_id(), "", subnet.network_id, "ACTIVE", (gateway,), (subnet_id,))
            store.ports.put(replace(port, device_id=router_id, use=PortUse.ROUTER))

    @api
    def remove_router_interface(self, router_id: str, subnet_id: str) -> None:
        store = self._store
        router, subnet = store.routers.get(router_id), store.subnets.get(subnet_id)
        port = self._interface(router_id, subnet_id)
        if router is None or subnet is None or port is None:
            return
        inside = ipaddress.ip_network(subnet.cidr)
        if any(ipaddress.ip_address(route.nexthop) in inside for route in router.routes):
            words = f"Router interface for subnet {subnet_id} cannot be deleted, as it is required by one or more routes."
            raise self._refused(Conflict, words, object_id=router_id)
        if any(store.floating_ips.count("port", one.id) for one in store.ports.by("subnet", subnet_id)):
            words = f"Router interface for subnet {subnet_id} cannot be deleted, as it is required by one or more floating IPs."
            raise self._refused(Conflict, words, object_id=router_id)
        with self._change():
            store.ports.drop(port.id)

    def _interface(self, router_id: str, subnet_id: str) -> Port | None:
        return next((one for one in self._store.ports.by("device", router_id) if subnet_id in one.subnet_ids), None)
