"""Quotas of machines and networks; what exceeds them is refused where it is made (``Store.take``)."""

from __future__ import annotations

from moyai.cloud.memory.session import MemoryApi, api
from moyai.cloud.memory.store import QUOTAS
from moyai.cloud.model import Quota


class MemoryQuotas(MemoryApi):
    service = "quotas"

    @api
    def quotas(self) -> list[Quota]:
        return [Quota(name, self._store.limits.get(name, -1), self._store.used[name], kind) for name, kind in QUOTAS.items()]
