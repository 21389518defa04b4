"""Volumes, snapshots and volume types, as Cinder has them.

A volume in the wrong state is a bad request to Cinder, not a conflict.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from moyai.cloud.memory.session import MemoryApi, api
from moyai.cloud.memory.store import DISK_QUOTAS
from moyai.cloud.model import Attachment, DiskState, Quota, Snapshot, Volume, VolumeType
from moyai.core.errors import Conflict, NotFound, Terminal


class MemoryDisks(MemoryApi):
    service = "disks"

    @api
    def volumes(self, *, metadata: Mapping[str, str] | None = None, name: str | None = None) -> list[Volume]:
        volumes, wanted = self._store.volumes, dict(metadata or {})
        if name is not None:
            found = volumes.by("name", name)
        elif wanted:
            found = volumes.by("metadata", "=".join(next(iter(wanted.items()))))
        else:
            found = list(volumes)
        return [one for one in found if all(one.metadata.get(key) == value for key, value in wanted.items())]

    @api
    def volume(self, volume_id: str) -> Volume:
        return self._find(self._store.volumes, volume_id)

    @api
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
        store = self._store
        if zone and zone not in store.volume_zones:
            raise self._refused(Terminal, f"Availability zone '{zone}' is invalid")
        types = {one.name: one for one in store.volume_types}
        kind = types.get(type_name or store.volume_types[0].name)
        if kind is None:
            raise self._refused(NotFound, f"Volume type with name {type_name} could not be found.")
        least = 1
        if snapshot_id:
            least = self._find(store.snapshots, snapshot_id).size_gb
        if source_volume_id:
            least = self._find(store.volumes, source_volume_id).size_gb
        if size_gb < least:
            words = f"Invalid volume size provided for create request: {size_gb} is less than the source's {least}"
            raise self._refused(Terminal, words)
        store.take("volumes")
        store.take("gigabytes", size_gb)
        made = Volume(
            store.new_id(),
            name,
            "",
            size_gb,
            zone=zone or store.volume_zones[0],
            metadata=dict(metadata),
            type_name=kind.name,
            multiattach=bool(kind.multiattach),
            snapshot_id=snapshot_id,
            source_volume_id=source_volume_id,
            created=store.clock.now(),
        )
        made = disk_at(made, DiskState.CREATING)
        why = store.faults.breakage("disks.create_volume", name)
        with self._change():
            store.volumes.put(made)
            store.later(store.delays.volume, lambda: self._made(made.id, why))
        return made

    def _made(self, volume_id: str, why: str) -> None:
        volume = self._store.volumes.get(volume_id)
        if volume is None or volume.state is not DiskState.CREATING:
            return
        if why:
            self._store.messages.setdefault(volume_id, []).insert(0, why)
        self._store.volumes.put(disk_at(volume, DiskState.FAILED if why else DiskState.AVAILABLE))

    @api
    def extend_volume(self, volume_id: str, size_gb: int) -> None:
        store = self._store
        volume: Volume = self._find(store.volumes, volume_id)
        if volume.state not in (DiskState.AVAILABLE, DiskState.IN_USE) or size_gb <= volume.size_gb:
            words = f"Invalid volume: status {volume.status}, size {volume.size_gb}"
            raise self._refused(Terminal, words, object_id=volume_id)
        store.take("gigabytes", size_gb - volume.size_gb)
        with self._change():
            store.volumes.put(disk_at(volume, DiskState.EXTENDING))
            store.later(store.delays.volume, lambda: self._extended(volume_id, size_gb))

    def _extended(self, volume_id: str, size_gb: int) -> None:
        volume = self._store.volumes.get(volume_id)
        if volume is not None and volume.state is DiskState.EXTENDING:
            state = DiskState.IN_USE if volume.attachments else DiskState.AVAILABLE
            self._store.volumes.put(replace(disk_at(volume, state), size_gb=size_gb))

    @api
    def change_volume_type(self, volume_id: str, type_name: str) -> None:
        store = self._store
        volume: Volume = self._find(store.volumes, volume_id)
        kind = {one.name: one for one in store.volume_types}.get(type_name)
        if kind is None:
            raise self._refused(Terminal, f"Invalid volume_type passed: {type_name}.", object_id=volume_id)
        if volume.type_name == type_name or volume.state not in (DiskState.AVAILABLE, DiskState.IN_USE):
            raise self._refused(
                Terminal, f"Retype needs volume to be in available or in-use state: {volume.status}", object_id=volume_id
            )
        if volume.multiattach != bool(kind.multiattach) and volume.state is not DiskState.AVAILABLE:
            words = "Invalid volume_type passed, retypes affecting multiattach are only allowed on available volumes"
            raise self._refused(Terminal, words, object_id=volume_id)
        why = store.faults.breakage("disks.change_volume_type", volume.name)
        with self._change():
            store.volumes.put(disk_at(volume, DiskState.BUSY))
            store.later(
                store.delays.volume, lambda: self._of_type(volume_id, type_name, multiattach=bool(kind.multiattach), why=why)
            )

    def _of_type(self, volume_id: str, type_name: str, *, multiattach: bool, why: str) -> None:
        volume = self._store.volumes.get(volume_id)
        if volume is not None and volume.state is DiskState.BUSY:
            back = disk_at(volume, DiskState.IN_USE if volume.attachments else DiskState.AVAILABLE)
            if why:
                self._store.messages.setdefault(volume_id, []).insert(0, why)
            self._store.volumes.put(back if why else replace(back, type_name=type_name, multiattach=multiattach))

    @api
    def delete_volume(self, volume_id: str) -> None:
        store = self._store
        volume = store.volumes.get(volume_id)
        if volume is None:
            return
        if not (volume.state is DiskState.AVAILABLE or volume.state.broken) or store.snapshots.count("volume", volume_id):
            words = f"Invalid volume: it is {volume.status}; it must be available or error and must not have snapshots."
            raise self._refused(Terminal, words, object_id=volume_id)
        with self._change():
            store.volumes.put(disk_at(volume, DiskState.DELETING))
            store.later(store.delays.volume, lambda: store.volumes.drop(volume_id) and None)

    @api
    def forget_attachment(self, attachment_id: str) -> None:
        store = self._store
        for volume in store.volumes.by("attachment", attachment_id):
            server_id = next(one.server_id for one in volume.attachments if one.id == attachment_id)
            if server_id in store.servers:
                raise self._refused(Conflict, "Detach volume from instance using the Compute API", object_id=volume.id)
            with self._change():
                store.volumes.put(detached(volume, server_id))

    @api
    def snapshots(self, *, volume_id: str | None = None, name: str | None = None) -> list[Snapshot]:
        snapshots = self._store.snapshots
        if volume_id is not None:
            return [one for one in snapshots.by("volume", volume_id) if name in (None, one.name)]
        return list(snapshots) if name is None else snapshots.by("name", name)

    @api
    def snapshot(self, snapshot_id: str) -> Snapshot:
        return self._find(self._store.snapshots, snapshot_id)

    @api
    def create_snapshot(self, *, name: str, volume_id: str, metadata: Mapping[str, str]) -> Snapshot:
        store = self._store
        source: Volume = self._find(store.volumes, volume_id)
        if source.state not in (DiskState.AVAILABLE, DiskState.IN_USE):
            raise self._refused(Terminal, f"Invalid volume: status must be available or in-use, it is {source.status}")
        store.take("snapshots")
        made = Snapshot(store.new_id(), name, "", volume_id, source.size_gb, store.clock.now(), dict(metadata))
        made = _snapshot_at(made, DiskState.CREATING)
        why = store.faults.breakage("disks.create_snapshot", name)
        with self._change():
            store.snapshots.put(made)
            store.later(store.delays.snapshot, lambda: self._taken(made.id, why))
        return made

    def _taken(self, snapshot_id: str, why: str) -> None:
        snapshot = self._store.snapshots.get(snapshot_id)
        if snapshot is None or snapshot.state is not DiskState.CREATING:
            return
        if why:
            self._store.messages.setdefault(snapshot_id, []).insert(0, why)
        self._store.snapshots.put(_snapshot_at(snapshot, DiskState.FAILED if why else DiskState.AVAILABLE))

    @api
    def delete_snapshot(self, snapshot_id: str) -> None:
        store = self._store
        snapshot = store.snapshots.get(snapshot_id)
        if snapshot is None or snapshot.state is DiskState.DELETING:
            return
        with self._change():
            store.snapshots.put(_snapshot_at(snapshot, DiskState.DELETING))
            store.later(store.delays.snapshot, lambda: store.snapshots.drop(snapshot_id) and None)

    @api
    def types(self) -> list[VolumeType]:
        return list(self._store.volume_types)

    @api
    def zones(self) -> list[str]:
        return sorted(self._store.volume_zones)

    @api
    def faults(self, object_id: str) -> list[str]:
        return list(self._store.messages.get(object_id, ()))

    @api
    def quotas(self) -> list[Quota]:
        return [
            Quota(name, self._store.limits.get(name, -1), self._store.used[name], kind) for name, kind in DISK_QUOTAS.items()
        ]


def attached(volume: Volume, server_id: str, *, attachment_id: str, device: str = "/dev/vdb") -> Volume:
    """The volume at one more server."""
    attachments = (*volume.attachments, Attachment(server_id, attachment_id, device))
    return _with(volume, attachments)


def detached(volume: Volume, server_id: str) -> Volume:
    """The volume without that server."""
    return _with(volume, tuple(one for one in volume.attachments if one.server_id != server_id))


def _with(volume: Volume, attachments: tuple[Attachment, ...]) -> Volume:
    return replace(
        disk_at(volume, DiskState.IN_USE if attachments else DiskState.AVAILABLE),
        attachments=attachments,
        attached_server_ids=tuple(one.server_id for one in attachments),
    )


def disk_at(volume: Volume, state: DiskState) -> Volume:
    return replace(volume, state=state, status=state.value)


def _snapshot_at(snapshot: Snapshot, state: DiskState) -> Snapshot:
    return replace(snapshot, state=state, status=state.value)
