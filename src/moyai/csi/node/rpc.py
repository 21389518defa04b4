"""CSI's node service: requests checked and translated for ``staging``, in worker threads, serial for a volume."""
# ruff: noqa: N802 - the methods have CSI's names

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TypeVar

from moyai.cloud.kind import VolumeNames
from moyai.cloud.model import Instance
from moyai.core.ids import ZONE_LABEL
from moyai.csi import messages
from moyai.csi.access_modes import wrong
from moyai.csi.errors import Refused, need
from moyai.csi.grpc.serial import Serial
from moyai.csi.node.disks import DiskError, Usage
from moyai.csi.node.registration import RegistrationRefusal
from moyai.csi.node.staging import NodeWork
from moyai.csi.proto import csi_pb2 as pb

T = TypeVar("T")

_log = logging.getLogger(__name__)

#: How long (seconds) a stage waits for the unmounting of other volumes' disks that are gone.
_CLEARING_SECONDS = 10.0

_ABILITIES = (
    "STAGE_UNSTAGE_VOLUME",
    "GET_VOLUME_STATS",
    "GET_VOLUME_HEALTH",
    "EXPAND_VOLUME",
    "SINGLE_NODE_MULTI_WRITER",
)


class NodeService:
    """``instance`` returns this machine's identity, None until it is known. ``limit``: volumes that a machine may have."""

    def __init__(self, work: NodeWork, *, names: VolumeNames, instance: Callable[[], Instance | None], limit: int) -> None:
        self._work, self._instance, self._limit = work, instance, limit
        self._names, self._standard_zone = names, True
        self._serial = Serial()
        self._clearing: dict[str, asyncio.Task[None]] = {}

    async def NodeGetCapabilities(self, _: pb.NodeGetCapabilitiesRequest) -> pb.NodeGetCapabilitiesResponse:
        rpc = pb.NodeServiceCapability.RPC
        return pb.NodeGetCapabilitiesResponse(
            capabilities=[pb.NodeServiceCapability(rpc=rpc(type=name)) for name in _ABILITIES]
        )

    async def NodeGetInfo(self, _: pb.NodeGetInfoRequest) -> pb.NodeGetInfoResponse:
        instance = self._instance()
        if instance is None:
            raise Refused("UNAVAILABLE", "this machine does not know its id in the cloud yet")
        answer = pb.NodeGetInfoResponse(node_id=instance.id, max_volumes_per_node=self._limit)
        if instance.zone:
            topology = messages.node_topology(instance.zone, self._names, standard=self._standard_zone)
            answer.accessible_topology.CopyFrom(topology)
        return answer

    def refused_by_kubelet(self, why: RegistrationRefusal) -> None:
        """The kubelet did not register the driver. It does not where a label of the Node says another zone than the driver;
        the standard label is not the driver's, so the driver then offers its own key alone."""
        if self._standard_zone and why is RegistrationRefusal.ZONE:
            _log.warning("the label %s of this Node says another zone: the driver does not offer this key", ZONE_LABEL)
            self._standard_zone = False

    async def NodeStageVolume(self, request: pb.NodeStageVolumeRequest) -> pb.NodeStageVolumeResponse:
        volume_id = need(request.volume_id, "volume id")
        staging = need(request.staging_target_path, "staging target path")
        access = messages.one_access(request.HasField("volume_capability"), request.volume_capability)
        if why := wrong(access):
            raise Refused("INVALID_ARGUMENT", why)
        context, published = dict(request.volume_context), dict(request.publish_context)
        await self.clear_stale()
        await self._do(
            volume_id, lambda: self._work.stage(volume_id, staging, access=access, context=context, published=published)
        )
        return pb.NodeStageVolumeResponse()

    async def NodeUnstageVolume(self, request: pb.NodeUnstageVolumeRequest) -> pb.NodeUnstageVolumeResponse:
        volume_id = need(request.volume_id, "volume id")
        staging = need(request.staging_target_path, "staging target path")
        await self._do(volume_id, lambda: self._work.unstage(staging, volume_id))
        return pb.NodeUnstageVolumeResponse()

    async def NodePublishVolume(self, request: pb.NodePublishVolumeRequest) -> pb.NodePublishVolumeResponse:
        volume_id, target = need(request.volume_id, "volume id"), need(request.target_path, "target path")
        access = messages.one_access(request.HasField("volume_capability"), request.volume_capability)
        staging = need(request.staging_target_path, "staging target path")
        await self._do(
            volume_id,
            lambda: self._work.publish(volume_id, staging, target=target, access=access, read_only=request.readonly),
        )
        return pb.NodePublishVolumeResponse()

    async def NodeUnpublishVolume(self, request: pb.NodeUnpublishVolumeRequest) -> pb.NodeUnpublishVolumeResponse:
        volume_id, target = need(request.volume_id, "volume id"), need(request.target_path, "target path")
        await self._do(volume_id, lambda: self._work.unpublish(target))
        return pb.NodeUnpublishVolumeResponse()

    async def NodeExpandVolume(self, request: pb.NodeExpandVolumeRequest) -> pb.NodeExpandVolumeResponse:
        volume_id, path = need(request.volume_id, "volume id"), need(request.volume_path, "volume path")
        staging, required = request.staging_target_path, request.capacity_range.required_bytes
        size = await self._do(volume_id, lambda: self._work.expand(volume_id, path, staging=staging, required=required))
        return pb.NodeExpandVolumeResponse(capacity_bytes=size)

    async def NodeGetVolumeStats(self, request: pb.NodeGetVolumeStatsRequest) -> pb.NodeGetVolumeStatsResponse:
        volume_id, path = need(request.volume_id, "volume id"), need(request.volume_path, "volume path")
        # not serial: it changes nothing, and a measurement must not wait for a mount
        usage = await asyncio.to_thread(self._work.usage, volume_id, path)
        kind = pb.VolumeUsage
        if not isinstance(usage, Usage):
            return pb.NodeGetVolumeStatsResponse(usage=[kind(unit="BYTES", total=usage)])
        return pb.NodeGetVolumeStatsResponse(
            usage=[
                kind(unit="BYTES", total=usage.total, used=usage.used, available=usage.available),
                kind(unit="INODES", total=usage.inodes, used=usage.inodes_used, available=usage.inodes_free),
            ]
        )

    async def NodeGetVolumeHealth(self, request: pb.NodeGetVolumeHealthRequest) -> pb.NodeGetVolumeHealthResponse:
        volume_id = need(request.volume_id, "volume id")
        path = request.volume_publish_path or request.staging_target_path
        faults = await asyncio.to_thread(self._work.faults, volume_id, path)
        health = pb.VolumeHealth(volume_id=volume_id)
        for fault in faults:
            health.health_statuses.add(status=fault.kind, reason=fault.reason, message=fault.message)
        return pb.NodeGetVolumeHealthResponse(volume_health=health)

    async def keep_clear(self, every: float) -> None:
        """Look for stale mounts every so many seconds, for ever.

        A container that outlives the driver's start can hold a mount open, and a disk can be lost later. Staging would clear
        them too, but a cloud that sees its disk in use attaches it nowhere, and then no volume is ever staged.
        """
        while True:
            await asyncio.sleep(every)
            await self.clear_stale()

    async def clear_stale(self) -> None:
        """Unmount what is left of disks that are gone. What cannot be read or unmounted is logged, and hinders nothing else: an
        unmount that takes long goes on beside what follows, and is not begun twice."""
        try:
            stale = await asyncio.to_thread(self._work.stale)
        except DiskError as error:
            _log.warning("mounts of disks that are gone cannot be looked for: %s", error)
            return
        for volume_id in stale:
            if volume_id not in self._clearing:
                self._clearing[volume_id] = asyncio.create_task(self._clear(volume_id))
        if found := [self._clearing[volume_id] for volume_id in stale]:
            await asyncio.wait(found, timeout=_CLEARING_SECONDS)

    async def _clear(self, volume_id: str) -> None:
        try:
            await self._do(volume_id, lambda: self._work.clear_stale(volume_id))
        except DiskError as error:
            _log.warning("what is left of volume %s cannot be unmounted: %s", volume_id, error)
        finally:
            del self._clearing[volume_id]

    async def _do(self, volume_id: str, work: Callable[[], T]) -> T:
        return await self._serial.run(volume_id, lambda: asyncio.to_thread(work))
