"""Neutron: networks, subnets, ports."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any
from uuid import uuid4

from moyai.cloud.model import Network, Port, SourceAddress, Subnet
from moyai.cloud.openstack import parse
from moyai.cloud.openstack.neutron.parts import IDS_PER_QUERY, NeutronBase
from moyai.cloud.openstack.session import Params
from moyai.core.keys import Kind


class NeutronNetworks(NeutronBase):
    def networks(self, *, tag: str | None = None, external: bool | None = None) -> list[Network]:
        query = {} if external is None else {"router:external": str(external)}
        rows = self._list(Kind.NETWORK, "list networks", tag=tag, query=query)
        own = self._session.project_id()
        return [parse.network(row, own) for row in rows]

    def create_network(self, *, name: str, tags: Sequence[str]) -> Network:
        return parse.network(self._create(Kind.NETWORK, name, body={"name": name}, tags=tags))

    def delete_network(self, network_id: str) -> None:
        self._delete(Kind.NETWORK, network_id)

    def subnets(self, *, tag: str | None = None, network_id: str | None = None) -> list[Subnet]:
        query = {"network_id": network_id} if network_id else {}
        rows = self._list(Kind.SUBNET, "list subnets", tag=tag, query=query)
        return [parse.subnet(row) for row in rows]

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
        body: dict[str, Any] = {
            "name": name,
            "network_id": network_id,
            "cidr": cidr,
            "ip_version": 6 if ":" in cidr else 4,
            "enable_dhcp": True,
        }
        if not gateway:
            body["gateway_ip"] = None
        if dns:
            body["dns_nameservers"] = list(dns)
        if allocation_pools:
            body["allocation_pools"] = [{"start": first, "end": last} for first, last in allocation_pools]
        return parse.subnet(self._create(Kind.SUBNET, name, body=body, tags=tags))

    def delete_subnet(self, subnet_id: str) -> None:
        self._delete(Kind.SUBNET, subnet_id)

    def ports(
        self,
        *,
        tag: str | None = None,
        network_id: str | None = None,
        device_ids: Collection[str] | None = None,
        ids: Collection[str] | None = None,
    ) -> list[Port]:
        plain: Params = {"network_id": network_id} if network_id else {}
        field, named = ("id", ids) if device_ids is None else ("device_id", device_ids)
        queries = [plain] if named is None else [{**plain, field: some} for some in parse.chunks(named, IDS_PER_QUERY)]
        rows = [row for query in queries for row in self._list(Kind.PORT, "list ports", tag=tag, query=query)]
        return [parse.port(row) for row in rows]

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
        address = {"subnet_id": subnet_id, **({"ip_address": fixed_ip} if fixed_ip else {})}
        body: dict[str, Any] = {"name": name, "network_id": network_id, "fixed_ips": [address]}
        if security_group_ids:
            body["security_groups"] = list(security_group_ids)
        if transit:
            body |= {"port_security_enabled": False, "security_groups": []}
        if send_from:
            body["allowed_address_pairs"] = _pairs(send_from)
        return parse.port(self._create(Kind.PORT, name, body=body, tags=tags))

    def update_port(
        self,
        port_id: str,
        *,
        send_from: Sequence[SourceAddress] | None = None,
        security_group_ids: Sequence[str] | None = None,
    ) -> Port:
        body: dict[str, Any] = {}
        if send_from is not None:
            body["allowed_address_pairs"] = _pairs(send_from)
        if security_group_ids is not None:
            body["security_groups"] = list(security_group_ids)
        changed = self._neutron.put(f"/ports/{port_id}", {"port": body}, operation="update port", object_id=port_id)
        return parse.port(changed["port"])

    def delete_port(self, port_id: str) -> None:
        self._delete(Kind.PORT, port_id)

    def sources_allowed(self, network_id: str = "") -> bool:
        """Asks for a port that Neutron cannot make: policies come first."""
        if not self._has("allowed-address-pairs"):
            return False
        body: dict[str, Any] = {
            "name": "moyai-asks-whether",
            "network_id": network_id or str(uuid4()),
            "allowed_address_pairs": _pairs([SourceAddress("192.0.2.1")]),
        }
        if network_id:
            body["fixed_ips"] = [{"subnet_id": str(uuid4())}]
        # else the network does not exist: who owns it is asked by the rule about these addresses, and by no earlier one
        return self._may("/ports", {"port": body}, operation="ask for a port that sends from other addresses")


def _pairs(pairs: Sequence[SourceAddress]) -> list[dict[str, str]]:
    return [{"ip_address": pair.address, **({"mac_address": pair.mac} if pair.mac else {})} for pair in pairs]
