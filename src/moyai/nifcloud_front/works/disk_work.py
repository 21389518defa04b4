"""Disks: a volume, its place on a machine, its size."""

from __future__ import annotations

from dataclasses import replace

from moyai.cloud.model import DiskState, Volume
from moyai.core.errors import NotFound, Terminal
from moyai.nifcloud_front.store.rows import DiskRow, InstanceRow, WorkRow, ZoneRow
from moyai.nifcloud_front.works.step import FRONT_TAG, Again, WorkContext, WorkDone, changed


def create(context: WorkContext, work: WorkRow) -> Again | WorkDone:
    """Made, and attached to the server on which it is born: one work of several steps."""
    row = context.row(DiskRow, work.uid)
    if row is None:
        return WorkDone()
    match work.step:
        case "":
            found = context.cloud.disks.volumes(name=row.uid)
            volume = found[0] if found else _made(context, row)
            return Again("made", context.pace.poll, changed(DiskRow, row.uid, cloud_id=volume.id))
        case "made":
            volume = context.cloud.disks.volume(row.cloud_id)
            if volume.state.broken:
                raise Terminal(f"the volume of {row.name} failed")
            if volume.state is not DiskState.AVAILABLE and not volume.attached_server_ids:
                return Again("made", context.pace.poll)
            return Again("attach")
        case _:
            return attach(context, replace(work, step="" if work.step == "attach" else work.step))


def _made(context: WorkContext, row: DiskRow) -> Volume:
    with context.store.transaction() as tx:
        zone = tx.get(ZoneRow, row.zone)
    zones = context.cloud.disks.zones()
    return context.cloud.disks.create_volume(
        name=row.uid,
        size_gb=row.size_gb,
        zone=zone.cloud_id if zone and zone.cloud_id in zones else "",
        metadata={FRONT_TAG: row.uid},
    )


def attach(context: WorkContext, work: WorkRow) -> Again | WorkDone:
    row = context.row(DiskRow, work.uid)
    host = context.row(InstanceRow, row.instance) if row else None
    if row is None or host is None:
        # the server went meanwhile: the disk is free
        return WorkDone(changed(DiskRow, work.uid, instance="", attachment="", slot=0, status="available"))
    volume = context.cloud.disks.volume(row.cloud_id)
    if host.cloud_id not in volume.attached_server_ids:
        if volume.state is DiskState.AVAILABLE:
            context.cloud.machines.attach_volume(host.cloud_id, volume.id)
        return Again("attached", context.pace.poll)
    if volume.state is not DiskState.IN_USE:
        return Again("attached", context.pace.poll)
    slot = _slot(volume, host.cloud_id) or row.slot
    return context.when_due(work, changed(DiskRow, row.uid, status="in-use", attachment="attached", slot=slot), step="attached")


def _slot(volume: Volume, server_id: str) -> int:
    """N of ``SCSI (0:N)`` from the device's letter below, 0 where the cloud names none: sdb and vdb are 1."""
    for one in volume.attachments:
        letter = one.device.removeprefix("/dev/")[2:3]
        if one.server_id == server_id and letter:
            return ord(letter) - ord("a")
    return 0


def detach(context: WorkContext, work: WorkRow) -> Again | WorkDone:
    row = context.row(DiskRow, work.uid)
    if row is None:
        return WorkDone()
    volume = context.cloud.disks.volume(row.cloud_id)
    free = changed(DiskRow, row.uid, instance="", attachment="", slot=0, status="available")
    if volume.state is DiskState.AVAILABLE and not volume.attached_server_ids:
        return context.when_due(work, free, step="free")
    for server_id in volume.attached_server_ids if volume.state is DiskState.IN_USE else ():
        context.cloud.machines.detach_volume(server_id, volume.id)
    return Again("free", context.pace.poll)


def extend(context: WorkContext, work: WorkRow) -> Again | WorkDone:
    row = context.row(DiskRow, work.uid)
    if row is None:
        return WorkDone()
    size = int(work.wish["size"])
    volume = context.cloud.disks.volume(row.cloud_id)
    if volume.size_gb < size:
        if volume.state in (DiskState.IN_USE, DiskState.AVAILABLE):
            context.cloud.disks.extend_volume(volume.id, size)
        return Again("grown", context.pace.poll)
    if volume.state is DiskState.EXTENDING:
        return Again("grown", context.pace.poll)
    return context.when_due(work, changed(DiskRow, row.uid, size_gb=size, attachment="attached"), step="grown")


def delete(context: WorkContext, work: WorkRow) -> Again | WorkDone:
    row = context.row(DiskRow, work.uid)
    if row is None:
        return WorkDone()
    for volume in context.cloud.disks.volumes(name=row.uid):
        if volume.state is not DiskState.DELETING:
            context.cloud.disks.delete_volume(volume.id)
    try:
        if row.cloud_id:
            context.cloud.disks.volume(row.cloud_id)
            return Again("gone", context.pace.poll)
    except NotFound:
        pass
    return context.when_due(work, lambda tx: tx.drop(row), step="gone")
