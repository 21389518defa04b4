"""Floating IPs, as Neutron has them, and what a server shows of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from moyai.cloud.memory.session import MemoryApi, api
from moyai.cloud.memory.store import Store
from moyai.cloud.model import Address, FloatingIP, Port, Power
from moyai.core.errors import Conflict, NotFound, PermissionRefused


class MemoryAddresses(MemoryApi):
    service = "addresses"

    @api
    def permitted(self) -> bool:
        return self._store.addresses_allowed

    @api
    def floating_ips(self, *, tag: str | None = None, port_ids: Collection[str] | None = None) -> list[FloatingIP]:
        if port_ids is not None:
            found = [one for port in dict.fromkeys(port_ids) for one in self._store.floating_ips.by("port", port)]
            return [one for one in found if tag is None or tag in one.tags]
        return self._listed(self._store.floating_ips, tag)

    @api
    def create_floating_ip(
        self,
        *,
        network_id: str,
        subnet_id: str = "",
        port_id: str = "",
        address: str = "",
        description: str = "",
        tags: Sequence[str],
    ) -> FloatingIP:
        store = self._store
        if not store.addresses_allowed:
            raise self._refused(PermissionRefused, "rule:create_floatingip is disallowed by policy")
        self._find(store.networks, network_id)
        if address and store.floating_ips.count("address", address):
            raise self._refused(Conflict, f"IP address {address} already allocated")
        port = self._port(port_id, network_id) if port_id else None
        store.take("floatingip")
        made = FloatingIP(
            store.new_id(), address or store.public_address(), "DOWN", network_id=network_id, description=description
        )
        made = self._make(store.floating_ips, _at(made, port), tags=tags)
        if port:
            show_addresses(store, port.device_id)
        return made

    @api
    def associate_floating_ip(self, floating_ip_id: str, port_id: str | None) -> FloatingIP:
        store = self._store
        found: FloatingIP = self._find(store.floating_ips, floating_ip_id)
        port = self._port(port_id, found.network_id, but=floating_ip_id) if port_id else None
        with self._change():
            changed = store.floating_ips.put(_at(found, port))
            _refresh(store, found, changed)
        return changed

    @api
    def describe_floating_ip(self, floating_ip_id: str, description: str) -> FloatingIP:
        found: FloatingIP = self._find(self._store.floating_ips, floating_ip_id)
        with self._change():
            return self._store.floating_ips.put(replace(found, description=description))

    @api
    def delete_floating_ip(self, floating_ip_id: str) -> None:
        found = self._store.floating_ips.get(floating_ip_id)
        if found is None:
            return
        with self._change():
            self._store.floating_ips.drop(floating_ip_id)
            _refresh(self._store, found)

    def _port(self, port_id: str, network_id: str, *, but: str = "") -> Port:
        """The port, if the external network is reachable from it and no other floating IP has it."""
        store = self._store
        port: Port = self._find(store.ports, port_id)
        routers = {one.device_id for subnet in port.subnet_ids for one in store.ports.by("interface", subnet)}
        found = (store.routers.get(one) for one in routers)
        if not any(one.external_network_id == network_id for one in found if one):
            raise self._refused(NotFound, f"External network {network_id} is not reachable from the subnet of port {port_id}")
        if any(one.id != but for one in store.floating_ips.by("port", port_id)):
            raise self._refused(Conflict, f"Cannot associate: port {port_id} has a floating IP already", object_id=port_id)
        return port


def unplug(store: Store, port_id: str) -> None:
    """Take the floating IPs off a port that goes."""
    for one in store.floating_ips.by("port", port_id):
        store.floating_ips.put(_at(one, None))


def show_addresses(store: Store, server_id: str) -> None:
    """Let a server show the addresses of its ports as they are now."""
    server = store.servers.get(server_id)
    if server is None or server.power is Power.STARTING:
        return
    addresses: list[Address] = []
    for port in store.ports.by("device", server_id):
        network = store.networks.get(port.network_id)
        label = network.name if network else ""
        addresses += [Address(one, "fixed", label, port.mac) for one in port.fixed_ips]
        addresses += [Address(one.address, "floating", label, port.mac) for one in store.floating_ips.by("port", port.id)]
    store.servers.put(replace(server, addresses=tuple(addresses)))


def _at(found: FloatingIP, port: Port | None) -> FloatingIP:
    if port is None:
        return replace(found, port_id="", fixed_ip="", status="DOWN")
    return replace(found, port_id=port.id, fixed_ip=port.fixed_ips[0], status="ACTIVE")


def _refresh(store: Store, *changed: FloatingIP) -> None:
    for port_id in {one.port_id for one in changed if one.port_id}:
        if port := store.ports.get(port_id):
            show_addresses(store, port.device_id)
