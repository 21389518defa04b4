"""The node plug-in's view of its machine: block devices, mounts, file systems. ``linux_disks`` is the machine itself.

A small interface for each, so that the decisions on top can be tested in every order and with every crash.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from moyai.linux import filesystem, mount_options, mounts
from moyai.linux.mount_options import RefusedOption
from moyai.linux.mounts import Mount
from moyai.linux.process import ProcessError

__all__ = [
    "BlockDevices",
    "BusDevices",
    "Damaged",
    "DiskError",
    "Filesystems",
    "LinuxDevices",
    "Mount",
    "Mounts",
    "NodeDisks",
    "NotPermitted",
    "RefusedOption",
    "Usage",
    "linux_disks",
]

Damaged = filesystem.DamagedError
NotPermitted = filesystem.NotPermittedError
#: What goes wrong with devices and tools, in their own words.
DiskError = (ProcessError, OSError)
_LOOP = 7


@dataclass(frozen=True)
class Usage:
    """Bytes and inodes of a mounted file system."""

    total: int
    used: int
    available: int
    inodes: int
    inodes_used: int
    inodes_free: int


class BlockDevices(Protocol):
    def find(self, links: Sequence[str]) -> str | None:
        """The block device behind the first of the links that there is."""
        ...

    def number(self, path: str) -> tuple[int, int] | None:
        """(major, minor) of the block device at a path, None where there is none."""
        ...

    def size(self, device: str) -> int: ...
    def rescan(self, device: str) -> None:
        """Let the kernel look at the device's size again, where its driver can be asked to."""
        ...

    def let_go(self, device: str) -> None:
        """Let the kernel forget a device that the cloud may take away only then; elsewhere nothing."""
        ...

    def is_zero(self, device: str) -> bool: ...
    def is_read_only(self, device: str) -> bool: ...
    def present(self, numbers: Collection[tuple[int, int]]) -> set[tuple[int, int]]:
        """Those of the numbers that are block devices of the machine; a device that only a mount keeps alive is none."""
        ...


class Mounts(Protocol):
    """The table of mounts, and the folders and files that are mounted on."""

    def all(self) -> list[Mount]: ...
    def at(self, path: str) -> Mount | None: ...
    def mount(self, device: str, target: str, *, kind: str, options: Sequence[str]) -> None: ...
    def bind(self, source: str, target: str, *, read_only: bool) -> None: ...
    def unmount(self, target: str) -> None: ...
    def volume_at(self, staging: str) -> str:
        """The volume that the kubelet has staged at a path, by its own notes beside it; empty where it has none."""
        ...

    def exists(self, path: str) -> bool: ...
    def make_folder(self, path: str) -> None: ...
    def make_file(self, path: str) -> None: ...
    def remove(self, path: str) -> None:
        """Remove an empty folder or a file; nothing there is success."""
        ...


class Filesystems(Protocol):
    def content(self, device: str) -> str:
        """The file system or other format that a device holds, empty where none is known."""
        ...

    def is_settled(self, device: str, kind: str) -> bool:
        """Whether the journal of a file system that is not mounted here holds nothing that has to be replayed."""
        ...

    def is_known(self, kind: str) -> bool:
        """Whether the kernel has the file system."""
        ...

    def refused_options(self, kind: str, options: Sequence[str]) -> list[RefusedOption]:
        """Mount options that the kernel refuses for the file system. Raises DiskError where the kernel does not say."""
        ...

    def make(self, device: str, kind: str) -> None: ...
    def check(self, device: str, kind: str) -> None: ...
    def wants_to_grow(self, device: str, kind: str) -> bool: ...
    def grow_unmounted(self, device: str, kind: str) -> None: ...
    def grow_mounted(self, device: str, point: str, *, kind: str) -> None: ...
    def usage(self, path: str) -> Usage: ...
    def errors(self, device: str) -> int:
        """How many errors the kernel counted on a mounted ext4."""
        ...


@dataclass(frozen=True)
class NodeDisks:
    """A machine's disks, by purpose."""

    devices: BlockDevices
    mounts: Mounts
    filesystems: Filesystems


def linux_disks(devices: BlockDevices | None = None) -> NodeDisks:
    """The machine's own; tests bring other ``devices``."""
    return NodeDisks(devices or LinuxDevices(), LinuxMounts(), LinuxFilesystems())


