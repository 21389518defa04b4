"""Tags of what exists already, as Neutron has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from moyai.cloud.capabilities import Taggable
from moyai.cloud.memory.session import MemoryApi, Session, api
from moyai.cloud.memory.table import Table


class MemoryTags(MemoryApi):
    service = "tags"

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        store = session.store
        self._tables: dict[str, Table[Any]] = {
            "network": store.networks,
            "subnet": store.subnets,
            "router": store.routers,
            "port": store.ports,
            "security_group": store.groups,
            "floating_ip": store.floating_ips,
        }

    @api
    def add_tags(self, kind: Taggable, object_id: str, tags: Sequence[str]) -> None:
        table = self._tables[kind]
        found = self._find(table, object_id)
        if set(tags) <= set(found.tags):
            return
        with self._change():
            table.put(replace(found, tags=tuple(sorted({*found.tags, *tags}))))
