"""Additional disks (``cloud.disks.Disks``). What always holds:

- A disk is born on a server of its own cluster, in the zone, that runs; never on somebody else's.
- A process that dies at any moment of a birth leaves a disk that the next creation of the same name carries on.
- Disks grow by steps of 100 GiB: a wish within the step costs no call.

There are no snapshots, no copies, no change of a type, and no growth of a disk that no server has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from moyai.cloud.capabilities import Capability, CapabilityAbsent
from moyai.cloud.model import Attachment, DiskState, Quota, Snapshot, Volume, VolumeType
from moyai.cloud.nifcloud.disk_calls import DiskCalls, NewDisk, WireDisk
from moyai.cloud.nifcloud.disk_names import birth, disk_name, owner_of, unborn
from moyai.cloud.nifcloud.disk_types import DISK_TYPES, split_type
from moyai.cloud.nifcloud.error_codes import LostReply, NoSuchObject
from moyai.cloud.nifcloud.instance_calls import InstanceCalls
from moyai.cloud.nifcloud.marks import read_mark
from moyai.cloud.nifcloud.nifcloud_limits import ACCOUNTING, DISK_MOST_GB, DISK_STEP_GB, SERVER_DISKS, Terms
from moyai.cloud.nifcloud.wire import Wire
from moyai.core.errors import Conflict, NotFound, SizeRefused, Terminal
from moyai.core.ids import CLUSTER_TAG
from moyai.core.waiting import NotYet

#: Seconds for a disk to be attached, detached, extended or deleted.
_STEP_SECONDS = 300.0
_STATES = {
    "creating": DiskState.CREATING,
    "available": DiskState.AVAILABLE,
    "in-use": DiskState.IN_USE,
    "attaching": DiskState.ATTACHING,
    "detaching": DiskState.DETACHING,
    "deleting": DiskState.DELETING,
    "error": DiskState.FAILED,
}


class NifcloudDisks:
    """``terms``: of the disks that it makes."""

    def __init__(self, wire: Wire, *, cloud: str, terms: Terms) -> None:
        self._wire, self._cloud, self._terms = wire, cloud, terms
        self._calls, self._instances = DiskCalls(wire), InstanceCalls(wire)

    def volumes(self, *, metadata: Mapping[str, str] | None = None, name: str | None = None) -> list[Volume]:
        """Without the places at which servers see them: ``volume`` has those."""
        wanted = dict(metadata or {})
        found = [self._volume(one) for one in self._calls.all()]
        return [
            one
            for one in found
            if name in (None, one.name) and all(one.metadata.get(key) == value for key, value in wanted.items())
        ]

    def volume(self, volume_id: str) -> Volume:
        """With the place at which its server sees it (``SCSI (0:N)``)."""
        found = self._disk(volume_id)
        try:
            slots = {one.server_id: self._instances.disk_slots(one.server).get(found.name, "") for one in found.attachments}
        except NoSuchObject:
            slots = {}  # the server went meanwhile
        return self._volume(found, slots)

    def create_volume(
        self,
        *,
        name: str,
        size_gb: int,
        zone: str = "",
        type_name: str = "",
        metadata: Mapping[str, str],
        snapshot_id: str = "",
        source_volume_id: str = "",
    ) -> Volume:
        """Returns once the disk was taken off the server that it was born on: minutes, where the cloud is slow."""
        if snapshot_id or source_volume_id:
            raise CapabilityAbsent(self._cloud, Capability.SNAPSHOTS, hint="a disk of NIFCLOUD is made empty")
        uid = metadata.get(CLUSTER_TAG, "")
        called, size = disk_name(uid, name), steps(size_gb)
        kind, monthly = split_type(type_name)
        accounting = ACCOUNTING["monthly"] if monthly else self._terms.accounting
        if kind not in DISK_TYPES:
            raise NotFound(f"NIFCLOUD has no disk type {kind!r}", hint=f"there are: {', '.join(DISK_TYPES)}")

        def send() -> None:
            server = self._birth_server(uid, zone)
            self._calls.create(NewDisk(called, birth(uid), size, kind, server, accounting))

        def find() -> WireDisk | None:
            found = self._find(called)
            if found is not None and (owner_of(found) != uid or (not unborn(found) and found.description != name)):
                raise Conflict(f"NIFCLOUD has a disk {called} already, and it is somebody else's", object_id=called)
            return found

        made = self._wire.create(find, send)
        return self._volume(self._born(made, name=name))

    def _birth_server(self, uid: str, zone: str) -> str:
        """Of the cluster's servers in the zone that run, the one with the fewest disks."""
        own = [one for one in self._instances.all() if (mark := read_mark(one.description)) and mark.uid == uid]
        fit = [one for one in own if one.state == "running" and zone in ("", one.zone) and len(one.disks) < SERVER_DISKS]
        if not fit:
            where = f" in zone {zone}" if zone else ""
            hint = "a disk of NIFCLOUD is made on a server, and no other cluster's is taken for it"
            raise Conflict(f"no server of the cluster runs{where} and has room for a disk", hint=hint)
        return min(fit, key=lambda one: (len(one.disks), one.name)).name

    def _born(self, disk: WireDisk, *, name: str) -> WireDisk:
        """Carries a birth on from wherever it stands. A disk that is born stays as it is."""
        if not unborn(disk):
            return disk

        def settled() -> WireDisk | NotYet:
            found = self._disk(disk.name)
            return found if _state(found) in (DiskState.AVAILABLE, DiskState.IN_USE) else NotYet(f"disk {disk.name} to be made")

        found = self._wire.wait(settled, seconds=_STEP_SECONDS)
        if found.attachments:
            self._take_off(found)
        self._wire.settle(lambda: self._calls.describe(disk.name, name), lambda: self._disk(disk.name).description == name)

        def named() -> WireDisk | NotYet:
            shown = self._disk(disk.name)
            return shown if shown.description == name else NotYet(f"disk {disk.name} to show its name")

        return self._wire.wait(named, seconds=_STEP_SECONDS)

    def _take_off(self, disk: WireDisk) -> None:
        def free() -> bool:
            return not self._disk(disk.name).attachments

        try:
            self._wire.settle(lambda: self._calls.detach(disk.name), free)
        except Conflict:
            if not free():
                raise

        def look() -> bool | NotYet:
            return True if free() else NotYet(f"disk {disk.name} to be detached")

        self._wire.wait(look, seconds=_STEP_SECONDS)

    def extend_volume(self, volume_id: str, size_gb: int) -> None:
        """Returns when the last step was asked for."""
        size = steps(size_gb)
        while (found := self._at_rest(volume_id)).size_gb < size:
            if not found.attachments:
                hint = "a disk of NIFCLOUD grows while a server has it: start a pod that uses it"
                raise Conflict(f"disk {volume_id} is at no server", object_id=volume_id, hint=hint)
            before = found.size_gb
            try:
                self._calls.extend(volume_id)
            except LostReply:
                # a second call would add a second step: the size tells whether there was a first one
                self._wire.wait(lambda least=before: self._grown(volume_id, least), seconds=_STEP_SECONDS)
                continue
            if before + DISK_STEP_GB >= size:
                return
            self._wire.wait(lambda least=before: self._grown(volume_id, least), seconds=_STEP_SECONDS)

    def _grown(self, volume_id: str, size_gb: int) -> bool | NotYet:
        found = self._disk(volume_id)
        return True if found.size_gb > size_gb else NotYet(f"disk {volume_id} to be larger than {size_gb} GiB")

    def _at_rest(self, volume_id: str) -> WireDisk:
        def look() -> WireDisk | NotYet:
            found = self._disk(volume_id)
            return NotYet(f"disk {volume_id} to be at rest") if _state(found).moving else found

        return self._wire.wait(look, seconds=_STEP_SECONDS)

    def change_volume_type(self, volume_id: str, type_name: str) -> None:
        raise Terminal("NIFCLOUD does not change the type of a disk", object_id=volume_id)

    def delete_volume(self, volume_id: str) -> None:
        found = self._find(volume_id)
        if found is None:
            return
        if found.attachments and unborn(found):
            self._take_off(found)
        elif found.attachments:
            servers = ", ".join(one.server for one in found.attachments)
            raise Terminal(f"disk {volume_id} is at server {servers}", object_id=volume_id)
        try:
            self._wire.settle(lambda: self._calls.delete(volume_id), lambda: self._find(volume_id) is None)
        except NoSuchObject:
            return

    def forget_attachment(self, attachment_id: str) -> None:
        volume_id, _, server_id = attachment_id.partition("@")
        found = self._find(volume_id)
        if found is None or not any(one.server_id == server_id for one in found.attachments):
            return
        if any(one.id == server_id for one in self._instances.all()):
            raise Conflict(f"disk {volume_id} is at server {server_id}, which exists", object_id=volume_id)
        self._take_off(found)

    def snapshots(self, *, volume_id: str | None = None, name: str | None = None) -> list[Snapshot]:
        return []

    def snapshot(self, snapshot_id: str) -> Snapshot:
        raise NotFound("NIFCLOUD has no snapshots of disks", object_id=snapshot_id)

    def create_snapshot(self, *, name: str, volume_id: str, metadata: Mapping[str, str]) -> Snapshot:
        raise CapabilityAbsent(self._cloud, Capability.SNAPSHOTS)

    def delete_snapshot(self, snapshot_id: str) -> None:
        """There is none."""

    def types(self) -> list[VolumeType]:
        return [
            VolumeType(f"{name}{end}", f"{name}{end}", multiattach=False) for name in DISK_TYPES for end in ("", " monthly")
        ]

    def zones(self) -> list[str]:
        return sorted(self._instances.zones())

    def faults(self, object_id: str) -> list[str]:
        return []

    def quotas(self) -> list[Quota]:
        return []

    def _volume(self, disk: WireDisk, slots: Mapping[str, str] | None = None) -> Volume:
        """With its accounting in its type, where that is another one than the login's."""
        seen, monthly = volume_of(disk, slots), ACCOUNTING["monthly"]
        other = disk.accounting == monthly != self._terms.accounting
        return replace(seen, type_name=f"{seen.type_name} monthly") if other else seen

    def _find(self, volume_id: str) -> WireDisk | None:
        return next((one for one in self._calls.all() if one.name == volume_id), None)

    def _disk(self, volume_id: str) -> WireDisk:
        found = self._find(volume_id)
        if found is None:
            raise NotFound(f"NIFCLOUD has no disk {volume_id}", object_id=volume_id)
        return found


