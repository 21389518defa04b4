"""Devices, mounts and file systems on the real kernel: loop devices, ext4 and XFS, through what the node plug-in uses."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from moyai.cloud.openstack import ADAPTER
from moyai.cloud.openstack.guest import disk_links
from moyai.csi.access_modes import VolumeAccess
from moyai.csi.errors import Refused
from moyai.csi.node.disks import LinuxDevices, linux_disks
from moyai.csi.node.staging import NodeWork
from moyai.linux import filesystem, loop, mounts
from moyai.linux.process import ProcessError, run

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts and loop devices")

NAMES = ADAPTER.volume_names
ID = "0a1b2c3d-4e5f-6789-abcd-ef0123456789"
GIB = 1 << 30
MIB = 1 << 20

Device = Callable[[str, int], str]


class HereDevices(LinuxDevices):
    """The machine's devices, but links to disks are looked for in a folder of the test."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, links: Sequence[str]) -> str | None:
        return super().find([str(self._folder / Path(one).name) for one in links])


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    """``device(name, bytes)`` makes a disk; at the end all that is mounted of it is undone."""
    files: list[Path] = []

    def make(name: str, size: int) -> str:
        file = tmp_path / name
        with file.open("wb") as opened:
            opened.truncate(size)
        files.append(file)
        return loop.attach(file)

    yield make
    for one in reversed(mounts.mounts()):
        if one.point.startswith(str(tmp_path)):
            mounts.unmount(one.point)
    for file in files:
        loop.detach(file)
        file.unlink()


@pytest.fixture
def node(tmp_path: Path) -> NodeWork:
    (tmp_path / "by-id").mkdir()
    return NodeWork(linux_disks(HereDevices(tmp_path / "by-id")), names=NAMES, links=disk_links, patience=1.0)


def show(tmp_path: Path, device: str, volume_id: str = ID) -> None:
    link = tmp_path / "by-id" / Path(disk_links(volume_id)[0]).name
    link.unlink(missing_ok=True)
    link.symlink_to(device)


def grow(tmp_path: Path, name: str, device: str, size: int) -> None:
    os.truncate(tmp_path / name, size)
    loop.refresh(device)


def can_grow_in_use() -> bool:
    """CAP_SYS_RESOURCE (24), without which the kernel grows no mounted ext4."""
    status = Path("/proc/self/status").read_text()
    effective = next(line for line in status.splitlines() if line.startswith("CapEff"))
    return bool(int(effective.split()[1], 16) >> 24 & 1)


def test_what_is_on_a_device(device: Device) -> None:
    empty = device("empty", 512 * MIB)
    assert (filesystem.content(empty), filesystem.is_zero(empty), filesystem.size(empty)) == ("", True, 512 * MIB)
    filesystem.make(empty, "ext4")
    assert (filesystem.content(empty), filesystem.is_zero(empty)) == ("ext4", False)
    with pytest.raises(ProcessError):
        filesystem.make(empty, "xfs")
    assert filesystem.content(empty) == "ext4"

    raw = device("raw", 64 * MIB)
    with Path(raw).open("r+b") as file:
        file.write(b"\x01" * 4096)
    assert (filesystem.content(raw), filesystem.is_zero(raw)) == ("", False)
    end = device("end", 64 * MIB)
    with Path(end).open("r+b") as file:
        file.seek(-512, os.SEEK_END)
        file.write(b"EFI PART")
    assert not filesystem.is_zero(end)

    table = device("table", 64 * MIB)
    entry = struct.pack("<B3sB3sII", 0, bytes(3), 0x83, bytes(3), 2048, 4096)
    with Path(table).open("r+b") as file:
        file.write(bytes(446) + entry + bytes(48) + b"\x55\xaa")
    assert filesystem.content(table) == "dos partitions"
    with pytest.raises((ProcessError, OSError)):
        filesystem.content("/dev/null-no-such-device")


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_a_volume_s_whole_life(tmp_path: Path, device: Device, node: NodeWork, kind: str) -> None:
    disk = device("disk", 512 * MIB)
    show(tmp_path, disk)
    access = VolumeAccess("SINGLE_NODE_WRITER", fs_type=kind)
    staging, target, reader = (str(tmp_path / name) for name in ("staging", "target", "reader"))
    for _ in range(2):
        node.stage(ID, staging, access=access, context={NAMES.blank_key: "true"}, published={})
        node.publish(ID, staging, target=target, access=access, read_only=False)
        node.publish(ID, staging, target=reader, access=access, read_only=True)
    Path(target, "file").write_text("kept")
    assert Path(reader, "file").read_text() == "kept"
    with pytest.raises(OSError, match="Read-only"):
        Path(reader, "other").write_text("x")
    usage = node.usage(ID, target)
    assert not isinstance(usage, int)
    assert 400 * MIB < usage.total <= 512 * MIB
    assert node.faults(ID, target) == []

    grow(tmp_path, "disk", disk, GIB)
    if kind == "xfs" or can_grow_in_use():
        assert node.expand(ID, target, staging=staging, required=GIB) == GIB
    else:
        with pytest.raises(Refused, match="CAP_SYS_RESOURCE") as refused:
            node.expand(ID, target, staging=staging, required=GIB)
        assert refused.value.code == "FAILED_PRECONDITION"
    for _ in range(2):
        node.unpublish(target)
        node.unpublish(reader)
        node.unstage(staging)
    assert not Path(target).exists()
    node.stage(ID, staging, access=access, context={}, published={})
    node.publish(ID, staging, target=target, access=access, read_only=False)
    assert node.expand(ID, target, staging=staging, required=GIB) == GIB
    grown = node.usage(ID, target)
    assert not isinstance(grown, int)
    assert grown.total > 800 * MIB
    assert Path(target, "file").read_text() == "kept"


