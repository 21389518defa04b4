"""CSI's messages as our facts and back. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast, get_args

from moyai.cloud.kind import VolumeNames
from moyai.cloud.model import LONG_AGO, DiskState, Snapshot, Volume
from moyai.core.ids import ZONE_LABEL
from moyai.csi.access_modes import Mode, VolumeAccess
from moyai.csi.errors import Refused
from moyai.csi.proto import csi_pb2 as pb
from moyai.csi.volume_sizes import GIB, Range


def access(capability: pb.VolumeCapability) -> VolumeAccess:
    kind = capability.WhichOneof("access_type")
    if kind is None:
        raise Refused("INVALID_ARGUMENT", "a volume capability says neither mount nor block")
    name = pb.VolumeCapability.AccessMode.Mode.Name(capability.access_mode.mode)
    mode = cast("Mode", name if name in get_args(Mode) else "UNKNOWN")
    if kind == "block":
        return VolumeAccess(mode, block=True)
    return VolumeAccess(mode, fs_type=capability.mount.fs_type.lower(), flags=tuple(capability.mount.mount_flags))


def accesses(capabilities: Iterable[pb.VolumeCapability]) -> tuple[VolumeAccess, ...]:
    return tuple(access(one) for one in capabilities)


def one_access(has: bool, capability: pb.VolumeCapability) -> VolumeAccess:
    """A capability that must be given."""
    if not has:
        raise Refused("INVALID_ARGUMENT", "no volume capability given")
    return access(capability)


def size_range(given: pb.CapacityRange) -> Range:
    return Range(given.required_bytes, given.limit_bytes)


def machine_zones(topologies: Sequence[pb.Topology], names: VolumeNames) -> tuple[str, ...]:
    """The zones in topologies, in their order, each once. A topology may name the zone by the driver's own key, by Kubernetes'
    standard key, or by both. INVALID_ARGUMENT where topologies are given and none of them names a zone that can be."""
    keys = (names.zone_key, ZONE_LABEL)
    named = [{one.segments[key] for key in keys if key in one.segments} for one in topologies]
    zones = tuple(dict.fromkeys(found.pop() for found in named if len(found) == 1))
    if topologies and not zones:
        given = ", ".join(sorted({key for one in topologies for key in one.segments}))
        raise Refused(
            "INVALID_ARGUMENT",
            f"no zone is named by the allowed topologies, whose keys are {given or '(none)'}: the keys of this driver are "
            f"{ZONE_LABEL} and {names.zone_key}, with one zone under both",
        )
    return zones


def node_topology(zone: str, names: VolumeNames, *, standard: bool) -> pb.Topology:
    """The keys that a node is registered with: the classes' ``allowedTopologies`` can name only these. ``standard``: also
    Kubernetes' own key."""
    return pb.Topology(segments={names.zone_key: zone, **({ZONE_LABEL: zone} if standard else {})})


def volume_topologies(zones: Iterable[str], names: VolumeNames) -> list[pb.Topology]:
    """For the node affinity of a volume, which never changes: by the driver's own key alone, which nodes of every version of
    the driver have."""
    return [pb.Topology(segments={names.zone_key: zone}) for zone in zones]


def source(snapshot_id: str, volume_id: str) -> pb.VolumeContentSource | None:
    kind = pb.VolumeContentSource
    if snapshot_id:
        return kind(snapshot=kind.SnapshotSource(snapshot_id=snapshot_id))
    if volume_id:
        return kind(volume=kind.VolumeSource(volume_id=volume_id))
    return None


def volume(one: Volume, machine_zones: Iterable[str], *, names: VolumeNames) -> pb.Volume:
    copied = one.snapshot_id or one.source_volume_id
    return pb.Volume(
        volume_id=one.id,
        capacity_bytes=one.size_gb * GIB,
        volume_context={} if copied else {names.blank_key: "true"},
        content_source=source(one.snapshot_id, one.source_volume_id),
        accessible_topology=volume_topologies(machine_zones, names),
    )


def snapshot(one: Snapshot) -> pb.Snapshot:
    made = pb.Snapshot(
        snapshot_id=one.id,
        source_volume_id=one.volume_id,
        size_bytes=one.size_gb * GIB,
        ready_to_use=one.state is DiskState.AVAILABLE,
    )
    if one.created != LONG_AGO:
        made.creation_time.FromDatetime(one.created)
    else:
        made.creation_time.GetCurrentTime()
    return made
