"""The controller's work on snapshots: make, delete, find. What holds for volumes (see there) holds here too."""

from __future__ import annotations

from collections.abc import Mapping

from moyai.cloud.model import DiskState, Snapshot
from moyai.core.errors import NotFound
from moyai.csi.controller import decide
from moyai.csi.controller.cloud_view import CloudView
from moyai.csi.controller.volumes import PATIENCE
from moyai.csi.errors import Refused
from moyai.csi.grpc.serial import Serial


class SnapshotWork:
    def __init__(self, cloud: CloudView, *, patience: float = PATIENCE) -> None:
        self._cloud, self._patience = cloud, patience
        self.serial = Serial()

    async def create(self, name: str, volume_id: str, *, metadata: Mapping[str, str]) -> Snapshot:
        """The snapshot, ready or still CREATING. The caller asks again for a snapshot in CREATING."""
        return await self.serial.run(f"name/{name}", lambda: self._create(name, volume_id, metadata=metadata))

    async def _create(self, name: str, volume_id: str, *, metadata: Mapping[str, str]) -> Snapshot:
        listed = await self._cloud.all_snapshots()
        own = [
            one
            for one in listed
            if one.name == name and self._cloud.is_own(one.metadata) and one.state is not DiskState.DELETING
        ]
        found = min(own, key=lambda one: (one.created, one.id), default=None)
        if found and found.volume_id != volume_id:
            raise Refused("ALREADY_EXISTS", f"there is a snapshot {name} ({found.id}) already, of volume {found.volume_id}")
        if found and found.state.broken:
            await self._remove(found.id)
            found = None
        if found is None:
            try:
                found = await self._cloud.call(
                    self._cloud.disks.create_snapshot,
                    name=name,
                    volume_id=volume_id,
                    metadata={**metadata, **self._cloud.mark},
                )
            except NotFound as error:
                raise Refused("NOT_FOUND", f"volume {volume_id} is not there: {error}") from error
        if found.state is DiskState.AVAILABLE:
            return found
        try:
            return await self._cloud.snapshot_poller.until(
                found.id, decide.snapshot_ready, within=self._patience, what=f"snapshot {name}"
            )
        except Refused as error:
            if error.code == "DEADLINE_EXCEEDED":
                # it was taken, so its content is settled; only its copying takes long
                return found
            raise

    async def delete(self, snapshot_id: str) -> None:
        await self.serial.run(snapshot_id, lambda: self._delete(snapshot_id))

    async def _delete(self, snapshot_id: str) -> None:
        snapshot = await self.find(snapshot_id)
        if snapshot is None:
            return
        if self._cloud.is_others(snapshot.metadata):
            raise Refused("FAILED_PRECONDITION", f"snapshot {snapshot_id} belongs to another cluster and is not deleted")
        if snapshot.state is DiskState.CREATING:
            raise Refused("ABORTED", f"snapshot {snapshot_id} is still being made")
        await self._remove(snapshot_id, asked=snapshot.state is DiskState.DELETING)

    async def _remove(self, snapshot_id: str, *, asked: bool = False) -> None:
        if not asked:
            await self._cloud.call(self._cloud.disks.delete_snapshot, snapshot_id)
        await self._cloud.snapshot_poller.until(
            snapshot_id, decide.deleted, within=self._patience, what=f"snapshot {snapshot_id} to go"
        )

    async def find(self, snapshot_id: str) -> Snapshot | None:
        try:
            return await self._cloud.call(self._cloud.disks.snapshot, snapshot_id)
        except NotFound:
            return None

    async def list(self, *, source_volume_id: str = "") -> list[Snapshot]:
        listed = await self._cloud.all_snapshots()
        return [one for one in listed if source_volume_id in ("", one.volume_id)]
