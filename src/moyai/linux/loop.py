"""Loop devices: files as disks.

Loop devices belong to the whole host, not to a namespace: they outlive a cloud that was killed. A process that removes a cloud
therefore calls ``detach_under`` with the folder of the cloud's files.

A device that is detached while a process or a mount has it open lives on until the last close. For example, the kernel unmounts
the disks of a killed machine moments later. Such a device is dying. It is never used again, because it would vanish while it is
in use. A second device of the same file would show stale data.

A second loop device may stand on a first one: a kubelet keeps a raw disk open in this way. After a machine was killed, no
process detaches the second device, and it would keep the disk open for ever. It is therefore detached from outside, before the
first one.
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
        # moyai never sets this flag: the kernel sets it on a device that was detached while it was open
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

    The call waits at most ``timeout`` seconds for the end of a dying device. Raises ProcessError if the dying device stays, if
    the file cannot be opened, or if no device is free.
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
    """Free every device of ``file``. The kernel frees an open device at its last close.

    The call waits at most ``timeout`` seconds for that. Returns whether the file has no device left.
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
    """The loop devices that stand for one of these devices, under any name of the device."""
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
