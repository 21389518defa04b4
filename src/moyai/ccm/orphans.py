"""Removes what was made for Services that are gone: their finalizer was taken off by hand, or they never came to be.

What always holds: the cloud is listed first and compared with the Services afterwards; only what was an orphan in two looks,
minutes apart, is removed, and only if its Service is still gone at that moment; where most of the Services that the cloud knows
are missing at once nothing is removed: an etcd that was lost, or restored from an older copy, looks the same. In a cluster that
was restored nothing is removed until a person says so.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping

from moyai.ccm.provider import Inventory, Orphan, ServiceProvider, StillWorking
from moyai.core.errors import Conflict
from moyai.core.ids import RESTORED
from moyai.kube.events import EventRecorder
from moyai.kube.objects import Reference
from moyai.runtime.controllers import Periodic
from moyai.runtime.metrics import Metrics

_log = logging.getLogger(__name__)

_ROUND_SECONDS = 3600.0
#: Between two looks of a round.
_LOOK_SECONDS = 120.0
#: A deletion may take several; then the next round goes on.
_LOOKS = 10
#: So many Services may be missing whatever their part of all is.
_FEW = 3


class OrphanRemoval:
    """``alive``: the Services (``namespace/name``) that a provider has or should have something for. ``about``: the object on
    which the user is shown what is not removed.

    ``restored``: when the backup was made that the cluster was restored from; empty where it was not, or where a person has
    looked at what the backup did not know.
    """

    def __init__(
        self,
        *,
        providers: Mapping[str, ServiceProvider],
        alive: Callable[[str], Collection[str]],
        events: EventRecorder,
        metrics: Metrics,
        about: Reference,
        restored: Callable[[], Awaitable[str]],
    ) -> None:
        self._providers = dict(providers)
        self._alive = alive
        self._events = events
        self._metrics = metrics
        self._about = about
        self._restored = restored
        self._found: dict[str, frozenset[Orphan]] = {}
        self._held: set[str] = set()
        metrics.describe("moyai_orphans", "Objects in the cloud that belong to Services that do not exist")
        metrics.describe("moyai_orphans_held", "1 while orphans are not removed because too many Services are missing")
        metrics.describe("moyai_orphans_removed_total", "Orphans whose removal was asked for")
        metrics.gauge("moyai_orphans", self._counted)
        metrics.gauge("moyai_orphans_held", lambda: {(): float(bool(self._held))})

    def periodic(self) -> Periodic:
        return Periodic("removal of orphans", self.run, _ROUND_SECONDS)

    async def run(self) -> None:
        """One round: looks until one finds nothing to do."""
        self._found.clear()
        for look in range(_LOOKS):
            if look:
                await asyncio.sleep(_LOOK_SECONDS)
            if not await self._look():
                return

    async def _look(self) -> bool:
        """Returns whether there is something to look at again."""
        again = False
        for name, provider in self._providers.items():
            inventory = await provider.inventory(lambda name=name: self._alive(name))
            before, self._found[name] = self._found.get(name, frozenset()), inventory.orphans
            if self._too_many(inventory) or await self._unknown_to_backup(inventory):
                self._held.add(name)
                continue
            self._held.discard(name)
            again = again or bool(inventory.orphans)
            for orphan in sorted(before & inventory.orphans, key=lambda one: one.key):
                # a Service of that name may have come since it was listed
                if orphan.services.isdisjoint(self._alive(name)):
                    await self._remove(provider, orphan)
        return again

    def _too_many(self, inventory: Inventory) -> bool:
        gone = sorted(frozenset[str]().union(*(one.services for one in inventory.orphans)))
        if len(gone) <= _FEW or 2 * len(gone) <= len(inventory.services):
            return False
        message = (
            f"Nothing is removed: {len(gone)} of the {len(inventory.services)} Services that the cloud has something for are "
            f"not in this cluster, as after the loss of etcd or the restore of an older copy ({', '.join(gone)}). If they are "
            f"gone for good, delete in the cloud: {_named(inventory)}"
        )
        self._tell(message)
        return True

    async def _unknown_to_backup(self, inventory: Inventory) -> bool:
        made = await self._restored() if inventory.orphans else ""
        if not made:
            return False
        self._tell(
            f"Nothing is removed: the cluster was restored from a backup of {made}, and in the cloud is what no Service of it "
            f"has: {_named(inventory)}. Delete there what is not needed, and then the ConfigMap {RESTORED}"
        )
        return True

    def _tell(self, message: str) -> None:
        _log.error("%s", message)
        self._events.event(self._about, "Warning", reason="OrphansNotRemoved", message=message)

    async def _remove(self, provider: ServiceProvider, orphan: Orphan) -> None:
        gone = ", ".join(sorted(orphan.services))
        _log.warning("%s is removed: its Service (%s) does not exist", orphan.key, gone)
        self._metrics.count("moyai_orphans_removed_total", kind=orphan.key.kind)
        try:
            await provider.remove_orphan(orphan)
        except (StillWorking, Conflict) as error:
            _log.info("%s: %s", orphan.key, error)

    def _counted(self) -> dict[tuple[tuple[str, str], ...], float]:
        kinds = Counter(one.key.kind for found in self._found.values() for one in found)
        return {(("kind", kind),): float(number) for kind, number in kinds.items()}


def _named(inventory: Inventory) -> str:
    return ", ".join(sorted(str(one.key) for one in inventory.orphans))
