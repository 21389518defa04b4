"""Loop devices: files as disks.

Loop devices belong to the whole host, not to a namespace: they outlive a cloud that was killed. So whoever takes a cloud
away calls ``detach_under`` with the folder that holds its files.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import cast

from moyai.linux.process import ProcessError, run


def attached() -> dict[str, Path]:
    """All loop devices of the host with the file behind each: ``{"/dev/loop0": Path(...)}``."""
    listed = run(["losetup", "--json", "--list", "--output", "NAME,BACK-FILE"]).stdout
    if not listed.strip():
        return {}
    entries = cast("list[dict[str, str]]", json.loads(listed)["loopdevices"])
    return {entry["name"]: Path(entry["back-file"].removesuffix(" (deleted)")) for entry in entries if entry["back-file"]}


def find(file: Path) -> list[str]:
    """The devices that stand for ``file`` now."""
    real = file.resolve()
    return [device for device, backing in attached().items() if backing == real]


def attach(file: Path) -> str:
    """Make a loop device of ``file`` and return its name; a device that stands for the file already is used again.

    Raises ProcessError when the file cannot be opened or no device is to be had.
    """
    present = find(file)
    return present[0] if present else run(["losetup", "--find", "--show", file]).stdout.strip()


def refresh(device: str) -> None:
    """Let the device see that its file has grown."""
    run(["losetup", "--set-capacity", device])


def detach(file: Path) -> None:
    """Free every device of ``file``; one that is still open is freed by the kernel at its last close."""
    for device in find(file):
        with contextlib.suppress(ProcessError):
            run(["losetup", "--detach", device])


def detach_under(folder: Path) -> list[str]:
    """Free every device whose file is below ``folder``; returns their names."""
    real = folder.resolve()
    devices = [device for device, backing in attached().items() if backing.is_relative_to(real)]
    for device in devices:
        with contextlib.suppress(ProcessError):
            run(["losetup", "--detach", device])
    return devices
