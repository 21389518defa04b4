"""What is said of each IPAddressPool: how many addresses are given, and why it gives none, in its status and in events.

Always holds: an event comes when a pool's state changes, not with each count.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Literal

from moyai.ccm.announced.metallb_resources import AnnounceResources
from moyai.core.clock import Clock
from moyai.core.errors import NotFound
from moyai.kube.events import EventRecorder
from moyai.kube.objects import AddressPool, stamp
from moyai.kube.objects.meta import rows, text
from moyai.kube.resources import ADDRESS_POOLS, Json
from moyai.kube.watching import Kube
from moyai.kube.workqueue import WorkQueue
from moyai.runtime.controllers import Part
from moyai.runtime.reconciler import DONE, Result


@dataclass(frozen=True)
class PoolState:
    """``reason``: one CamelCase word. ``ready``: whether a Service that asks gets an address which is announced."""

    reason: Literal["Usable", "Refused", "Exhausted", "NotAnnounced"]
    message: str
    assigned: int
    available: int

    @property
    def ready(self) -> bool:
        return self.reason == "Usable"


class PoolController:
    """``addresses``: Service → its address."""

    def __init__(
        self,
        *,
        kube: Kube,
        resources: AnnounceResources,
        addresses: Callable[[], Mapping[str, IPv4Address]],
        events: EventRecorder,
        clock: Clock,
    ) -> None:
        self._kube, self._resources, self._events, self._clock = kube, resources, events, clock
        self._addresses = addresses
        self._said: dict[str, tuple[object, ...]] = {}
        self.part = Part("address-pools", self.reconcile, watch=self._watch)

    async def reconcile(self, key: str) -> Result:
        pool = self._resources.pools.get(key)
        if pool is None or pool.deleting:
            self._said.pop(key, None)
            return DONE
        state = self._state(pool)
        self._report(key, pool, state=state)
        wanted = self._status(pool, state)
        if wanted != pool.status:
            body: Json = {"status": wanted}
            try:
                await self._kube.patch(ADDRESS_POOLS, pool.name, body=body, namespace=pool.namespace, subresource="status")
            except NotFound:
                return DONE
        return DONE

    def _state(self, pool: AddressPool) -> PoolState:
        refused = self._resources.validated.refused.get(pool.name)
        given = {one for one in self._addresses().values() if one in pool}
        if refused is not None:
            return PoolState("Refused", f"This pool is not used: {refused}", 0, 0)
        assigned, available = len(given), max(0, pool.size - len(given))
        if not available:
            message = f"No address is left: {assigned} of {pool.size} are given"
            return PoolState("Exhausted", message, assigned, available)
        if not self._resources.covered(pool):
            message = (
                "No L2Advertisement or BGPAdvertisement covers this pool: its addresses are given, and no node answers for them"
            )
            return PoolState("NotAnnounced", message, assigned, available)
        return PoolState("Usable", "", assigned, available)

    def _report(self, key: str, pool: AddressPool, *, state: PoolState) -> None:
        now = (state.reason, state.message if state.reason == "Refused" else "", pool.remarks)
        before, self._said[key] = self._said.get(key), now
        if before == now:
            return
        if not state.ready:
            self._events.event(pool.reference, "Warning", reason=f"Pool{state.reason}", message=state.message)
        elif before is not None and before[0] != "Usable":
            self._events.event(pool.reference, "Normal", reason="PoolUsable", message="This pool is used again")
        for remark in pool.remarks if before is None or before[2] != now[2] else ():
            self._events.event(pool.reference, "Warning", reason="NotSupported", message=remark)

    def _status(self, pool: AddressPool, state: PoolState) -> Json:
        condition: Json = {
            "type": "Ready",
            "status": "True" if state.ready else "False",
            "reason": state.reason,
            "message": state.message,
        }
        before: Json = next((one for one in rows(pool.status, "conditions") if one.get("type") == "Ready"), Json())
        same = before.get("status") == condition["status"]
        condition["lastTransitionTime"] = text(before, "lastTransitionTime") if same else stamp(self._clock.now())
        return {
            "assignedIPv4": state.assigned,
            "assignedIPv6": 0,
            "availableIPv4": state.available,
            "availableIPv6": 0,
            "conditions": [condition],
        }

    def _watch(self, queue: WorkQueue) -> None:
        def all_of_them() -> None:
            for one in self._resources.pools.all():
                queue.add(f"{one.namespace}/{one.name}")

        self._resources.watch_counts(all_of_them)
        self._resources.pools.add_handler(lambda key, _old, _new: queue.add(key))
