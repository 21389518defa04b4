"""A cloud in memory with Cinder's and Nova's manners: everything takes a few looks, busy volumes refuse, names may be double.

It counts its calls, can be told to die between any two of them, and to fail what is asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from moyai.cloud.model import Attachment, DiskState, Power, Quota, Server, Snapshot, Volume, VolumeType
from moyai.cloud.openstack import disk_states
from moyai.core.errors import Conflict, NotFound, QuotaExceeded, Terminal

START = datetime(2026, 1, 1, tzinfo=UTC)


class Killed(BaseException):
    """The process ends here."""


@dataclass
class CsiCloud:
    """``polls``: how many looks a change takes. ``fail_create``, ``fail_attach``: so many of the next ones come to nothing.

    ``on_change`` is told of each volume's new state: tests on a real kernel make devices of them.
    """

    polls: int = 2
    fail_create: int = 0
    fail_attach: int = 0
    quota: int = 1000
    machine_zones: tuple[str, ...] = ("az1", "az2")
    volume_zones: tuple[str, ...] = ("az1", "az2")
    type_list: tuple[VolumeType, ...] = (
        VolumeType("t1", "files", multiattach=False, zones=()),
        VolumeType("t2", "files-multiattach", multiattach=True, zones=()),
    )
    calls: list[str] = field(default_factory=list[str])
    all: dict[str, Volume] = field(default_factory=dict[str, Volume])
    snaps: dict[str, Snapshot] = field(default_factory=dict[str, Snapshot])
    server_map: dict[str, Server] = field(default_factory=dict[str, Server])
    on_change: Callable[[Volume | None, Volume | None], None] = lambda _before, _after: None
    die_after: int | None = None
    changes: int = 0

    def __post_init__(self) -> None:
        self._lock = threading.RLock()
        self._number = 0
        self._left: dict[str, int] = {}
        self._goal: dict[str, Callable[[], None]] = {}

    # ---- how it dies

    def _begin(self, name: str) -> None:
        if self.die_after is not None and self.changes >= self.die_after:
            raise Killed
        self.calls.append(name)

    def _changed(self) -> None:
        """The cloud has done it; the answer may get lost."""
        self.changes += 1
        if self.die_after is not None and self.changes >= self.die_after:
            raise Killed

    def _id(self) -> str:
        self._number += 1
        return str(UUID(int=(self._number << 96) | (0x4000 << 64) | self._number))

    def _put(self, volume: Volume | None, volume_id: str) -> None:
        before = self.all.get(volume_id)
        if volume is None:
            self.all.pop(volume_id, None)
        else:
            volume = replace(volume, state=disk_states.state(volume.status))
            self.all[volume_id] = volume
        self.on_change(before, volume)

    def _later(self, object_id: str, goal: Callable[[], None]) -> None:
        self._left[object_id], self._goal[object_id] = self.polls, goal

    def _look(self, object_id: str) -> None:
        if object_id in self._left:
            self._left[object_id] -= 1
            if self._left[object_id] <= 0:
                del self._left[object_id]
                self._goal.pop(object_id)()

    def settle(self) -> None:
        """Everything asked for is done now."""
        for object_id in list(self._left):
            self._left.pop(object_id)
            self._goal.pop(object_id)()

    def add_server(self, name: str, zone: str = "az1") -> Server:
        server = Server(self._id(), name, "ACTIVE", zone, "m1.small", power=Power.RUNNING)
        self.server_map[server.id] = server
        return server

    def add_volume(self, name: str, **more: object) -> Volume:
        made = Volume(self._id(), name, "AVAILABLE", 1, zone="az1", type_name="files", created=START)
        self._put(replace(made, **more), made.id)  # pyright: ignore[reportArgumentType]
        return self.all[made.id]

    # ---- volumes

    def volumes(self, *, metadata: Mapping[str, str] | None = None, name: str | None = None) -> list[Volume]:
        with self._lock:
            self._begin("volumes")
            for one in list(self.all):
                self._look(one)
            wanted = dict(metadata or {})
            return [
                one
                for one in self.all.values()
                if all(one.metadata.get(key) == value for key, value in wanted.items()) and name in (None, one.name)
            ]

    def volume(self, volume_id: str) -> Volume:
        with self._lock:
            self._begin("volume")
            self._look(volume_id)
            return self._find(volume_id)

    def _find(self, volume_id: str) -> Volume:
        if volume_id not in self.all:
            raise NotFound("Cinder: Volume could not be found.", object_id=volume_id)
        return self.all[volume_id]

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
        with self._lock:
            self._begin("create_volume")
            if len(self.all) >= self.quota:
                raise QuotaExceeded("Cinder: Maximum number of volumes allowed", hint="raise the project's quota")
            kind = type_name or self.type_list[0].name
            multi = any(one.name == kind and one.multiattach for one in self.type_list)
            made = Volume(
                self._id(),
                name,
                "CREATING",
                size_gb,
                state=DiskState.CREATING,
                zone=zone or self.volume_zones[0],
                metadata=dict(metadata),
                type_name=kind,
                multiattach=multi,
                snapshot_id=snapshot_id,
                source_volume_id=source_volume_id,
                created=START + timedelta(seconds=self._number),
            )
            fails = self.fail_create > 0
            self.fail_create -= fails
            self._put(made, made.id)
            self._later(made.id, lambda: self._status(made.id, "ERROR" if fails else "AVAILABLE"))
            self._changed()
            return made

    def _status(self, volume_id: str, status: str) -> None:
        if found := self.all.get(volume_id):
            self._put(replace(found, status=status), volume_id)

    def extend_volume(self, volume_id: str, size_gb: int) -> None:
        with self._lock:
            self._begin("extend_volume")
            found = self._find(volume_id)
            if found.status not in ("AVAILABLE", "IN-USE") or size_gb <= found.size_gb:
                raise Terminal(f"Cinder: Invalid volume: status {found.status}, size {found.size_gb}")
            self._put(replace(found, status="EXTENDING"), volume_id)
            self._later(volume_id, lambda: self._put(replace(found, size_gb=size_gb), volume_id))
            self._changed()

    def delete_volume(self, volume_id: str) -> None:
        with self._lock:
            self._begin("delete_volume")
            found = self.all.get(volume_id)
            if found is None:
                return
            if not found.status.startswith(("AVAILABLE", "ERROR")) or any(
                one.volume_id == volume_id for one in self.snaps.values()
            ):
                raise Terminal("Cinder: Invalid volume: Volume status must be available or error and must not have snapshots")
            self._put(replace(found, status="DELETING"), volume_id)
            self._later(volume_id, lambda: self._put(None, volume_id))
            self._changed()

    def forget_attachment(self, attachment_id: str) -> None:
        with self._lock:
            self._begin("forget_attachment")
            for volume in list(self.all.values()):
                for one in volume.attachments:
                    if one.id == attachment_id:
                        if one.server_id in self.server_map:
                            raise Conflict("Cinder: Detach volume from instance using the Compute API")
                        self._take(volume.id, one.server_id)
            self._changed()

    def snapshots(self, *, volume_id: str | None = None, name: str | None = None) -> list[Snapshot]:
        with self._lock:
            self._begin("snapshots")
            for one in list(self.snaps):
                self._look(one)
            return [one for one in self.snaps.values() if volume_id in (None, one.volume_id) and name in (None, one.name)]

    def snapshot(self, snapshot_id: str) -> Snapshot:
        with self._lock:
            self._begin("snapshot")
            self._look(snapshot_id)
            if snapshot_id not in self.snaps:
                raise NotFound("Cinder: Snapshot could not be found.", object_id=snapshot_id)
            return self.snaps[snapshot_id]

    def create_snapshot(self, *, name: str, volume_id: str, metadata: Mapping[str, str]) -> Snapshot:
        with self._lock:
            self._begin("create_snapshot")
            source = self._find(volume_id)
            created = START + timedelta(seconds=self._number)
            made = Snapshot(
                self._id(), name, "CREATING", volume_id, source.size_gb, created, dict(metadata), DiskState.CREATING
            )
            self.snaps[made.id] = made

            def ready() -> None:
                self.snaps[made.id] = replace(made, status="AVAILABLE", state=DiskState.AVAILABLE)

            self._later(made.id, ready)
            self._changed()
            return made

    def delete_snapshot(self, snapshot_id: str) -> None:
        with self._lock:
            self._begin("delete_snapshot")
            found = self.snaps.get(snapshot_id)
            if found is None:
                return
            self.snaps[snapshot_id] = replace(found, status="DELETING", state=DiskState.DELETING)
            self._later(snapshot_id, lambda: self.snaps.pop(snapshot_id, None) and None)
            self._changed()

    def types(self) -> list[VolumeType]:
        self._begin("types")
        return list(self.type_list)

    def faults(self, object_id: str) -> list[str]:
        self._begin("faults")
        return ["schedule allocate volume: Could not find any available weighted backend."]

    def quotas(self) -> list[Quota]:
        self._begin("quotas")
        return [
            Quota("volumes", self.quota, len(self.all)),
            Quota("gigabytes", 1000, sum(v.size_gb for v in self.all.values())),
        ]

    # ---- compute

    def server(self, server_id: str) -> Server:
        with self._lock:
            self._begin("server")
            if server_id not in self.server_map:
                raise NotFound("Nova: Instance could not be found.", object_id=server_id)
            has = tuple(one.id for one in self.all.values() if server_id in one.attached_server_ids)
            return replace(self.server_map[server_id], volume_ids=has)

    def servers(self, *, tag: str | None = None) -> list[Server]:
        self._begin("servers")
        return list(self.server_map.values())

    def attach_volume(self, server_id: str, volume_id: str) -> None:
        with self._lock:
            self._begin("attach_volume")
            self.server(server_id)
            found = self._find(volume_id)
            if not (found.status == "AVAILABLE" or (found.multiattach and found.status == "IN-USE")):
                raise Terminal(f"Nova: Invalid volume: status must be available, current {found.status}")
            if server_id in found.attached_server_ids:
                raise Terminal("Nova: Invalid volume: already attached")
            fails = self.fail_attach > 0
            self.fail_attach -= fails
            was = found.status
            self._put(replace(found, status="RESERVED" if was == "AVAILABLE" else was), volume_id)
            self._later(volume_id, lambda: self._status(volume_id, was) if fails else self._give(volume_id, server_id))
            self._changed()

    def _give(self, volume_id: str, server_id: str) -> None:
        found = self.all[volume_id]
        ours = Attachment(server_id, self._id(), "/dev/vdb")
        self._put(
            replace(
                found,
                status="IN-USE",
                attachments=(*found.attachments, ours),
                attached_server_ids=(*found.attached_server_ids, server_id),
            ),
            volume_id,
        )

    def _take(self, volume_id: str, server_id: str) -> None:
        found = self.all[volume_id]
        rest = tuple(one for one in found.attachments if one.server_id != server_id)
        status = "IN-USE" if rest else "AVAILABLE"
        ids = tuple(one.server_id for one in rest)
        self._put(replace(found, status=status, attachments=rest, attached_server_ids=ids), volume_id)

    def detach_volume(self, server_id: str, volume_id: str) -> None:
        with self._lock:
            self._begin("detach_volume")
            found = self.all.get(volume_id)
            if server_id not in self.server_map or found is None or server_id not in found.attached_server_ids:
                return
            if found.status != "IN-USE":
                raise Conflict(f"Nova: Invalid volume: {found.status}")
            self._put(replace(found, status="DETACHING"), volume_id)
            self._later(volume_id, lambda: self._take(volume_id, server_id))
            self._changed()


def as_cloud(raw: CsiCloud) -> Any:
    return SimpleNamespace(machines=Zoned(raw, raw.machine_zones), disks=Zoned(raw, raw.volume_zones))


class Zoned:
    """One of the cloud's two services: each has zones of its own."""

    def __init__(self, cloud: CsiCloud, zones: tuple[str, ...]) -> None:
        self._cloud, self._zones = cloud, zones

    def __getattr__(self, name: str) -> object:
        return getattr(self._cloud, name)

    def zones(self) -> list[str]:
        self._cloud.calls.append("zones")
        return list(self._zones)
