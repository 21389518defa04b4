"""Neutron: networks, subnets, ports, floating IPs, quotas (``cloud.protocols.NetworkCalls``, with its two other parts)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from moyai.cloud.model import AddressPair, FloatingIP, Network, Port, Quota, Subnet
from moyai.cloud.openstack import parse
from moyai.cloud.openstack.neutron.firewall import SecurityGroupCalls
from moyai.cloud.openstack.neutron.routers import RouterCalls
from moyai.cloud.openstack.session import CloudSession
from moyai.core.errors import NotFound

#: Neutron's own default of ``max_routes``.
DEFAULT_MAX_ROUTES = 30
_IDS_PER_QUERY = 100


class NeutronNetwork(RouterCalls, SecurityGroupCalls):
    def __init__(self, session: CloudSession, *, max_routes: int = DEFAULT_MAX_ROUTES) -> None:
        super().__init__(session)
        self._max_routes = max_routes

    def networks(self, *, tag: str | None = None, external: bool | None = None) -> list[Network]:
        params: dict[str, str | Sequence[str]] = {}
        if tag:
            params["tags"] = tag
        if external is not None:
            params["router:external"] = str(external)
        rows = self._neutron.list("/networks", "networks", operation="list networks", params=params)
        return [parse.network(row) for row in rows]

    def create_network(self, *, name: str, tags: Sequence[str]) -> Network:
        return parse.network(self._create("network", name, {"name": name}, tags))

    def delete_network(self, network_id: str) -> None:
        self._delete("network", network_id)

    def subnets(self, *, tag: str | None = None, network_id: str | None = None) -> list[Subnet]:
        params: dict[str, str | Sequence[str]] = {}
        if tag:
            params["tags"] = tag
        if network_id:
            params["network_id"] = network_id
        rows = self._neutron.list("/subnets", "subnets", operation="list subnets", params=params)
        return [parse.subnet(row) for row in rows]

    def create_subnet(
        self,
        *,
        name: str,
        network_id: str,
        cidr: str,
        dns: Sequence[str] = (),
        allocation_pools: Sequence[tuple[str, str]] = (),
        tags: Sequence[str],
    ) -> Subnet:
        body: dict[str, Any] = {
            "name": name,
            "network_id": network_id,
            "cidr": cidr,
            "ip_version": 6 if ":" in cidr else 4,
            "enable_dhcp": True,
        }
        if dns:
            body["dns_nameservers"] = list(dns)
        if allocation_pools:
            body["allocation_pools"] = [{"start": first, "end": last} for first, last in allocation_pools]
        return parse.subnet(self._create("subnet", name, body, tags))

    def delete_subnet(self, subnet_id: str) -> None:
        self._delete("subnet", subnet_id)

    def ports(
        self, *, tag: str | None = None, network_id: str | None = None, device_ids: Collection[str] | None = None
    ) -> list[Port]:
        """``device_ids``: servers, routers … whose ports are wanted; none named gives none."""
        params: dict[str, str | Sequence[str]] = {}
        if tag:
            params["tags"] = tag
        if network_id:
            params["network_id"] = network_id
        queries = (
            [params]
            if device_ids is None
            else [{**params, "device_id": ids} for ids in parse.chunks(device_ids, _IDS_PER_QUERY)]
        )
        rows = [row for query in queries for row in self._neutron.list("/ports", "ports", operation="list ports", params=query)]
        return [parse.port(row) for row in rows]

    def create_port(
        self,
        *,
        name: str,
        network_id: str,
        subnet_id: str,
        fixed_ip: str = "",
        security_group_ids: Sequence[str] = (),
        address_pairs: Sequence[AddressPair] = (),
        tags: Sequence[str],
    ) -> Port:
        address = {"subnet_id": subnet_id, **({"ip_address": fixed_ip} if fixed_ip else {})}
        body: dict[str, Any] = {"name": name, "network_id": network_id, "fixed_ips": [address]}
        if security_group_ids:
            body["security_groups"] = list(security_group_ids)
        if address_pairs:
            body["allowed_address_pairs"] = _pairs(address_pairs)
        return parse.port(self._create("port", name, body, tags))

    def update_port(
        self,
        port_id: str,
        *,
        address_pairs: Sequence[AddressPair] | None = None,
        security_group_ids: Sequence[str] | None = None,
    ) -> Port:
        body: dict[str, Any] = {}
        if address_pairs is not None:
            body["allowed_address_pairs"] = _pairs(address_pairs)
        if security_group_ids is not None:
            body["security_groups"] = list(security_group_ids)
        changed = self._neutron.put(f"/ports/{port_id}", {"port": body}, operation="update port", object_id=port_id)
        return parse.port(changed["port"])

    def delete_port(self, port_id: str) -> None:
        self._delete("port", port_id)

    def floating_ips(self, *, tag: str | None = None, port_ids: Collection[str] | None = None) -> list[FloatingIP]:
        own = self._own(tag)
        queries = [own] if port_ids is None else [{**own, "port_id": ids} for ids in parse.chunks(port_ids, _IDS_PER_QUERY)]
        rows = [
            row
            for query in queries
            for row in self._neutron.list("/floatingips", "floatingips", operation="list floating IPs", params=query)
        ]
        return [parse.floating_ip(row) for row in rows]

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
        body: dict[str, Any] = {"floating_network_id": network_id, "description": description}
        if port_id:
            body["port_id"] = port_id
        if address:
            body["floating_ip_address"] = address
        if subnet_id:
            body["subnet_id"] = subnet_id
        return parse.floating_ip(self._create("floating_ip", address or description, body, tags))

    def associate_floating_ip(self, floating_ip_id: str, port_id: str | None) -> FloatingIP:
        changed = self._neutron.put(
            f"/floatingips/{floating_ip_id}",
            {"floatingip": {"port_id": port_id}},
            operation="associate floating IP" if port_id else "disassociate floating IP",
            object_id=floating_ip_id,
        )
        return parse.floating_ip(changed["floatingip"])

    def delete_floating_ip(self, floating_ip_id: str) -> None:
        self._delete("floating_ip", floating_ip_id)

    def quotas(self) -> list[Quota]:
        project = self._session.project_id()
        operation = "read network quotas"
        if self._has("quota_details"):
            try:
                found = self._neutron.get(f"/quotas/{project}/details", operation=operation, object_id=project)
                return parse.network_quotas(found)
            except NotFound:
                # a plugin that names the extension and does not serve it
                pass
        return parse.network_quotas(self._neutron.get(f"/quotas/{project}", operation=operation, object_id=project))

    def max_routes(self) -> int:
        return self._max_routes


def _pairs(pairs: Sequence[AddressPair]) -> list[dict[str, str]]:
    return [{"ip_address": pair.address, **({"mac_address": pair.mac} if pair.mac else {})} for pair in pairs]
