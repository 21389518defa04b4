"""Routers and their interfaces, as Neutron has them, and how a subnet gives out addresses."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from moyai.cloud.memory.session import MemoryApi, api
from moyai.cloud.model import Port, PortUse, Router, Subnet
from moyai.core.errors import Conflict, Terminal


class MemoryRouters(MemoryApi):
    service = "networks"

    @api
    def routers(self, *, tag: str | None = None) -> list[Router]:
        return self._listed(self._store.routers, tag)

    @api
    def router(self, router_id: str) -> Router:
        return self._find(self._store.routers, router_id)

    @api
    def create_router(self, *, name: str, tags: Sequence[str]) -> Router:
        self._store.take("router")
        return self._make(self._store.routers, Router(self._store.new_id(), name), tags)

    @api
    def set_router_gateway(self, router_id: str, network_id: str) -> Router:
        router: Router = self._find(self._store.routers, router_id)
        self._find(self._store.networks, network_id)
        if router.external_network_id == network_id:
            return router
        address = self._store.public_address()
        with self._change():
            return self._store.routers.put(replace(router, external_network_id=network_id, external_address=address))

    @api
    def delete_router(self, router_id: str) -> None:
        if router_id not in self._store.routers:
            return
        if self._store.ports.count("device", router_id):
            raise self._refused(Conflict, f"Router {router_id} still has ports", router_id)
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
            raise self._refused(Conflict, words, router_id)
        if any(store.floating_ips.count("port", one.id) for one in store.ports.by("subnet", subnet_id)):
            words = f"Router interface for subnet {subnet_id} cannot be deleted, as it is required by one or more floating IPs."
            raise self._refused(Conflict, words, router_id)
        with self._change():
            store.ports.drop(port.id)

    def _interface(self, router_id: str, subnet_id: str) -> Port | None:
        return next((one for one in self._store.ports.by("device", router_id) if subnet_id in one.subnet_ids), None)

    def _choose(self, subnet: Subnet, wish: str = "") -> str:
        """An address that no port has: the wished one, or the next of the subnet's pools."""
        ports, network = self._store.ports, subnet.network_id
        if wish:
            if ipaddress.ip_address(wish) not in ipaddress.ip_network(subnet.cidr):
                raise self._refused(Terminal, f"IP address {wish} is not a valid IP for the specified subnet.", subnet.id)
            if ports.count("address", f"{network} {wish}"):
                raise self._refused(Conflict, f"IP address {wish} already allocated in subnet {subnet.id}", subnet.id)
            return wish
        pools: list[tuple[Any, Any]] = self._store.pools.get(subnet.id, [])
        # from where the last search ended, then once more from the start
        for start in (self._store.cursors.get(subnet.id, 0), 0):
            number = start
            for first, last in pools:
                size = int(last) - int(first) + 1
                while number < size:
                    address = str(first + number)
                    number += 1
                    if address != subnet.gateway and not ports.count("address", f"{network} {address}"):
                        # only of the first pool is remembered where it ended
                        self._store.cursors[subnet.id] = number if first == pools[0][0] else 0
                        return address
                number = 0
        raise self._refused(Terminal, f"No more IP addresses available on network {network}.", subnet.id)
