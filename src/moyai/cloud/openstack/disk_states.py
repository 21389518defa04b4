"""What Cinder's words about volumes and snapshots mean.

Sources: https://docs.openstack.org/api-ref/block-storage/v3/#volumes-volumes (volume statuses) and
https://docs.openstack.org/api-ref/block-storage/v3/#volume-snapshots-snapshots (snapshot statuses).
"""

from __future__ import annotations

from moyai.cloud.model import DiskState

_STATES = {
    "CREATING": DiskState.CREATING,
    "DOWNLOADING": DiskState.CREATING,
    "RESTORING-BACKUP": DiskState.CREATING,
    "AVAILABLE": DiskState.AVAILABLE,
    "RESERVED": DiskState.ATTACHING,
    "ATTACHING": DiskState.ATTACHING,
    "IN-USE": DiskState.IN_USE,
    "DETACHING": DiskState.DETACHING,
    "EXTENDING": DiskState.EXTENDING,
    "UPLOADING": DiskState.BUSY,
    "BACKING-UP": DiskState.BUSY,
    "MAINTENANCE": DiskState.BUSY,
    "RETYPING": DiskState.BUSY,
    "DELETING": DiskState.DELETING,
    "DELETED": DiskState.DELETING,
    "ERROR": DiskState.FAILED,
}


def state(status: str) -> DiskState:
    """Cinder has a status ERROR_… for each kind of work that may fail on a volume."""
    if status.startswith("ERROR_"):
        return DiskState.DEGRADED
    return _STATES.get(status, DiskState.UNKNOWN)