class LinuxDevices:
    """``dev``: the folder of the machine's device nodes."""

    size = staticmethod(filesystem.size)
    is_zero = staticmethod(filesystem.is_zero)
    is_read_only = staticmethod(filesystem.is_read_only)

    def __init__(self, dev: str = "/dev") -> None:
        self._dev = dev

    def present(self, numbers: Collection[tuple[int, int]]) -> set[tuple[int, int]]:
        # A machine of the local cloud has its disks as loop devices of the host, under a disk's names. Sysfs lists the host's
        # loop devices in every machine, and nodes loop0, loop1, … stand in every /dev: neither says that it has the disk.
        # Of all other devices the kernel knows best.
        known = {(a, b) for a, b in numbers if a != _LOOP and Path(f"/sys/dev/block/{a}:{b}").exists()}
        if len(known) < len(numbers):
            nodes = [one.path for one in os.scandir(self._dev) if not one.name.startswith("loop")]
            known |= {number for path in nodes if (number := _number(path))} & set(numbers)
        return known

    def find(self, links: Sequence[str]) -> str | None:
        for link in links:
            real = os.path.realpath(link)
            if self.number(real):
                return real
        return None

    def number(self, path: str) -> tuple[int, int] | None:
        return _number(path)

    def rescan(self, device: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            Path(f"/sys/class/block/{Path(device).name}/device/rescan").write_text("1")

    def let_go(self, device: str) -> None:
        """Virtual machines of KVM notice it by themselves."""


class BusDevices(LinuxDevices):
    """Disks on a SCSI bus that tells the kernel neither that a disk was attached nor that it is about to go. ``sys``: the
    folder of sysfs. A machine whose disks are none of SCSI has none of the files, and nothing is asked of it."""

    def __init__(self, dev: str = "/dev", sys: str = "/sys") -> None:
        super().__init__(dev)
        self._sys = Path(sys)

    def find(self, links: Sequence[str]) -> str | None:
        if (found := super().find(links)) or not links:
            return found
        for scan in sorted((self._sys / "class/scsi_host").glob("*/scan")):
            # a host that cannot be asked keeps none of the others from being asked
            with contextlib.suppress(OSError):
                scan.write_text("- - -")
        return super().find(links)

    def let_go(self, device: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            (self._sys / "class/block" / Path(device).name / "device/delete").write_text("1")


class LinuxMounts:
    all = staticmethod(mounts.mounts)
    at = staticmethod(mounts.at)
    unmount = staticmethod(mounts.unmount)

    def mount(self, device: str, target: str, *, kind: str, options: Sequence[str]) -> None:
        mounts.mount(device, target, fs_type=kind, options=options)

    def bind(self, source: str, target: str, *, read_only: bool) -> None:
        mounts.bind(source, target, read_only=read_only)

    def volume_at(self, staging: str) -> str:
        try:
            notes = json.loads((Path(staging).parent / "vol_data.json").read_text(encoding="utf-8"))
            return str(notes["volumeHandle"])
        except (OSError, ValueError, KeyError, TypeError):
            return ""

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


class LinuxFilesystems:
    content = staticmethod(filesystem.content)
    is_settled = staticmethod(filesystem.is_settled)
    is_known = staticmethod(mount_options.is_known)
    refused_options = staticmethod(mount_options.refused)
    make = staticmethod(filesystem.make)
    wants_to_grow = staticmethod(filesystem.wants_to_grow)
    grow_unmounted = staticmethod(filesystem.grow_unmounted)
    grow_mounted = staticmethod(filesystem.grow_mounted)

    def check(self, device: str, kind: str) -> None:
        filesystem.check(device, kind)

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
        number = _number(device)
        if number is None:
            return 0
        # in a machine that shares the host's /dev, the name of the device node is not the kernel's name
        name = Path(os.path.realpath(f"/sys/dev/block/{number[0]}:{number[1]}")).name
        try:
            return int(Path(f"/sys/fs/ext4/{name}/errors_count").read_text())
        except (OSError, ValueError):
            return 0


def _number(path: str) -> tuple[int, int] | None:
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return (os.major(found.st_rdev), os.minor(found.st_rdev)) if stat.S_ISBLK(found.st_mode) else None
