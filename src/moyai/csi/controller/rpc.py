"""CSI's controller service: requests checked and translated for ``volumes`` and ``snapshots``, their results as answers."""
# ruff: noqa: N802 - the methods have CSI's names

from __future__ import annotations

from collections.abc import Callable, Mapping

from moyai.cloud.model import DiskState, Quota, Volume
from moyai.core.errors import NotFound, UsageError
from moyai.csi import messages
from moyai.csi.access_modes import wrong
from moyai.csi.controller import paging
from moyai.csi.controller.cloud_view import CloudView
from moyai.csi.controller.snapshots import SnapshotWork
from moyai.csi.controller.volumes import VolumeRequest, VolumeWork
from moyai.csi.driver_names import ALONE, AVAILABILITY, DEVICE_PATH, PASSED_ON, TYPE
from moyai.csi.errors import Refused, need
from moyai.csi.proto import csi_pb2 as pb
from moyai.csi.volume_sizes import GIB

#: What a project without a limit may make, as far as we know: the largest number that CSI can say, in whole GiB.
_NO_LIMIT = (1 << 33) - 1

_ABILITIES = (
    "CREATE_DELETE_VOLUME",
    "PUBLISH_UNPUBLISH_VOLUME",
    "LIST_VOLUMES",
    "LIST_VOLUMES_PUBLISHED_NODES",
    "GET_CAPACITY",
    "CREATE_DELETE_SNAPSHOT",
    "LIST_SNAPSHOTS",
    "GET_SNAPSHOT",
    "CLONE_VOLUME",
    "EXPAND_VOLUME",
    "GET_VOLUME",
    "MODIFY_VOLUME",
    "GET_VOLUME_HEALTH",
    "LIST_VOLUME_HEALTH",
    "SINGLE_NODE_MULTI_WRITER",
)
#: Those that a cloud without snapshots lacks.
_OF_SNAPSHOTS = frozenset({"CREATE_DELETE_SNAPSHOT", "LIST_SNAPSHOTS", "GET_SNAPSHOT", "CLONE_VOLUME"})


