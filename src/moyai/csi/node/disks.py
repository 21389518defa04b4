"""What the node plug-in needs of its machine: devices, mounts, file systems. ``LinuxDisks`` is the real thing.

A small interface, so that what is decided on top of it can be tested in every order and with every crash.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from moyai.linux import filesystem, mounts
from moyai.linux.mounts import Mount
from moyai.linux.process import ProcessError

__all__ = ["Damaged", "DiskError", "Disks", "LinuxDisks", "Mount", "NotPermitted", "Usage"]

Damaged = filesystem.DamagedError
NotPermitted = filesystem.NotPermittedError
#: What goes wrong with devices and tools, in their own words.
DiskError = (ProcessError, OSError)


@dataclass(frozen=True)
class Usage:
    """Bytes and inodes of a mounted file system."""

    total: int
    used: int
    available: int
    inodes: int
    inodes_used: int
    inodes_free: int


class Disks(Protocol):
    def device(self, links: Sequence[str]) -> str | None:
        """The block device behind the first of the links that there is."""
        ...

    def number(self, path: str) -> tuple[int, int] | None:
        """(major, minor) of the block device at a path, None where there is none."""
        ...

    def size(self, device: str) -> int: ...
    def rescan(self, device: str) -> None:
        """Let the kernel look at the device's size again, where its driver can be asked to."""
        ...

    def mounts(self) -> list[Mount]: ...
    def mounted(self, path: str) -> Mount | None: ...
    def exists(self, path: str) -> bool: ...
    def make_folder(self, path: str) -> None: ...
    def make_file(self, path: str) -> None: ...
    def remove(self, path: str) -> None:
        """Remove an empty folder or a file; nothing there is success."""
        ...

    def content(self, device: str) -> str: ...
    def is_zero(self, device: str) -> bool: ...
    def make(self, device: str, kind: str) -> None: ...
    def check(self, device: str, kind: str) -> None: ...
    def wants_to_grow(self, device: str, kind: str) -> bool: ...
    def grow_unmounted(self, device: str, kind: str) -> None: ...
    def grow_mounted(self, device: str, point: str, kind: str) -> None: ...
    def mount(self, device: str, target: str, kind: str, options: Sequence[str]) -> None: ...
    def bind(self, source: str, target: str, *, read_only: bool) -> None: ...
    def unmount(self, target: str) -> None: ...
    def usage(self, path: str) -> Usage: ...
    def errors(self, device: str) -> int:
        """How many errors the kernel counted on a mounted ext4."""
        ...


class LinuxDisks:
    """``stat`` and friends on the machine itself; the tools through ``moyai.linux``."""

    content = staticmethod(filesystem.content)
    is_zero = staticmethod(filesystem.is_zero)
    size = staticmethod(filesystem.size)
    make = staticmethod(filesystem.make)
    wants_to_grow = staticmethod(filesystem.wants_to_grow)
    grow_unmounted = staticmethod(filesystem.grow_unmounted)
    grow_mounted = staticmethod(filesystem.grow_mounted)
    unmount = staticmethod(mounts.unmount)
    mounted = staticmethod(mounts.at)

    def device(self, links: Sequence[str]) -> str | None:
        for link in links:
            real = os.path.realpath(link)
            if self.number(real):
                return real
        return None

    def number(self, path: str) -> tuple[int, int] | None:
        try:
            found = Path(path).stat()
        except OSError:
            return None
        return (os.major(found.st_rdev), os.minor(found.st_rdev)) if stat.S_ISBLK(found.st_mode) else None

    def rescan(self, device: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            Path(f"/sys/class/block/{Path(device).name}/device/rescan").write_text("1")

    def mounts(self) -> list[Mount]:
        return mounts.mounts()

    def exists(self, path: str) -> bool:
        return os.path.lexists(path)

    def make_folder(self, path: str) -> None:
        Path(path).mkdir(parents=True, exist_ok=True, mode=0o750)

    def make_file(self, path: str) -> None:
        self.make_folder(str(Path(path).parent))
        Path(path).touch(mode=0o600)

    def remove(self, path: str) -> None:
        remove: Callable[[], None] = Path(path).rmdir if Path(path).is_dir() else Path(path).unlink
        with contextlib.suppress(FileNotFoundError):
            remove()

    def check(self, device: str, kind: str) -> None:
        filesystem.check(device, kind)

    def mount(self, device: str, target: str, kind: str, options: Sequence[str]) -> None:
        mounts.mount(device, target, fs_type=kind, options=options)

    def bind(self, source: str, target: str, *, read_only: bool) -> None:
        mounts.bind(source, target, read_only=read_only)

    def usage(self, path: str) -> Usage:
        seen = os.statvfs(path)
        return Usage(
            total=seen.f_blocks * seen.f_frsize,
            used=(seen.f_blocks - seen.f_bfree) * seen.f_frsize,
            available=seen.f_bavail * seen.f_frsize,
            inodes=seen.f_files,
            inodes_used=seen.f_files - seen.f_ffree,
            inodes_free=seen.f_ffree,
        )

    def errors(self, device: str) -> int:
        number = self.number(device)
        if number is None:
            return 0
        # in a machine without devices of its own the node's name is not the kernel's
        name = Path(os.path.realpath(f"/sys/dev/block/{number[0]}:{number[1]}")).name
        try:
            return int(Path(f"/sys/fs/ext4/{name}/errors_count").read_text())
        except (OSError, ValueError):
            return 0
