"""File systems on block devices: recognising the content and the state of the journal; creating, checking, growing ext4, XFS.

Nothing here is done twice by being called twice, and nothing is ever forced: the tools' own refusals stand.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import struct

from moyai.linux.process import ProcessError, run, stream

EXT4, XFS = "ext4", "xfs"
_BLKGETSIZE64 = 0x80081272
_PIECE = 1 << 20
#: What a file system may leave of its device without being meant to grow.
_SLACK = 16 << 20
_LONG = 600.0
#: Of ext4's superblock: where it begins, where the features stand without which nobody may mount, and "the journal is in use".
_SUPERBLOCK, _SUPERBLOCK_BYTES, _INCOMPATIBLE, _NEEDS_RECOVERY = 1024, 1024, 0x60, 0x4
_BLKROGET = 0x125E
_REFUSED = re.compile(r"not permitted|permission denied", re.IGNORECASE)


class DamagedError(Exception):
    """A check found what it may not repair by itself."""


class NotPermittedError(Exception):
    """The kernel refuses this process to grow a mounted file system (ext4 without CAP_SYS_RESOURCE)."""


def content(device: str) -> str:
    """What libblkid knows the device's content as (``ext4``, ``xfs``, ``crypto_LUKS``, ``dos partitions`` …), empty: nothing.

    Raises ProcessError when the device cannot be read or holds the marks of several things.
    """
    done = run(["blkid", "-p", "-o", "export", "-s", "TYPE", "-s", "PTTYPE", device], timeout=30, check=False)
    if done.returncode == 2 and not done.stderr.strip():
        # 2 means "nothing found" or "cannot be read": reading distinguishes the two
        with open(device, "rb") as file:  # noqa: PTH123
            file.read(512)
        return ""
    if done.returncode:
        raise ProcessError(
            done.argv, f"ended with {done.returncode}", output=done.stderr or done.stdout or "ambivalent content"
        )
    values = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    if kind := values.get("TYPE"):
        return kind
    return f"{values['PTTYPE']} partitions" if "PTTYPE" in values else ""


def is_zero(device: str) -> bool:
    """Whether the first and the last MiB of a device hold nothing but zeros."""
    end = size(device)
    with open(device, "rb") as file:  # noqa: PTH123
        first = file.read(_PIECE)
        file.seek(max(0, end - _PIECE))
        return not any(first) and not any(file.read(_PIECE))


def size(device: str) -> int:
    """Bytes of a block device."""
    descriptor = os.open(device, os.O_RDONLY)
    try:
        return int(struct.unpack("Q", fcntl.ioctl(descriptor, _BLKGETSIZE64, b"\0" * 8))[0])
    finally:
        os.close(descriptor)


def is_read_only(device: str) -> bool:
    """Whether the kernel lets nobody write to a block device."""
    descriptor = os.open(device, os.O_RDONLY)
    try:
        return bool(struct.unpack("i", fcntl.ioctl(descriptor, _BLKROGET, bytes(4)))[0])
    finally:
        os.close(descriptor)


def is_settled(device: str, kind: str) -> bool:
    """Whether the journal of an ext4 or XFS that is not mounted here holds nothing that has to be replayed.

    A kernel that mounts the file system to write makes this false at once, and true with its last write when it unmounts it.
    The device is read again each time: another machine may write to the disk. Raises ProcessError, OSError.
    """
    if kind == XFS:
        return _xfs_log_is_clean(device)
    descriptor = os.open(device, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, _SUPERBLOCK + _SUPERBLOCK_BYTES, os.POSIX_FADV_DONTNEED)
        block = os.pread(descriptor, _SUPERBLOCK_BYTES, _SUPERBLOCK)
    finally:
        os.close(descriptor)
    return not struct.unpack_from("<I", block, _INCOMPATIBLE)[0] & _NEEDS_RECOVERY


class _StateFoundError(Exception):
    """Ends xfs_logprint at the line that matters: what follows is the whole content of the log."""


def _xfs_log_is_clean(device: str) -> bool:
    state = ""

    def look(line: str) -> None:
        nonlocal state
        if found := re.search(r"log tail: .* state: <(\w+)>", line):
            state = found[1]
            raise _StateFoundError

    with contextlib.suppress(_StateFoundError):
        stream(["xfs_logprint", "-t", device], look)
    if not state:
        raise ProcessError(["xfs_logprint", "-t", device], "reports no state of the log")
    return state == "CLEAN"


def make(device: str, kind: str) -> None:
    """Make an empty file system. The tools refuse a device in use. mkfs.xfs also refuses a device with a known content."""
    if kind == XFS:
        run(["mkfs.xfs", "-q", device], timeout=_LONG)
    else:
        # no blocks set aside for root: a volume has no root of its own
        run(["mkfs.ext4", "-q", "-m", "0", device], timeout=_LONG)


def check(device: str, kind: str, *, whole: bool = False) -> None:
    """Repair what can be repaired safely; DamagedError where more is wrong. ``whole``: also where all looks clean.

    XFS replays its log when it is mounted and has no other check to be made then.
    """
    if kind != EXT4:
        return
    done = run(["fsck.ext4", "-p", *(["-f"] if whole else []), device], timeout=_LONG, check=False)
    # 1: repaired, 2: repaired and a mounted root should reboot
    if done.returncode & ~3:
        words = " ".join((done.stdout + " " + done.stderr).split())[-300:]
        raise DamagedError(f"fsck.ext4 ended with {done.returncode}: {words}")


def wants_to_grow(device: str, kind: str) -> bool:
    """Whether an ext4 ends well before its device does. (XFS reports its size only while mounted; growing is then harmless.)"""
    if kind != EXT4:
        return True
    text = run(["dumpe2fs", "-h", device], timeout=60).stdout
    blocks = re.search(r"^Block count:\s+(\d+)", text, re.MULTILINE)
    block = re.search(r"^Block size:\s+(\d+)", text, re.MULTILINE)
    if not (blocks and block):
        raise ProcessError(["dumpe2fs"], "reports no size", output=text[-200:])
    return size(device) - int(blocks[1]) * int(block[1]) > _SLACK


def grow_unmounted(device: str, kind: str) -> None:
    """Grow an ext4 that is not mounted to its device's size (after a whole check, without which resize2fs refuses)."""
    if kind == EXT4 and wants_to_grow(device, kind):
        check(device, kind, whole=True)
        run(["resize2fs", device], timeout=_LONG)


def grow_mounted(device: str, point: str, *, kind: str) -> None:
    """Grow a mounted file system to its device's size. NotPermittedError where the kernel refuses that to us."""
    if kind == XFS:
        run(["xfs_growfs", point], timeout=_LONG)
        return
    if not wants_to_grow(device, kind):
        return
    done = run(["resize2fs", device], timeout=_LONG, check=False)
    if done.returncode:
        if _REFUSED.search(done.stderr):
            raise NotPermittedError(" ".join(done.stderr.split())[-200:])
        raise ProcessError(done.argv, f"ended with {done.returncode}", output=done.stderr or done.stdout)