class ControllerService:
    """``links``: where a node finds an attached volume, the likeliest place first. ``type_of``: the type that parameters of a
    StorageClass ask for; raises UsageError. ``has_snapshots``: whether the cloud has any."""

    def __init__(
        self,
        cloud: CloudView,
        volumes: VolumeWork,
        *,
        snapshots: SnapshotWork,
        links: Callable[[str, str], tuple[str, ...]],
        type_of: Callable[[Mapping[str, str]], str] = lambda parameters: parameters.get(TYPE, ""),
        has_snapshots: bool = True,
    ) -> None:
        self._cloud, self._volumes, self._snapshots, self._links = cloud, volumes, snapshots, links
        self._type_of = type_of
        self._abilities = tuple(one for one in _ABILITIES if has_snapshots or one not in _OF_SNAPSHOTS)

    async def ControllerGetCapabilities(self, _: pb.ControllerGetCapabilitiesRequest) -> pb.ControllerGetCapabilitiesResponse:
        rpc = pb.ControllerServiceCapability.RPC
        return pb.ControllerGetCapabilitiesResponse(
            capabilities=[pb.ControllerServiceCapability(rpc=rpc(type=name)) for name in self._abilities]
        )

    # ---- volumes

    async def CreateVolume(self, request: pb.CreateVolumeRequest) -> pb.CreateVolumeResponse:
        parameters = dict(request.parameters)
        content, names = request.volume_content_source, self._cloud.names
        try:
            asked = self._type_of(parameters)
        except UsageError as error:
            raise Refused("INVALID_ARGUMENT", str(error)) from error
        made = await self._volumes.create(
            VolumeRequest(
                name=need(request.name, "name"),
                accesses=messages.accesses(request.volume_capabilities),
                size=messages.size_range(request.capacity_range),
                type_name=_attributes(request.mutable_parameters) or asked,
                availability=parameters.get(AVAILABILITY, ""),
                preferred=messages.machine_zones(request.accessibility_requirements.preferred, names),
                requisite=messages.machine_zones(request.accessibility_requirements.requisite, names),
                snapshot_id=content.snapshot.snapshot_id,
                source_volume_id=content.volume.volume_id,
                metadata=_passed_on(parameters),
            )
        )
        return pb.CreateVolumeResponse(volume=messages.volume(made.volume, made.machine_zones, names=names))

    async def DeleteVolume(self, request: pb.DeleteVolumeRequest) -> pb.DeleteVolumeResponse:
        await self._volumes.delete(need(request.volume_id, "volume id"))
        return pb.DeleteVolumeResponse()

    async def ControllerPublishVolume(self, request: pb.ControllerPublishVolumeRequest) -> pb.ControllerPublishVolumeResponse:
        need(request.volume_id, "volume id")
        need(request.node_id, "node id")
        access = messages.one_access(request.HasField("volume_capability"), request.volume_capability)
        if why := wrong(access):
            raise Refused("INVALID_ARGUMENT", why)
        alone = await self._volumes.attach(request.volume_id, request.node_id, access=access)
        context = {DEVICE_PATH: await self._place(request.volume_id, request.node_id), **({ALONE: "true"} if alone else {})}
        return pb.ControllerPublishVolumeResponse(publish_context=context)

    async def _place(self, volume_id: str, node_id: str) -> str:
        """Where the node finds an attached volume: a link that follows from the volume's id, else what the cloud says."""
        if links := self._links(volume_id, ""):
            return links[0]
        attachments = (await self._require_volume(volume_id)).attachments
        return next((one.device for one in attachments if one.server_id == node_id), "")

    async def ControllerUnpublishVolume(
        self, request: pb.ControllerUnpublishVolumeRequest
    ) -> pb.ControllerUnpublishVolumeResponse:
        await self._volumes.detach(need(request.volume_id, "volume id"), request.node_id)
        return pb.ControllerUnpublishVolumeResponse()

    async def ValidateVolumeCapabilities(
        self, request: pb.ValidateVolumeCapabilitiesRequest
    ) -> pb.ValidateVolumeCapabilitiesResponse:
        need(request.volume_id, "volume id")
        if not request.volume_capabilities:
            raise Refused("INVALID_ARGUMENT", "no volume capability given")
        volume = await self._require_volume(request.volume_id)
        for capability in request.volume_capabilities:
            access = messages.access(capability)
            why = wrong(access)
            if not why and access.several and not volume.multiattach:
                why = f"volumes of the type {volume.type_name} are for one node at a time"
            if why:
                return pb.ValidateVolumeCapabilitiesResponse(message=why)
        confirmed = pb.ValidateVolumeCapabilitiesResponse.Confirmed(
            volume_context=request.volume_context,
            volume_capabilities=request.volume_capabilities,
            parameters=request.parameters,
        )
        return pb.ValidateVolumeCapabilitiesResponse(confirmed=confirmed)

    async def ListVolumes(self, request: pb.ListVolumesRequest) -> pb.ListVolumesResponse:
        shown, following = await self._page(request.starting_token, request.max_entries)
        zones = await self._cloud.zone_map()
        return pb.ListVolumesResponse(
            entries=[
                pb.ListVolumesResponse.Entry(
                    volume=messages.volume(one, zones.for_volumes(one.zone), names=self._cloud.names),
                    status=pb.ListVolumesResponse.VolumeStatus(published_node_ids=one.attached_server_ids),
                )
                for one in shown
            ],
            next_token=following,
        )

    async def ControllerGetVolume(self, request: pb.ControllerGetVolumeRequest) -> pb.ControllerGetVolumeResponse:
        volume = await self._require_volume(need(request.volume_id, "volume id"))
        zones = await self._cloud.zone_map()
        return pb.ControllerGetVolumeResponse(
            volume=messages.volume(volume, zones.for_volumes(volume.zone), names=self._cloud.names),
            status=pb.ControllerGetVolumeResponse.VolumeStatus(published_node_ids=volume.attached_server_ids),
        )

    async def ControllerExpandVolume(self, request: pb.ControllerExpandVolumeRequest) -> pb.ControllerExpandVolumeResponse:
        need(request.volume_id, "volume id")
        if not (request.HasField("capacity_range") and request.capacity_range.required_bytes):
            raise Refused("INVALID_ARGUMENT", "no new size given")
        volume = await self._volumes.extend(request.volume_id, messages.size_range(request.capacity_range))
        block = request.HasField("volume_capability") and messages.access(request.volume_capability).block
        # a raw device is simply larger; a file system has to be grown on its node
        return pb.ControllerExpandVolumeResponse(capacity_bytes=volume.size_gb * GIB, node_expansion_required=not block)

    async def GetCapacity(self, request: pb.GetCapacityRequest) -> pb.GetCapacityResponse:
        """The rest of the project's quota. The cloud reports the capacity of its disks to administrators only."""
        for capability in request.volume_capabilities:
            if wrong(messages.access(capability)):
                return pb.GetCapacityResponse(available_capacity=0)
        if request.HasField("accessible_topology"):
            zones = messages.machine_zones([request.accessible_topology], self._cloud.names)
            reach = (await self._cloud.zone_map()).for_machines(zones[0])
            wanted = request.parameters.get(AVAILABILITY, "")
            if not reach or (wanted and wanted not in reach):
                return pb.GetCapacityResponse(available_capacity=0)
        quotas = {one.name: one for one in await self._cloud.call(self._cloud.disks.quotas)}
        left = _remaining(quotas.get("gigabytes")) if _remaining(quotas.get("volumes")) else 0
        return pb.GetCapacityResponse(available_capacity=left * GIB)

    async def ControllerModifyVolume(self, request: pb.ControllerModifyVolumeRequest) -> pb.ControllerModifyVolumeResponse:
        need(request.volume_id, "volume id")
        wanted = _attributes(request.mutable_parameters)
        await self._require_volume(request.volume_id)
        if wanted:
            await self._volumes.change_type(request.volume_id, wanted)
        return pb.ControllerModifyVolumeResponse()

    # ---- health

    async def ControllerGetVolumeHealth(
        self, request: pb.ControllerGetVolumeHealthRequest
    ) -> pb.ControllerGetVolumeHealthResponse:
        volume = await self._require_volume(need(request.volume_id, "volume id"))
        return pb.ControllerGetVolumeHealthResponse(volume_health=_health(volume))

    async def ControllerListVolumeHealth(
        self, request: pb.ControllerListVolumeHealthRequest
    ) -> pb.ControllerListVolumeHealthResponse:
        listed = await self._cloud.own_volumes()
        broken = [one for one in listed if _health(one).health_statuses]
        shown, following = paging.page(broken, lambda one: one.id, token=request.starting_token, most=request.max_entries)
        return pb.ControllerListVolumeHealthResponse(entries=[_health(one) for one in shown], next_token=following)

    # ---- snapshots

    async def CreateSnapshot(self, request: pb.CreateSnapshotRequest) -> pb.CreateSnapshotResponse:
        name, source = need(request.name, "name"), need(request.source_volume_id, "source volume id")
        made = await self._snapshots.create(name, source, metadata=_passed_on(dict(request.parameters)))
        return pb.CreateSnapshotResponse(snapshot=messages.snapshot(made))

    async def DeleteSnapshot(self, request: pb.DeleteSnapshotRequest) -> pb.DeleteSnapshotResponse:
        await self._snapshots.delete(need(request.snapshot_id, "snapshot id"))
        return pb.DeleteSnapshotResponse()

    async def GetSnapshot(self, request: pb.GetSnapshotRequest) -> pb.GetSnapshotResponse:
        found = await self._snapshots.find(need(request.snapshot_id, "snapshot id"))
        if found is None:
            raise Refused("NOT_FOUND", f"snapshot {request.snapshot_id} is not there")
        return pb.GetSnapshotResponse(snapshot=messages.snapshot(found))

    async def ListSnapshots(self, request: pb.ListSnapshotsRequest) -> pb.ListSnapshotsResponse:
        if request.snapshot_id:
            found = await self._snapshots.find(request.snapshot_id)
            fits = found and request.source_volume_id in ("", found.volume_id)
            listed = [found] if found and fits else []
        else:
            listed = await self._snapshots.list(source_volume_id=request.source_volume_id)
        shown, following = paging.page(listed, lambda one: one.id, token=request.starting_token, most=request.max_entries)
        entries = [pb.ListSnapshotsResponse.Entry(snapshot=messages.snapshot(one)) for one in shown]
        return pb.ListSnapshotsResponse(entries=entries, next_token=following)

    # ---- helpers

    async def _require_volume(self, volume_id: str) -> Volume:
        try:
            return await self._cloud.call(self._cloud.disks.volume, volume_id)
        except NotFound as error:
            raise Refused("NOT_FOUND", f"volume {volume_id} is not there: {error}") from error

    async def _page(self, token: str, most: int) -> tuple[list[Volume], str]:
        paging.page((), str, token=token, most=most)  # before the cloud is asked
        listed = await self._cloud.all_volumes()
        # a volume that is being deleted or created is not listed
        alive = [one for one in listed if one.state not in (DiskState.DELETING, DiskState.CREATING)]
        return paging.page(alive, lambda one: one.id, token=token, most=most)


