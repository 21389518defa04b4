"""Cinder: volumes, snapshots, volume types (``cloud.disks.Disks``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moyai.cloud.capabilities import CapabilityAbsent
from moyai.cloud.model import Quota, Snapshot, Volume, VolumeType
from moyai.cloud.openstack import parse
from moyai.cloud.openstack.session import CloudSession, Params
from moyai.core.errors import MoyaiError, NotFound

#: OpenStack Queens. 3.42: volumes in use grow; 3.50: types decide on multi-attach; 3.27: attachments; 3.5: messages.
_MICROVERSION = "3.50"


class CinderDisks:
    def __init__(self, session: CloudSession) -> None:
        # lists without a microversion: from 3.31 on a filter that this cloud has switched off is an error, before it is ignored
        self._cinder = session.service("block-storage")
        self._newer = session.service("block-storage", microversion=_MICROVERSION)

    def volumes(self, *, metadata: Mapping[str, str] | None = None, name: str | None = None) -> list[Volume]:
        wanted = dict(metadata or {})
        # Cinder reads the filter as a Python literal, and a cloud may have it switched off: so filtered here too
        params: dict[str, str] = {"metadata": repr(wanted)} if wanted else {}
        if name is not None:
            params["name"] = name
        rows = self._cinder.list("/volumes/detail", "volumes", operation="list volumes", params=params)
        found = [parse.volume(row) for row in rows]
        return [
            one
            for one in found
            if all(one.metadata.get(key) == value for key, value in wanted.items()) and name in (None, one.name)
        ]

    def volume(self, volume_id: str) -> Volume:
        answer = self._cinder.get(f"/volumes/{volume_id}", operation="show volume", object_id=volume_id)
        return parse.volume(answer["volume"])

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
        wanted: dict[str, Any] = {"name": name, "size": size_gb, "metadata": dict(metadata)}
        optional = {
            "availability_zone": zone,
            "volume_type": type_name,
            "snapshot_id": snapshot_id,
            "source_volid": source_volume_id,
        }
        wanted |= {key: value for key, value in optional.items() if value}
        made = self._newer.post("/volumes", {"volume": wanted}, operation=f"create volume {name}")["volume"]
        return parse.volume(made)

    def extend_volume(self, volume_id: str, size_gb: int) -> None:
        self._newer.post(
            f"/volumes/{volume_id}/action",
            {"os-extend": {"new_size": size_gb}},
            operation=f"extend volume to {size_gb} GiB",
            object_id=volume_id,
        )

    def change_volume_type(self, volume_id: str, type_name: str) -> None:
        self._newer.post(
            f"/volumes/{volume_id}/action",
            # a migration would copy the whole volume, and the snapshots of a volume forbid it
            {"os-retype": {"new_type": type_name, "migration_policy": "never"}},
            operation=f"change volume type to {type_name}",
            object_id=volume_id,
        )

    def delete_volume(self, volume_id: str) -> None:
        try:
            self._cinder.delete(f"/volumes/{volume_id}", operation="delete volume", object_id=volume_id)
        except NotFound:
            return

    def forget_attachment(self, attachment_id: str) -> None:
        try:
            self._newer.delete(f"/attachments/{attachment_id}", operation="delete volume attachment", object_id=attachment_id)
        except NotFound:
            return

    def snapshots(self, *, volume_id: str | None = None, name: str | None = None) -> list[Snapshot]:
        params = {key: value for key, value in (("volume_id", volume_id), ("name", name)) if value is not None}
        rows = self._cinder.list("/snapshots/detail", "snapshots", operation="list volume snapshots", params=params)
        found = [parse.snapshot(row) for row in rows]
        return [one for one in found if volume_id in (None, one.volume_id) and name in (None, one.name)]

    def snapshot(self, snapshot_id: str) -> Snapshot:
        answer = self._cinder.get(f"/snapshots/{snapshot_id}", operation="show volume snapshot", object_id=snapshot_id)
        return parse.snapshot(answer["snapshot"])

    def create_snapshot(self, *, name: str, volume_id: str, metadata: Mapping[str, str]) -> Snapshot:
        body = {"snapshot": {"name": name, "volume_id": volume_id, "force": True, "metadata": dict(metadata)}}
        # older than 3.66: from there on `force` is refused, since it is always so
        made = self._cinder.post("/snapshots", body, operation=f"create volume snapshot {name}", object_id=volume_id)
        return parse.snapshot(made["snapshot"])

    def delete_snapshot(self, snapshot_id: str) -> None:
        try:
            self._cinder.delete(f"/snapshots/{snapshot_id}", operation="delete volume snapshot", object_id=snapshot_id)
        except NotFound:
            return

    def types(self) -> list[VolumeType]:
        rows = self._cinder.list("/types", "volume_types", operation="list volume types")
        return [parse.volume_type(row) for row in rows]

    def zones(self) -> list[str]:
        rows = self._cinder.list(
            "/os-availability-zone", "availabilityZoneInfo", operation="list availability zones for volumes"
        )
        return sorted(row["zoneName"] for row in rows if row["zoneState"]["available"])

    def faults(self, object_id: str) -> list[str]:
        params: Params = {"resource_uuid": object_id}
        try:
            rows = self._newer.list("/messages", "messages", operation="read messages", params=params)
        except CapabilityAbsent:
            raise
        except MoyaiError:
            # an explanation, no more: what failed is known without it
            return []
        rows = [row for row in rows if row.get("resource_uuid") == object_id]
        rows.sort(key=lambda row: str(row.get("created_at")), reverse=True)
        return [str(row["user_message"]) for row in rows if row.get("user_message")]

    def quotas(self) -> list[Quota]:
        return parse.volume_quotas(self._cinder.get("/limits", operation="read volume quotas"))
