"""Tags of what exists already, as Neutron has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from moyai.cloud.memory.session import MemoryApi, Session, api
from moyai.cloud.memory.table import Table
from moyai.core.keys import Kind


class MemoryTags(MemoryApi):
    service = "tags"

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        store = session.store
        self._tables: dict[Kind, Table[Any]] = {
            Kind.NETWORK: store.networks,
            Kind.SUBNET: store.subnets,
            Kind.ROUTER: store.routers,
            Kind.PORT: store.ports,
            Kind.SECURITY_GROUP: store.groups,
            Kind.FLOATING_IP: store.floating_ips,
        }

    @api
    def add_tags(self, kind: Kind, object_id: str, *, tags: Sequence[str]) -> None:
        table = self._tables[kind]
        found = self._find(table, object_id)
        if set(tags) <= set(found.tags):
            return
        with self._change():
            table.put(replace(found, tags=tuple(sorted({*found.tags, *tags}))))