def test_a_raw_device(tmp_path: Path, device: Device, node: NodeWork) -> None:
    disk = device("disk", 64 * MIB)
    show(tmp_path, disk)
    access = VolumeAccess("SINGLE_NODE_SINGLE_WRITER", block=True)
    target, second = str(tmp_path / "pods/1/dev"), str(tmp_path / "pods/2/dev")
    for _ in range(2):
        node.stage(ID, str(tmp_path / "staging"), access=access, context={}, published={})
        node.publish(ID, str(tmp_path / "staging"), target=target, access=access, read_only=False)
    with Path(target).open("r+b") as file:
        file.write(b"raw")
    with Path(disk).open("rb") as file:
        assert file.read(3) == b"raw"
    assert node.usage(ID, target) == 64 * MIB
    with pytest.raises(Refused, match="for one pod"):
        node.publish(ID, str(tmp_path / "staging"), target=second, access=access, read_only=False)
    grow(tmp_path, "disk", disk, 128 * MIB)
    assert node.expand(ID, target, staging="", required=128 * MIB) == 128 * MIB
    node.unpublish(target)
    assert not Path(target).exists()
    # now it holds something that nobody knows: never formatted unless it was made blank
    with pytest.raises(Refused, match="nothing was changed"):
        node.stage(ID, str(tmp_path / "staging"), access=VolumeAccess("SINGLE_NODE_WRITER"), context={}, published={})
    with Path(disk).open("rb") as file:
        assert file.read(3) == b"raw"


def test_a_damaged_file_system_is_mended_or_refused(tmp_path: Path, device: Device, node: NodeWork) -> None:
    disk = device("disk", 64 * MIB)
    show(tmp_path, disk)
    access = VolumeAccess("SINGLE_NODE_WRITER")
    staging = str(tmp_path / "staging")
    node.stage(ID, staging, access=access, context={NAMES.blank_key: "true"}, published={})
    node.unstage(staging)
    # marked as not cleanly unmounted, and a wrong count: what fsck repairs by itself
    run(["debugfs", "-w", "-R", "set_super_value free_blocks_count 1", disk])
    run(["debugfs", "-w", "-R", "set_super_value state 2", disk])
    node.stage(ID, staging, access=access, context={}, published={})
    usage = node.usage(ID, staging)
    assert not isinstance(usage, int)
    assert usage.available > 30 * MIB
    node.unstage(staging)
    run(["debugfs", "-w", "-R", "clri <2>", disk])  # no root directory
    run(["debugfs", "-w", "-R", "set_super_value state 2", disk])
    with pytest.raises(Refused, match="damaged"):
        node.stage(ID, staging, access=access, context={}, published={})
    assert mounts.at(staging) is None


def test_a_clone_beside_its_origin(tmp_path: Path, device: Device, node: NodeWork) -> None:
    """XFS refuses two of one UUID; a copy on a larger disk fills it."""
    other = "1a1b2c3d-4e5f-6789-abcd-ef0123456789"
    origin = device("origin", 512 * MIB)
    show(tmp_path, origin)
    access = VolumeAccess("SINGLE_NODE_WRITER", fs_type="xfs")
    node.stage(ID, str(tmp_path / "a"), access=access, context={NAMES.blank_key: "true"}, published={})
    Path(tmp_path, "a", "file").write_text("copied")
    run(["sync", "-f", tmp_path / "a"])
    run(["xfs_freeze", "-f", tmp_path / "a"])
    try:
        run(["cp", "--sparse=always", tmp_path / "origin", tmp_path / "clone-source"])
    finally:
        run(["xfs_freeze", "-u", tmp_path / "a"])
    clone = device("clone", GIB)
    run(["dd", f"if={tmp_path / 'clone-source'}", f"of={clone}", "bs=1M", "conv=sparse,notrunc"])
    (tmp_path / "clone-source").unlink()
    show(tmp_path, clone, other)
    node.stage(other, str(tmp_path / "b"), access=access, context={}, published={})
    assert Path(tmp_path, "b", "file").read_text() == "copied"
    usage = node.usage(other, str(tmp_path / "b"))
    assert not isinstance(usage, int)
    assert usage.total > 900 * MIB


def test_a_disk_that_vanishes_under_its_mount(tmp_path: Path, device: Device, node: NodeWork) -> None:
    disk = device("disk", 64 * MIB)
    show(tmp_path, disk)
    staging = str(tmp_path / "staging")
    node.stage(ID, staging, access=VolumeAccess("SINGLE_NODE_WRITER"), context={NAMES.blank_key: "true"}, published={})
    (tmp_path / "by-id" / Path(disk_links(ID)[0]).name).unlink()
    assert [one.reason for one in node.faults(ID, staging)] == ["DeviceGone"]
    node.unstage(staging)
    assert mounts.at(staging) is None
