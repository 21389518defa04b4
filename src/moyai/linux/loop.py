"""Loop devices: files as disks.

Loop devices belong to the whole host, not to a namespace: they outlive a cloud that was killed. So whoever takes a cloud
away calls ``detach_under`` with the folder that holds its files.

A device that is let go while something has it open (the mount of a machine that was killed is taken down by the kernel moments
later) lives on until the last close. Such a one is dying: it is never used again, for it would vanish under its next user, and
a second device of the same file would show stale data.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from moyai.linux.process import ProcessError, run

_POLL_SECONDS = 0.05


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
    for device in present:
        with contextlib.suppress(ProcessError):
            run(["losetup", "--detach", device])
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
    for device in below:
        with contextlib.suppress(ProcessError):
            run(["losetup", "--detach", device])
    return below
