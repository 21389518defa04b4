"""Neutron: floating IPs (``cloud.capabilities.Addresses``)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any
from uuid import uuid4

from moyai.cloud.capabilities import Capability
from moyai.cloud.model import FloatingIP
from moyai.cloud.openstack import parse
from moyai.cloud.openstack.neutron.parts import IDS_PER_QUERY, NeutronBase
from moyai.core.keys import Kind


class NeutronAddresses(NeutronBase):
    needs = Capability.FLOATING_IPS

    def permitted(self) -> bool:
        body = {"floating_network_id": str(uuid4())}
        return self._may("/floatingips", {"floatingip": body}, operation="ask for a floating IP")

    def floating_ips(self, *, tag: str | None = None, port_ids: Collection[str] | None = None) -> list[FloatingIP]:
        own = self._own()
        queries = [own] if port_ids is None else [{**own, "port_id": ids} for ids in parse.chunks(port_ids, IDS_PER_QUERY)]
        rows = [row for query in queries for row in self._list(Kind.FLOATING_IP, "list floating IPs", tag=tag, query=query)]
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
        return parse.floating_ip(self._create(Kind.FLOATING_IP, address or description, body=body, tags=tags))

    def associate_floating_ip(self, floating_ip_id: str, port_id: str | None) -> FloatingIP:
        words = "associate floating IP" if port_id else "disassociate floating IP"
        return self._change_floating_ip(floating_ip_id, {"port_id": port_id}, operation=words)

    def describe_floating_ip(self, floating_ip_id: str, description: str) -> FloatingIP:
        return self._change_floating_ip(floating_ip_id, {"description": description}, operation="describe floating IP")

    def _change_floating_ip(self, floating_ip_id: str, changes: dict[str, Any], *, operation: str) -> FloatingIP:
        path = f"/floatingips/{floating_ip_id}"
        changed = self._neutron.put(path, {"floatingip": changes}, operation=operation, object_id=floating_ip_id)
        return parse.floating_ip(changed["floatingip"])

    def delete_floating_ip(self, floating_ip_id: str) -> None:
        self._delete(Kind.FLOATING_IP, floating_ip_id)