def _passed_on(parameters: Mapping[str, str]) -> dict[str, str]:
    # clouds take 255 characters
    return {name: parameters[key][:255] for key, name in PASSED_ON.items() if key in parameters}


def _attributes(parameters: Mapping[str, str]) -> str:
    """The volume type that a VolumeAttributesClass asks for; empty: none. What a type promises, its QoS included, is the
    cloud's: nothing else of a volume can be changed."""
    if wrong := sorted(parameters.keys() - {TYPE}):
        raise Refused(
            "INVALID_ARGUMENT",
            f"a VolumeAttributesClass of this driver has the parameter {TYPE} (a volume type of the cloud) and no other: "
            f"{', '.join(wrong)}",
        )
    return parameters.get(TYPE, "")


def _remaining(quota: Quota | None) -> int:
    if quota is None or quota.limit < 0:
        return _NO_LIMIT
    return max(0, quota.limit - quota.used)


#: What programs that read a volume's health compare.
_REASONS = {DiskState.FAILED: "VolumeFailed", DiskState.DEGRADED: "VolumeDegraded"}


def _health(volume: Volume) -> pb.VolumeHealth:
    health = pb.VolumeHealth(volume_id=volume.id)
    if volume.state.broken:
        health.health_statuses.add(
            status=pb.INACCESSIBLE if volume.state is DiskState.FAILED else pb.DEGRADED,
            reason=_REASONS[volume.state],
            message=f"the cloud says that volume {volume.id} is in {volume.status}",
        )
    return health
