"""Networks, subnets and ports, as Neutron has them."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from moyai.cloud.memory.addresses import unplug
from moyai.cloud.memory.memory_kind import SOURCES_OF_PORT
from moyai.cloud.memory.session import api
from moyai.cloud.memory.subnet_addresses import MemoryRanges
from moyai.cloud.model import Network, Port, PortUse, SourceAddress, Subnet
from moyai.core.errors import Conflict, PermissionRefused, Terminal


class MemoryNetworks(MemoryRanges):
    service = "networks"

    @api
    def networks(self, *, tag: str | None = None, external: bool | None = None) -> list[Network]:
        return [one for one in self._listed(self._store.networks, tag) if external in (None, one.external)]

    @api
    def create_network(self, *, name: str, tags: Sequence[str]) -> Network:
        self._store.take("network")
        return self._make(self._store.networks, Network(self._store.new_id(), name, mtu=1450), tags=tags)

    @api
    def delete_network(self, network_id: str) -> None:
        store = self._store
        if network_id not in store.networks:
            return
        if used := self._in_use("network", network_id):
            raise self._refused(Conflict, f"network {network_id} is in use: port {used}", object_id=network_id)
        with self._change():
            for subnet in store.subnets.by("network", network_id):
                self._drop_subnet(subnet)
            store.networks.drop(network_id)

    @api
    def subnets(self, *, tag: str | None = None, network_id: str | None = None) -> list[Subnet]:
        if network_id is not None:
            return [one for one in self._store.subnets.by("network", network_id) if tag is None or tag in one.tags]
        return self._listed(self._store.subnets, tag)

    @api
    def create_subnet(
        self,
        *,
        name: str,
        network_id: str,
        cidr: str,
        dns: Sequence[str] = (),
        allocation_pools: Sequence[tuple[str, str]] = (),
        gateway: bool = True,
        tags: Sequence[str],
    ) -> Subnet:
        store = self._store
        network: Network = self._find(store.networks, network_id)
        wanted: Any = ipaddress.ip_network(cidr)
        for other in store.subnets.by("network", network_id):
            if wanted.overlaps(ipaddress.ip_network(other.cidr)):
                raise self._refused(Terminal, f"cidr {cidr} overlaps with subnet {other.id}", object_id=network_id)
        store.take("subnet")
        pools = [(ipaddress.ip_address(first), ipaddress.ip_address(last)) for first, last in allocation_pools]
        pools = pools or [(wanted[2], wanted[-2])]
        shown = tuple((str(first), str(last)) for first, last in pools)
        subnet = Subnet(store.new_id(), name, network_id, cidr, str(wanted[1]) if gateway else "", pools=shown)
        store.pools[subnet.id] = pools

        def along() -> None:
            store.networks.put(replace(network, subnet_ids=(*network.subnet_ids, subnet.id)))
            port = Port(store.new_id(), "", network_id, "ACTIVE", (self._choose(subnet),), (subnet.id,))
            store.ports.put(replace(port, use=PortUse.CLOUD, device_id="dhcp"))

        return self._make(store.subnets, subnet, tags=tags, also=along)

    @api
    def delete_subnet(self, subnet_id: str) -> None:
        subnet = self._store.subnets.get(subnet_id)
        if subnet is None:
            return
        if used := self._in_use("subnet", subnet_id):
            raise self._refused(Conflict, f"subnet {subnet_id} is in use: port {used}", object_id=subnet_id)
        with self._change():
            self._drop_subnet(subnet)

    def _in_use(self, index: str, key: str) -> str:
        """The id of a port that keeps it from going; those of DHCP go with it."""
        return next((one.id for one in self._store.ports.by(index, key) if one.use is not PortUse.CLOUD), "")

    def _drop_subnet(self, subnet: Subnet) -> None:
        store = self._store
        store.subnets.drop(subnet.id)
        store.pools.pop(subnet.id, None)
        if network := store.networks.get(subnet.network_id):
            store.networks.put(replace(network, subnet_ids=tuple(one for one in network.subnet_ids if one != subnet.id)))
        for port in store.ports.by("subnet", subnet.id):
            store.ports.drop(port.id)

    @api
    def ports(
        self,
        *,
        tag: str | None = None,
        network_id: str | None = None,
        device_ids: Collection[str] | None = None,
        ids: Collection[str] | None = None,
    ) -> list[Port]:
        ports = self._store.ports
        found: list[Port]
        if device_ids is not None:
            found = [one for device in dict.fromkeys(device_ids) for one in ports.by("device", device)]
        elif ids is not None:
            found = [ports[one] for one in dict.fromkeys(ids) if one in ports]
        elif tag is not None:
            found = ports.by("tag", tag)
        else:
            found = list(ports) if network_id is None else ports.by("network", network_id)
        return [one for one in found if network_id in (None, one.network_id) and (tag is None or tag in one.tags)]

    @api
    def create_port(
        self,
        *,
        name: str,
        network_id: str,
        subnet_id: str,
        fixed_ip: str = "",
        security_group_ids: Sequence[str] = (),
        send_from: Sequence[SourceAddress] = (),
        transit: bool = False,
        tags: Sequence[str],
    ) -> Port:
        if transit and (security_group_ids or send_from):
            raise self._refused(Terminal, "Port Security must be enabled in order to have security groups or address pairs.")
        store = self._store
        self._find(store.networks, network_id)
        if self._is_foreign(network_id) and (fixed_ip or send_from):
            raise self._refused(PermissionRefused, "(rule:create_port) is disallowed by policy", object_id=network_id)
        subnet: Subnet = self._find(store.subnets, subnet_id)
        for group in security_group_ids:
            self._find(store.groups, group)
        store.take("port")
        port = Port(
            id=store.new_id(),
            name=name,
            network_id=network_id,
            status="DOWN",
            fixed_ips=(self._choose(subnet, fixed_ip),),
            subnet_ids=(subnet_id,),
            send_from=self._pairs(send_from) if send_from else (),
            security_group_ids=tuple(sorted(security_group_ids)),
        )
        mac = "fa:16:3e:" + ":".join(port.id[start : start + 2] for start in (2, 4, 6))
        return self._make(store.ports, replace(port, mac=mac), tags=tags)

    def _pairs(self, pairs: Sequence[SourceAddress]) -> tuple[SourceAddress, ...]:
        if not self._store.sources_allowed:
            raise self._refused(Terminal, "Unrecognized attribute(s) 'allowed_address_pairs'")
        if len(pairs) > SOURCES_OF_PORT:
            raise self._refused(Terminal, f"The number of allowed address pair exceeds the maximum {SOURCES_OF_PORT}.")
        return tuple(sorted(pairs))

    @api
    def update_port(
        self,
        port_id: str,
        *,
        send_from: Sequence[SourceAddress] | None = None,
        security_group_ids: Sequence[str] | None = None,
    ) -> Port:
        port: Port = self._find(self._store.ports, port_id)
        if send_from is not None:
            port = replace(port, send_from=self._pairs(send_from))
        if security_group_ids is not None:
            port = replace(port, security_group_ids=tuple(sorted(security_group_ids)))
        with self._change():
            return self._store.ports.put(port)

    @api
    def delete_port(self, port_id: str) -> None:
        port = self._store.ports.get(port_id)
        if port is None:
            return
        if not port.use.deletable:
            words = f"Port {port_id} cannot be deleted directly via the port API: it is there for the {port.use.value}."
            raise self._refused(Conflict, words, object_id=port_id)
        with self._change():
            unplug(self._store, port_id)
            self._store.ports.drop(port_id)

    @api
    def sources_allowed(self, network_id: str = "") -> bool:
        return self._store.sources_allowed and not self._is_foreign(network_id)

    def _is_foreign(self, network_id: str) -> bool:
        """Whether the network is another project's: then the cloud alone chooses addresses there."""
        network = self._store.networks.get(network_id)
        return network is not None and network.foreign
