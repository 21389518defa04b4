"""Loop devices: files as disks.

Loop devices belong to the whole host, not to a namespace: they outlive a cloud that was killed. So whoever takes a cloud
away calls ``detach_under`` with the folder that holds its files.

A device that is let go while something has it open (the mount of a machine that was killed is taken down by the kernel moments
later) lives on until the last close. Such a one is dying: it is never used again, for it would vanish under its next user, and
a second device of the same file would show stale data.

A device may have devices of its own upon it: a kubelet keeps a raw disk open by one. Nobody in a machine that was killed lets
go of those, and they would keep the disk open for ever; so they go before the device they are upon, from outside.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from moyai.linux.process import ProcessError, run

_POLL_SECONDS = 0.05
#: Of linux/loop.h: the request, the size of its answer, and where in that the number of the device behind stands.
_GET_STATUS64, _STATUS64_BYTES, _RDEVICE = 0x4C05, 232, 16


@dataclass(frozen=True)
class LoopDevice:
    """``dying``: let go of, but still open somewhere."""

    name: str
    file: Path
    dying: bool = False


def devices() -> list[LoopDevice]:
    """All loop devices of the host that stand for a file."""
    listed = run(["losetup", "--json", "--list", "--output", "NAME,AUTOCLEAR,BACK-FILE"]).stdout
    if not listed.strip():
        return []
    entries = cast("list[dict[str, str | bool | None]]", json.loads(listed)["loopdevices"])
    return [
        # nobody here sets the flag when a device is made: it is the kernel's mark of one that was let go
        LoopDevice(str(entry["name"]), Path(str(file).removesuffix(" (deleted)")), entry.get("autoclear") in (True, "1"))
        for entry in entries
        if (file := entry["back-file"])
    ]


def attached() -> dict[str, Path]:
    """All loop devices of the host with the file behind each: ``{"/dev/loop0": Path(...)}``."""
    return {one.name: one.file for one in devices()}


def find(file: Path) -> list[str]:
    """The devices that stand for ``file`` now."""
    return [one.name for one in _of(file)]


def _of(file: Path) -> list[LoopDevice]:
    real = file.resolve()
    return [one for one in devices() if one.file == real]


def attach(file: Path, *, timeout: float = 10.0) -> str:
    """Make a loop device of ``file`` and return its name; a device that stands for the file already is used again.

    One that is dying is waited for, at most ``timeout`` seconds. Raises ProcessError when it stays, when the file cannot be
    opened, or no device is to be had.
    """
    found: list[LoopDevice] = []

    def settled() -> bool:
        found[:] = _of(file)
        return not any(one.dying for one in found)

    if not _wait(settled, timeout):
        raise ProcessError(["losetup", str(file)], f"{found[0].name}, let go of before, is still in use after {timeout:.0f} s")
    return found[0].name if found else run(["losetup", "--find", "--show", file]).stdout.strip()


def refresh(device: str) -> None:
    """Let the device see that its file has grown."""
    run(["losetup", "--set-capacity", device])


def detach(file: Path, *, timeout: float = 0.0) -> bool:
    """Free every device of ``file``; one that is still open is freed by the kernel at its last close.

    That is waited for, at most ``timeout`` seconds; returns whether there is none left.
    """
    present = find(file)
    _let_go(present)
    return not present or _wait(lambda: not find(file), timeout)


def _wait(holds: Callable[[], bool], timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while not holds():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def detach_under(folder: Path) -> list[str]:
    """Free every device whose file is below ``folder``; returns their names."""
    real = folder.resolve()
    below = [one.name for one in devices() if one.file.is_relative_to(real)]
    _let_go(below)
    return below


def _let_go(names: list[str]) -> None:
    for device in [*upon(names), *names]:
        with contextlib.suppress(ProcessError):
            run(["losetup", "--detach", device])


def upon(names: list[str]) -> list[str]:
    """The loop devices that stand for one of these devices, under whatever name whoever made them knows it."""
    numbers = {number for name in names if (number := _number(name))}
    return [one.name for one in devices() if behind(one.name) in numbers] if numbers else []


def behind(name: str) -> int:
    """The number (``st_rdev``) of the block device that the loop device ``name`` stands for; 0: a file, or nothing."""
    try:
        descriptor = os.open(name, os.O_RDONLY)
    except OSError:
        return 0
    try:
        answer = fcntl.ioctl(descriptor, _GET_STATUS64, bytes(_STATUS64_BYTES))
    except OSError:
        return 0
    finally:
        os.close(descriptor)
    return int(struct.unpack_from("=Q", answer, _RDEVICE)[0])


def _number(name: str) -> int:
    try:
        return Path(name).stat().st_rdev
    except OSError:
        return 0
