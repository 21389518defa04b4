"""How a volume is to be used: as a file system or a raw device, by one node or several, to read or to write. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from moyai.csi.driver_names import EXT4, FILE_SYSTEMS
from moyai.csi.errors import Refused

Mode = Literal[
    "UNKNOWN",
    "SINGLE_NODE_WRITER",
    "SINGLE_NODE_READER_ONLY",
    "MULTI_NODE_READER_ONLY",
    "MULTI_NODE_SINGLE_WRITER",
    "MULTI_NODE_MULTI_WRITER",
    "SINGLE_NODE_SINGLE_WRITER",
    "SINGLE_NODE_MULTI_WRITER",
]
#: Those in which several nodes use a volume at once, and those in which nobody writes.
_SEVERAL: frozenset[Mode] = frozenset({"MULTI_NODE_READER_ONLY", "MULTI_NODE_SINGLE_WRITER", "MULTI_NODE_MULTI_WRITER"})
_READ_ONLY: frozenset[Mode] = frozenset({"SINGLE_NODE_READER_ONLY", "MULTI_NODE_READER_ONLY"})


@dataclass(frozen=True)
class VolumeAccess:
    """One way of use. ``fs_type`` and ``flags`` are for file systems only; with an empty ``fs_type`` the driver chooses."""

    mode: Mode
    block: bool = False
    fs_type: str = ""
    flags: tuple[str, ...] = ()

    @property
    def several(self) -> bool:
        """On several nodes at once."""
        return self.mode in _SEVERAL

    @property
    def read_only(self) -> bool:
        return self.mode in _READ_ONLY

    @property
    def file_system(self) -> str:
        return self.fs_type or EXT4


def wrong(access: VolumeAccess) -> str:
    """Why a volume of this driver cannot be used in this way; empty when it can."""
    if access.mode == "UNKNOWN":
        return "no access mode given"
    if not access.block and access.file_system not in FILE_SYSTEMS:
        return f"the file system {access.fs_type!r} is none of {', '.join(FILE_SYSTEMS)}"
    if access.several and not access.block and not access.read_only:
        return (
            f"{access.file_system} belongs to one node at a time: for a volume that several nodes write, ask for volumeMode "
            "Block, or for access mode ReadWriteOnce"
        )
    return ""


def check(accesses: tuple[VolumeAccess, ...]) -> None:
    """INVALID_ARGUMENT where one of them is missing or cannot be."""
    if not accesses:
        raise Refused("INVALID_ARGUMENT", "no volume capability given")
    for access in accesses:
        if why := wrong(access):
            raise Refused("INVALID_ARGUMENT", why)
