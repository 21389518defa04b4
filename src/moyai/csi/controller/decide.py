"""What to do with a volume or snapshot, given what the cloud says of it. Pure: no calls, no clock.

Every operation is: look, decide, do one step, wait. After a crash each function is asked again with the state of that moment,
so none of them knows what was done before.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

from moyai.cloud.model import DiskState, Server, Snapshot, Volume
from moyai.core.keys import Key, Kind
from moyai.csi.errors import Refused
from moyai.csi.volume_sizes import Range

#: It has its content.
_USABLE = frozenset(
    {
        DiskState.AVAILABLE,
        DiskState.IN_USE,
        DiskState.ATTACHING,
        DiskState.DETACHING,
        DiskState.EXTENDING,
        DiskState.BUSY,
    }
)
#: It becomes something else by itself, soon.
_TRANSIENT = frozenset({DiskState.CREATING, DiskState.ATTACHING, DiskState.DETACHING, DiskState.BUSY})


def oldest(found: Sequence[Volume]) -> Volume | None:
    """The oldest of several volumes of one name, so that every call chooses the same one. Volumes in deletion do not count."""
    alive = [one for one in found if one.state is not DiskState.DELETING]
    return min(alive, key=lambda one: (one.created, one.id), default=None)


def adopt(volume: Volume, *, size: Range, type_name: str, snapshot_id: str, source_volume_id: str) -> None:
    """Raise ALREADY_EXISTS if the volume of this name differs from the requested volume."""
    why = ""
    if not size.holds(volume.size_gb):
        why = f"{volume.size_gb} GiB"
    elif type_name and volume.type_name and type_name != volume.type_name:
        why = f"the type {volume.type_name}"
    elif (volume.snapshot_id, volume.source_volume_id) != (snapshot_id, source_volume_id):
        why = "another source"
    if why:
        raise Refused("ALREADY_EXISTS", f"there is a volume {volume.name} ({volume.id}) already, with {why}")


def created(volume: Volume | None) -> Volume | None:
    """For waiting: the volume once it can be used. INTERNAL where it came to nothing."""
    if volume is None:
        raise Refused("ABORTED", "the volume was deleted while it was made")
    if volume.state in _USABLE:
        return volume
    if volume.state is DiskState.CREATING:
        return None
    raise Refused("INTERNAL", f"volume {volume.id} is in {volume.status}")


Attach = Literal["attach", "wait", "done"]


def attach(volume: Volume, server: Server, *, several: bool, attaching: Collection[str], limit: int) -> Attach:
    """FAILED_PRECONDITION when another machine has it, RESOURCE_EXHAUSTED when the machine has its ``limit``, INTERNAL when the
    volume is broken. ``several``: it is to be used by several machines at once. ``attaching``: volumes that are being attached
    to the machine and that the cloud may not list there yet.
    """
    step = _next(volume, server.id, several=several and volume.multiattach)
    if step == "attach" and len({*server.volume_ids, *attaching} - {volume.id}) >= limit:
        raise Refused("RESOURCE_EXHAUSTED", f"machine {server.name} has its {limit} volumes already")
    return step


def _next(volume: Volume, server_id: str, *, several: bool) -> Attach:
    if server_id in volume.attached_server_ids:
        return "wait" if volume.state.moving else "done"
    if volume.state in _TRANSIENT:
        return "wait"
    others = [one for one in volume.attached_server_ids if one != server_id]
    if others and not several:
        raise Refused("FAILED_PRECONDITION", f"volume {volume.id} is attached to machine {others[0]}")
    if volume.state is DiskState.AVAILABLE or (several and volume.state is DiskState.IN_USE):
        return "attach"
    if volume.state is DiskState.EXTENDING:
        return "wait"
    raise _unfit(volume)


def _unfit(volume: Volume) -> Refused:
    return Refused("INTERNAL", f"volume {volume.id} cannot be attached: it is in {volume.status}")


def attached(volume: Volume | None, server_id: str) -> Literal["done", "failed"] | None:
    """For waiting, after the cloud was asked to attach."""
    if volume is None:
        raise Refused("NOT_FOUND", "the volume is gone")
    if volume.state.moving or volume.state is DiskState.CREATING:
        return None
    if server_id in volume.attached_server_ids:
        return "done"
    if volume.state is DiskState.BUSY:
        return None
    if volume.multiattach and volume.state is DiskState.IN_USE:
        # the others' use hides ours that is coming
        return None
    if volume.state is DiskState.AVAILABLE:
        return "failed"
    raise _unfit(volume)


Detach = Literal["detach", "wait", "done"]


def detach(volume: Volume | None, server_id: str) -> Detach:
    """``server_id`` empty: from every machine."""
    if volume is None:
        return "done"
    if volume.state.moving:
        return "wait"
    has = server_id in volume.attached_server_ids if server_id else bool(volume.attached_server_ids)
    return "detach" if has else "done"


def settled(volume: Volume | None) -> Volume | Literal["gone"] | None:
    """For waiting: the volume once it changes hands no more."""
    if volume is None:
        return "gone"
    return None if volume.state in _TRANSIENT else volume


def extended(volume: Volume | None, size_gb: int) -> Volume | None:
    """For waiting, after the cloud was asked to extend."""
    if volume is None:
        raise Refused("NOT_FOUND", "the volume is gone")
    if volume.state.broken:
        raise Refused("INTERNAL", f"volume {volume.id} is in {volume.status}")
    if volume.state is DiskState.EXTENDING:
        return None
    if volume.size_gb >= size_gb:
        return volume
    # the cloud has given it back ungrown
    raise Refused("INTERNAL", f"the cloud did not extend volume {volume.id} beyond {volume.size_gb} GiB")


def retyped(volume: Volume | None, type_name: str) -> Volume | None:
    """For waiting, after the cloud was asked to change the type."""
    if volume is None:
        raise Refused("NOT_FOUND", "the volume is gone")
    if volume.state.broken:
        raise Refused("INTERNAL", f"volume {volume.id} is in {volume.status}")
    if volume.state is DiskState.BUSY or volume.state.moving:
        return None
    if volume.type_name == type_name:
        return volume
    raise Refused("INTERNAL", f"the cloud left volume {volume.id} with the type {volume.type_name or '(none)'}")


def deleted(thing: Volume | Snapshot | None) -> Literal["gone"] | None:
    """For waiting, after the cloud was asked to delete."""
    if thing is None:
        return "gone"
    if thing.state.broken:
        key = Key(Kind.VOLUME if isinstance(thing, Volume) else Kind.SNAPSHOT, thing.id)
        raise Refused("INTERNAL", f"the cloud could not delete {key}: it is in {thing.status}")
    return None


def deletion_refusal(volume: Volume, snapshots: Collection[Snapshot]) -> Refused | None:
    """Why the volume cannot be deleted now, in a sentence that says what would help."""
    if volume.attached_server_ids:
        return Refused(
            "FAILED_PRECONDITION", f"volume {volume.id} is still attached to machine {volume.attached_server_ids[0]}"
        )
    if snapshots:
        names = ", ".join(sorted(one.name or one.id for one in snapshots)[:5])
        more = f" and {len(snapshots) - 5} more" if len(snapshots) > 5 else ""
        count = "a snapshot depends" if len(snapshots) == 1 else f"{len(snapshots)} snapshots depend"
        return Refused(
            "FAILED_PRECONDITION",
            f"volume {volume.name or volume.id} cannot be deleted while {count} on it ({names}{more}): delete the "
            "VolumeSnapshots first, and it goes by itself",
        )
    return None


def snapshot_ready(snapshot: Snapshot | None) -> Snapshot | None:
    """For waiting: the snapshot once volumes can be made from it."""
    if snapshot is None:
        raise Refused("ABORTED", "the snapshot was deleted while it was made")
    if snapshot.state is DiskState.AVAILABLE:
        return snapshot
    if snapshot.state.broken:
        raise Refused("INTERNAL", f"snapshot {snapshot.id} is in {snapshot.status}")
    return None
