"""The cloud as the driver's controller sees it: calls in worker threads, shared looks, a cache for facts that rarely change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import ParamSpec, TypeVar

from moyai.cloud.capabilities import Cloud
from moyai.cloud.kind import VolumeNames
from moyai.cloud.model import Server, Snapshot, Volume, VolumeType
from moyai.core.backoff import Backoff
from moyai.core.clock import Clock
from moyai.core.errors import NotFound
from moyai.core.ids import CLUSTER_TAG
from moyai.csi.controller import zones
from moyai.csi.controller.polling import POLL, Poller
from moyai.runtime.calls import CloudCalls, Threads
from moyai.runtime.metrics import Metrics
from moyai.runtime.shared_reads import SharedRead

P = ParamSpec("P")
T = TypeVar("T")

#: Blocking calls at the same time; each waits nearly always.
_THREADS = 32
_ZONES_SECONDS = 300.0
_TYPES_SECONDS = 60.0


class CloudView:
    """``cluster`` and ``uid``: whose volumes these are; both go into the metadata of all that is made."""

    def __init__(
        self,
        cloud: Cloud,
        *,
        metrics: Metrics,
        clock: Clock,
        cluster: str,
        uid: str,
        names: VolumeNames,
        ignore_zones: bool = False,
        poll: Backoff = POLL,
    ) -> None:
        self.machines, self.disks, self.metrics, self.uid = cloud.machines, cloud.disks, metrics, uid
        self.clock = clock
        disks = cloud.disks
        self._calls = CloudCalls(cloud, metrics, threads=Threads("cloud", _THREADS), clock=clock)
        self.names = names
        self.mark: dict[str, str] = {names.cluster_key: cluster, **({CLUSTER_TAG: uid} if uid else {})}
        # distinguishes our volumes from others': a name may be used twice, a UID is not
        self._own = {CLUSTER_TAG: uid} if uid else {names.cluster_key: cluster}
        self._ignore_zones = ignore_zones
        self._own_volumes = SharedRead(lambda: self.call(disks.volumes, metadata=self._own), clock=clock)
        self._all_volumes = SharedRead(lambda: self.call(disks.volumes), clock=clock)
        self._all_snapshots = SharedRead(lambda: self.call(disks.snapshots), clock=clock)
        self._zones = SharedRead(self._learn_zones, clock=clock)
        self._types = SharedRead(self._list_types, clock=clock)
        self._machines: dict[str, SharedRead[Server]] = {}
        self.volume_poller: Poller[Volume] = Poller(
            show=lambda one: self.call(disks.volume, one), list_all=self._volumes_by_id, poll=poll
        )
        self.snapshot_poller: Poller[Snapshot] = Poller(
            show=lambda one: self.call(disks.snapshot, one), list_all=self._snapshots_by_id, poll=poll
        )

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """``function`` of ``machines`` or ``disks``, in a worker thread."""
        return await self._calls.call(function, *args, **kwargs)

    async def machine(self, server_id: str) -> Server:
        """The server as it is now. Callers that ask at the same time share one request. Raises NotFound."""
        look = self._machines.get(server_id)
        if look is None:
            look = self._machines[server_id] = SharedRead(lambda: self.call(self.machines.server, server_id), clock=self.clock)
        try:
            return await look.fresh()
        except NotFound:
            self._machines.pop(server_id, None)
            raise

    async def own_volumes(self) -> list[Volume]:
        """This cluster's volumes as they are now."""
        return await self._own_volumes.fresh()

    async def all_volumes(self) -> list[Volume]:
        """The volumes of the whole project as they are now."""
        return await self._all_volumes.fresh()

    async def all_snapshots(self) -> list[Snapshot]:
        """The snapshots of the whole project as they are now."""
        return await self._all_snapshots.fresh()

    async def zone_map(self) -> zones.ZoneMap:
        """Which zone's machines reach which zone's volumes, as of a few minutes ago."""
        return await self._zones.get(max_age=_ZONES_SECONDS)

    async def volume_types(self) -> dict[str, VolumeType]:
        """The volume types by name, as of a minute ago, or as they are now after ``forget_volume_types``."""
        return await self._types.get(max_age=_TYPES_SECONDS)

    def forget_volume_types(self) -> None:
        self._types.forget()

    def is_own(self, metadata: Mapping[str, str]) -> bool:
        return all(metadata.get(key) == value for key, value in self._own.items())

    def is_others(self, metadata: Mapping[str, str]) -> bool:
        """Whether another cluster made it."""
        return bool(self.uid) and metadata.get(CLUSTER_TAG, self.uid) != self.uid

    async def _volumes_by_id(self) -> dict[str, Volume]:
        return {one.id: one for one in await self.all_volumes()}

    async def _snapshots_by_id(self) -> dict[str, Snapshot]:
        return {one.id: one for one in await self.all_snapshots()}

    async def _list_types(self) -> dict[str, VolumeType]:
        return {one.name: one for one in await self.call(self.disks.types)}

    async def _learn_zones(self) -> zones.ZoneMap:
        machines, volumes = await asyncio.gather(self.call(self.machines.zones), self.call(self.disks.zones))
        if self._ignore_zones or zones.is_plain(machines, volumes):
            return zones.learn(machines, volumes, ignore=self._ignore_zones)
        servers, all_volumes = await asyncio.gather(self.call(self.machines.servers), self.all_volumes())
        place = {one.id: one.zone for one in servers}
        seen = [(place[server], one.zone) for one in all_volumes for server in one.attached_server_ids if place.get(server)]
        return zones.learn(machines, volumes, seen=seen)
