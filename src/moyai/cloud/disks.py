"""What moyai asks of a cloud's volumes. A capability: see ``cloud.capabilities``, also for what holds for every call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from moyai.cloud.model import Quota, Snapshot, Volume, VolumeType


class Disks(Protocol):
    """Volumes, their attachment excepted, and snapshots of them."""

    def volumes(self, *, metadata: Mapping[str, str] | None = None, name: str | None = None) -> list[Volume]:
        """Only those that have all of ``metadata``, and that are called ``name``."""
        ...

    def volume(self, volume_id: str) -> Volume: ...
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
        """Ask for a volume, empty or with the content of one snapshot or volume; returns while it is still CREATING."""
        ...

    def extend_volume(self, volume_id: str, size_gb: int) -> None:
        """Ask for it, also while the volume is in use; returns before it is done."""
        ...

    def change_volume_type(self, volume_id: str, type_name: str) -> None:
        """Ask for another type of a volume where it is; returns before it is done. Terminal where the type needs the volume's
        content somewhere else, or does not fit a volume in use."""
        ...

    def delete_volume(self, volume_id: str) -> None:
        """Ask for it; returns before it is gone."""
        ...

    def forget_attachment(self, attachment_id: str) -> None:
        """Free a volume of a server that does not exist any more; Conflict when it does."""
        ...

    def snapshots(self, *, volume_id: str | None = None, name: str | None = None) -> list[Snapshot]: ...
    def snapshot(self, snapshot_id: str) -> Snapshot: ...
    def create_snapshot(self, *, name: str, volume_id: str, metadata: Mapping[str, str]) -> Snapshot:
        """Ask for a snapshot, also of a volume in use; returns while it is still CREATING."""
        ...

    def delete_snapshot(self, snapshot_id: str) -> None:
        """Ask for it; returns before it is gone."""
        ...

    def types(self) -> list[VolumeType]: ...
    def zones(self) -> list[str]:
        """Availability zones that can take volumes now."""
        ...

    def faults(self, object_id: str) -> list[str]:
        """What the cloud says went wrong with a volume or snapshot, newest first; empty where it keeps no such messages."""
        ...

    def quotas(self) -> list[Quota]: ...