def steps(size_gb: int) -> int:
    """The size that a disk of at least so many GiB has. Raises SizeRefused."""
    size = max(1, -(-size_gb // DISK_STEP_GB)) * DISK_STEP_GB
    if size > DISK_MOST_GB:
        error = SizeRefused(f"a disk of NIFCLOUD has {DISK_MOST_GB} GiB at most, and {size_gb} are asked for")
        error.most_gb = DISK_MOST_GB
        raise error
    return size


def volume_of(disk: WireDisk, slots: Mapping[str, str] | None = None) -> Volume:
    """``slots``: id of a server → where it sees the disk."""
    uid = owner_of(disk)
    attachments = () if unborn(disk) else disk.attachments
    return Volume(
        id=disk.name,
        name="" if unborn(disk) else disk.description,
        status=disk.status.upper(),
        size_gb=disk.size_gb,
        zone=disk.zone,
        metadata={CLUSTER_TAG: uid} if uid else {},
        attached_server_ids=tuple(one.server_id for one in attachments),
        type_name=disk.type,
        created=disk.created,
        attachments=tuple(
            Attachment(one.server_id, f"{disk.name}@{one.server_id}", (slots or {}).get(one.server_id, ""))
            for one in attachments
        ),
        state=DiskState.CREATING if unborn(disk) else _state(disk),
    )


def _state(disk: WireDisk) -> DiskState:
    state = _STATES.get(disk.status, DiskState.UNKNOWN)
    under_way = {one.status for one in disk.attachments} & {"attaching", "detaching"}
    if state is DiskState.IN_USE and under_way:
        return _STATES[under_way.pop()]
    return state
