"""What additional disks are called, and whose they are.

The vendor's CSI driver knows its disks by the description, which is the name of the PersistentVolume and fills all 40
characters. So the owner stands in the disk's own name: ``moyai``, the cluster's UID, and a digest of both UID and
description. A disk is a cluster's where name and description fit each other.

A disk is born attached to a server. Until it was taken off there, its description is not its name but ``birth``: so the next
run knows a disk that nobody has used yet from one that is in use. Pure.
"""

from __future__ import annotations

import hashlib
import re

from moyai.cloud.nifcloud.disk_calls import WireDisk
from moyai.cloud.nifcloud.marks import DESCRIPTION_LENGTH
from moyai.core.errors import UsageError

_FORM = re.compile(r"moyai([0-9a-f]{10})[0-9a-f]{17}")
_UID = re.compile(r"[0-9a-f]{10}")


def disk_name(uid: str, name: str) -> str:
    """The disk's name in the cloud (32 letters and digits). Raises UsageError for what does not fit."""
    if not _UID.fullmatch(uid):
        raise UsageError(f"a disk of NIFCLOUD needs the UID of its cluster, and {uid!r} is none", hint="10 hexadecimal digits")
    if len(name) > DESCRIPTION_LENGTH:
        raise UsageError(
            f"the name {name!r} is too long for NIFCLOUD", hint=f"a disk's may have {DESCRIPTION_LENGTH} characters"
        )
    return f"moyai{uid}{hashlib.sha256(f'{uid} {name}'.encode()).hexdigest()[:17]}"


def birth(uid: str) -> str:
    """The description of a disk that is being born."""
    return f"moyai:{uid},birth"


def unborn(disk: WireDisk) -> bool:
    found = _FORM.fullmatch(disk.name)
    return found is not None and disk.description == birth(found[1])


def owner_of(disk: WireDisk) -> str:
    """The UID of the cluster that made the disk; empty: none of moyai's."""
    found = _FORM.fullmatch(disk.name)
    if found is None:
        return ""
    fits = unborn(disk) or (len(disk.description) <= DESCRIPTION_LENGTH and disk_name(found[1], disk.description) == disk.name)
    return found[1] if fits else ""
