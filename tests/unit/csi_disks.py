"""A machine's disks and mounts in memory. Every change is counted, and a test can end the process after any change."""

from __future__ import annotations

import errno
import posixpath
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from moyai.cloud.memory import Killed
from moyai.cloud.model import Instance
from moyai.cloud.openstack.guest import disk_links
from moyai.csi.node.disks import Damaged, Mount, NodeDisks, NotPermitted, RefusedOption, Usage
from moyai.linux.process import ProcessError

GIB = 1 << 30


@dataclass
class Disk:
    number: tuple[int, int]
    size: int = GIB
    content: str = ""
    fs_size: int = 0
    zero: bool = True
    damaged: bool = False
    sick: bool = False
    #: Its journal holds what must be replayed; a mount to write replays it, and says so when it ends.
    unsettled: bool = False
    read_only: bool = False
    #: Unplugged, though mounts of it may live on.
    gone: bool = False


#: The number of the file system that /dev is.
_DEV = (0, 6)


@dataclass
class FakeDisks:
    """``online``: the kernel lets a mounted ext4 grow. ``dev``: what kind of file system /dev is."""

    online: bool = True
    dev: str = "devtmpfs"
    disks: dict[str, Disk] = field(default_factory=dict[str, Disk])
    links: dict[str, str] = field(default_factory=dict[str, str])
    table: list[Mount] = field(default_factory=list[Mount])
    folders: set[str] = field(default_factory=set[str])
    files: set[str] = field(default_factory=set[str])
    done: list[str] = field(default_factory=list[str])
    options: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    rescans: int = 0
    #: Devices that the kernel was asked to forget.
    let_gone: list[str] = field(default_factory=list[str])
    #: Mount options that the kernel refuses, with its words; the file systems that it has.
    wrong_options: dict[str, str] = field(default_factory=dict[str, str])
    known: tuple[str, ...] = ("ext4", "xfs")
    busy: set[str] = field(default_factory=set[str])
    volumes_at: dict[str, str] = field(default_factory=dict[str, str])
    error_count: int = 0
    die_after: int | None = None

    def attach(self, volume_id: str, **more: object) -> Disk:
        device = f"/dev/vd{'bcdefgh'[len(self.disks)]}"
        disk = Disk((7, len(self.disks)), **more)  # pyright: ignore[reportArgumentType]
        if disk.content in ("ext4", "xfs") and not disk.fs_size:
            disk.fs_size = disk.size
        self.disks[device] = disk
        self.links[disk_links(volume_id)[0]] = device
        return disk

    def unplug(self, volume_id: str) -> None:
        """The disk goes, whatever is mounted of it."""
        self.disks[self.links.pop(disk_links(volume_id)[0])].gone = True

    def _change(self, what: str) -> None:
        self.done.append(what)
        if self.die_after is not None and len(self.done) >= self.die_after:
            raise Killed

    def _of(self, number: tuple[int, int]) -> Disk:
        return next(one for one in self.disks.values() if one.number == number)

    # ---- what is

    def find(self, links: Sequence[str]) -> str | None:
        return next((self.links[link] for link in links if link in self.links), None)

    def number(self, path: str) -> tuple[int, int] | None:
        if path in self.disks:
            return self.disks[path].number
        mounted = self.at(path)
        return self.disks[f"/dev{mounted.root}"].number if mounted and mounted.fs_type == self.dev else None

    def size(self, device: str) -> int:
        number = self.number(device)
        assert number is not None
        return self._of(number).size

    def present(self, numbers: Collection[tuple[int, int]]) -> set[tuple[int, int]]:
        return {one.number for one in self.disks.values() if not one.gone} & set(numbers)

    def is_read_only(self, device: str) -> bool:
        return self.disks[device].read_only

    def is_settled(self, device: str, kind: str) -> bool:
        disk = self.disks[device]
        assert not any(one.device == disk.number and not one.read_only for one in self.table), "read while it is mounted"
        return not disk.unsettled

    def is_known(self, kind: str) -> bool:
        return kind in self.known

    def refused_options(self, kind: str, options: Sequence[str]) -> list[RefusedOption]:
        return [RefusedOption(one, self.wrong_options[one]) for one in options if one in self.wrong_options]

    def volume_at(self, staging: str) -> str:
        return self.volumes_at.get(posixpath.dirname(staging), "")

    def let_go(self, device: str) -> None:
        self.let_gone.append(device)

    def rescan(self, device: str) -> None:
        self.rescans += 1

    def all(self) -> list[Mount]:
        return list(self.table)

    def at(self, path: str) -> Mount | None:
        return next((one for one in reversed(self.table) if one.point == path), None)

    def exists(self, path: str) -> bool:
        return path in self.folders or path in self.files

    def content(self, device: str) -> str:
        return self.disks[device].content

    def is_zero(self, device: str) -> bool:
        return self.disks[device].zero

    def errors(self, device: str) -> int:
        return self.error_count

    def usage(self, path: str) -> Usage:
        mounted = self.at(path)
        assert mounted is not None
        disk = self._of(mounted.device)
        if disk.sick:
            raise OSError(errno.EIO, "Input/output error")
        return Usage(disk.fs_size, 1, disk.fs_size - 1, 10, 1, 9)

    def wants_to_grow(self, device: str, kind: str) -> bool:
        return self.disks[device].fs_size < self.disks[device].size

    # ---- changes

    def make_folder(self, path: str) -> None:
        self.folders.add(path)

    def make_file(self, path: str) -> None:
        self.files.add(path)

    def remove(self, path: str) -> None:
        assert self.at(path) is None, "what is mounted cannot be removed"
        self.folders.discard(path)
        self.files.discard(path)

    def make(self, device: str, kind: str) -> None:
        disk = self.disks[device]
        assert not disk.content, "formatted over something"
        disk.content, disk.fs_size, disk.zero = kind, disk.size, False
        self._change(f"make {kind}")

    def check(self, device: str, kind: str) -> None:
        assert not any(one.device == self.disks[device].number for one in self.table), "checked while it is mounted"
        if self.disks[device].damaged:
            raise Damaged("fsck.ext4 ended with 4")
        self._change("check")

    def grow_unmounted(self, device: str, kind: str) -> None:
        disk = self.disks[device]
        if kind == "ext4" and disk.fs_size < disk.size:
            disk.fs_size = disk.size
            self._change("grow unmounted")

    def grow_mounted(self, device: str, point: str, *, kind: str) -> None:
        disk = self.disks[device]
        if disk.fs_size < disk.size:
            if kind == "ext4" and not self.online:
                raise NotPermitted("resize2fs: Operation not permitted")
            disk.fs_size = disk.size
            self._change("grow mounted")

    def mount(self, device: str, target: str, *, kind: str, options: Sequence[str]) -> None:
        assert target in self.folders
        disk = self.disks[device]
        assert disk.content == kind
        if kind not in self.known or set(options) & self.wrong_options.keys():
            raise ProcessError(["mount"], "ended with 32", output="wrong fs type, bad option, bad superblock")
        if "ro" not in options:
            assert not disk.read_only, "a disk that is read-only was mounted to write"
            disk.unsettled = True
        elif not {"noload", "norecovery"} & set(options):
            disk.unsettled = False
        else:
            assert not disk.unsettled, "mounted to be read without what its journal holds"
        self.options[target] = list(options)
        self.table.append(Mount(target, "/", self.disks[device].number, kind, device, "ro" in options))
        self._change(f"mount {target}")

    def bind(self, source: str, target: str, *, read_only: bool) -> None:
        if self.at(target) is None:
            if source in self.disks:
                name = posixpath.basename(source)
                self.table.append(Mount(target, f"/{name}", _DEV, self.dev, self.dev, False))
            else:
                below = self.at(source)
                assert below is not None
                self.table.append(Mount(target, "/", below.device, below.fs_type, below.source, below.read_only))
            self._change(f"bind {target}")
        if read_only:
            at = max(number for number, one in enumerate(self.table) if one.point == target)
            one = self.table[at]
            self.table[at] = Mount(one.point, one.root, one.device, one.fs_type, one.source, True)
            self._change(f"read-only {target}")

    def unmount(self, target: str) -> None:
        if target in self.busy:
            raise ProcessError(["umount"], "ended with 32", output="target is busy")
        if mounted := self.at(target):
            self.table = [one for one in self.table if one.point != target]
            if not mounted.read_only and not any(one.device == mounted.device for one in self.table) and mounted.device != _DEV:
                self._of(mounted.device).unsettled = False
            self._change(f"unmount {target}")


def as_disks(fake: FakeDisks) -> NodeDisks:
    """One fake for all purposes: the type checker says that it is each of them."""
    return NodeDisks(fake, fake, fake)


@dataclass(frozen=True)
class KnownGuest:
    """A machine that knows itself from the start."""

    found: Instance

    def instance(self) -> Instance:
        return self.found

    def disk_links(self, volume_id: str, device: str = "") -> tuple[str, ...]:
        return disk_links(volume_id)
