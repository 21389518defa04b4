"""Devices, mounts and file systems on the real kernel: loop devices, ext4 and XFS, through what the node plug-in uses."""

from __future__ import annotations

import json
import os
import stat
import struct
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from moyai.cloud.openstack import ADAPTER
from moyai.cloud.openstack.guest import disk_links
from moyai.csi.access_modes import VolumeAccess
from moyai.csi.driver_names import ALONE
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
    """The machine's devices, but links to disks (and device nodes in ``dev``) are looked for in a folder of the test."""

    def __init__(self, folder: Path, dev: Path = Path("/dev")) -> None:
        super().__init__(str(dev))
        self._folder = folder

    def find(self, links: Sequence[str]) -> str | None:
        return super().find([str(self._folder / Path(one).name) for one in links])


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Device]:
    """``device(name, bytes)`` makes a disk (0: of a file that exists); at the end all that is mounted of it is undone."""
    files: list[Path] = []

    def make(name: str, size: int) -> str:
        file = tmp_path / name
        if size:
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


def show(tmp_path: Path, device: str, *, volume_id: str = ID) -> None:
    link = tmp_path / "by-id" / Path(disk_links(volume_id)[0]).name
    link.unlink(missing_ok=True)
    link.symlink_to(device)


def grow(tmp_path: Path, name: str, *, device: str, size: int) -> None:
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

    grow(tmp_path, "disk", device=disk, size=GIB)
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
    grow(tmp_path, "disk", device=disk, size=128 * MIB)
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
    show(tmp_path, clone, volume_id=other)
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


@pytest.mark.parametrize(
    ("kind", "flags", "named"),
    [
        ("ext4", ("noatime", "notaime"), "ext4 refuses a mount option: 'notaime' (Unknown parameter 'notaime')"),
        ("xfs", ("notaime",), "xfs refuses a mount option: 'notaime' (Unknown parameter 'notaime')"),
        ("ext4", ("data=nonsense",), "ext4 refuses a mount option: 'data=nonsense' (Bad value for 'data')"),
        (
            "ext4",
            ("nouuid,discard=yes",),
            "'nouuid' (Unknown parameter 'nouuid'), 'discard=yes' (Unexpected value for 'discard')",
        ),
        ("xfs", ("logbsize=3",), "was not mounted as xfs with logbsize=3: mount: "),
    ],
)
def test_mount_options_that_the_kernel_refuses_are_named(
    tmp_path: Path, device: Device, node: NodeWork, kind: str, flags: tuple[str, ...], named: str
) -> None:
    show(tmp_path, device("disk", 512 * MIB))
    staging, blank = str(tmp_path / "staging"), {NAMES.blank_key: "true"}
    wrong = VolumeAccess("SINGLE_NODE_WRITER", fs_type=kind, flags=flags)
    with pytest.raises(Refused) as refused:
        node.stage(ID, staging, access=wrong, context=blank, published={})
    assert named in refused.value.message
    assert "mountOptions of the PersistentVolume" in refused.value.message
    assert mounts.at(staging) is None
    right = VolumeAccess("SINGLE_NODE_WRITER", fs_type=kind, flags=("noatime", "nodev,lazytime"))
    node.stage(ID, staging, access=right, context=blank, published={})
    assert mounts.at(staging)


def machine(tmp_path: Path, name: str, *, device: str) -> NodeWork:
    """A machine of its own: it sees the disk by its own device, with its own cache."""
    links, dev = tmp_path / name / "by-id", tmp_path / name / "dev"
    for folder in (links, dev, tmp_path / name / "csi/1"):
        folder.mkdir(parents=True)
    # nodes of loop devices stand in every machine, whatever disks it has
    os.mknod(dev / Path(device).name, 0o600 | stat.S_IFBLK, Path(device).stat().st_rdev)
    plug(tmp_path / name, device, name="vdb")
    (tmp_path / name / "csi/1/vol_data.json").write_text(json.dumps({"volumeHandle": ID, "driverName": NAMES.driver}))
    disks = linux_disks(HereDevices(links, dev))
    return NodeWork(disks, names=NAMES, links=disk_links, patience=10.0, folder=str(tmp_path / name / "csi"))


def plug(folder: Path, device: str, *, name: str) -> None:
    os.mknod(folder / "dev" / name, 0o600 | stat.S_IFBLK, Path(device).stat().st_rdev)
    (folder / "by-id" / Path(disk_links(ID)[0]).name).symlink_to(folder / "dev" / name)


def unplug(folder: Path, name: str) -> None:
    (folder / "by-id" / Path(disk_links(ID)[0]).name).unlink()
    (folder / "dev" / name).unlink()


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_readers_of_a_copy_of_a_live_disk_see_what_its_writer_synced(
    tmp_path: Path, device: Device, node: NodeWork, kind: str
) -> None:
    """Two machines stage at the same moment; one was chosen to replay the journal."""
    show(tmp_path, device("live", 512 * MIB))
    live = tmp_path / "staged"
    writer = VolumeAccess("SINGLE_NODE_WRITER", fs_type=kind)
    node.stage(ID, str(live), access=writer, context={NAMES.blank_key: "true"}, published={})
    with (live / "word").open("w") as file:
        file.write("hello")
        file.flush()
        os.fsync(file.fileno())
    run(["cp", "--sparse=always", tmp_path / "live", tmp_path / "copied"])  # while it is in use
    first = device("copied", 0)
    second = run(["losetup", "--find", "--show", tmp_path / "copied"]).stdout.strip()
    assert not filesystem.is_settled(first, kind)
    one, two = machine(tmp_path, "one", device=first), machine(tmp_path, "two", device=second)
    readers = VolumeAccess("MULTI_NODE_READER_ONLY")
    places = [tmp_path / name / "csi/1/globalmount" for name in ("one", "two")]
    with ThreadPoolExecutor() as pool:
        waits = pool.submit(two.stage, ID, str(places[1]), access=readers, context={}, published={})
        assert not wait([waits], timeout=0.5).done, "a machine that was not chosen reads what nobody replayed"
        one.stage(ID, str(places[0]), access=readers, context={}, published={ALONE: "true"})
        waits.result(10)
    assert [(place / "word").read_text() for place in places] == ["hello", "hello"]
    before = Path(tmp_path / "copied").read_bytes()
    for work, place in ((one, places[0]), (two, places[1])):
        work.unstage(str(place))
        work.stage(ID, str(place), access=readers, context={}, published={ALONE: "true"})
        assert {one.name for one in place.parent.iterdir()} == {"globalmount", "vol_data.json"}
    assert Path(tmp_path / "copied").read_bytes() == before, "a settled disk was written"


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_a_copy_of_a_live_disk_that_may_not_be_written_is_refused(
    tmp_path: Path, device: Device, node: NodeWork, kind: str
) -> None:
    show(tmp_path, device("live", 512 * MIB))
    writer = VolumeAccess("SINGLE_NODE_WRITER", fs_type=kind)
    node.stage(ID, str(tmp_path / "staged"), access=writer, context={NAMES.blank_key: "true"}, published={})
    (tmp_path / "staged/word").write_text("hello")
    run(["sync", "-f", tmp_path / "staged"])
    run(["cp", "--sparse=always", tmp_path / "live", tmp_path / "copied"])
    # not by blockdev: the kernel would keep that for the next file of the loop device
    copy = run(["losetup", "--find", "--show", "--read-only", tmp_path / "copied"]).stdout.strip()
    assert device("copied", 0) == copy
    assert filesystem.is_read_only(copy)
    reader, access = machine(tmp_path, "one", device=copy), VolumeAccess("MULTI_NODE_READER_ONLY")
    with pytest.raises(Refused, match="attached read-only"):
        reader.stage(ID, str(tmp_path / "r"), access=access, context={}, published={ALONE: "true"})


def test_a_mount_of_a_disk_that_is_gone_is_cleared_and_the_disk_comes_back(tmp_path: Path, device: Device) -> None:
    """The driver was away while the cloud took the disk: the mount holds the device, so the cloud cannot attach it again."""
    disk = device("disk", 64 * MIB)
    node = machine(tmp_path, "one", device=disk)
    staging, target = str(tmp_path / "one/csi/1/globalmount"), str(tmp_path / "one/pod")
    writer = VolumeAccess("SINGLE_NODE_WRITER")
    node.stage(ID, staging, access=writer, context={NAMES.blank_key: "true"}, published={})
    node.publish(ID, staging, target=target, access=writer, read_only=False)
    Path(target, "word").write_text("kept")
    assert node.stale() == [], "the disk is there"
    unplug(tmp_path / "one", "vdb")
    loop.detach(tmp_path / "disk")
    with pytest.raises(ProcessError, match="still in use"):
        loop.attach(tmp_path / "disk", timeout=0.3)
    assert node.stale() == [ID]
    node.clear_stale(ID)
    assert mounts.at(staging) is None
    assert mounts.at(target) is None
    assert node.stale() == []
    plug(tmp_path / "one", loop.attach(tmp_path / "disk", timeout=5), name="vdb")
    node.stage(ID, staging, access=writer, context={}, published={})
    node.publish(ID, staging, target=target, access=writer, read_only=False)
    assert Path(target, "word").read_text() == "kept"


def test_a_disk_that_comes_back_under_another_number_takes_the_place_of_its_old_mount(tmp_path: Path, device: Device) -> None:
    """As with a hot-unplug of a real disk: the old device lives as long as its mount, and the new one has a new number."""
    node = machine(tmp_path, "one", device=device("old", 64 * MIB))
    staging, target = str(tmp_path / "one/csi/1/globalmount"), str(tmp_path / "one/pod")
    writer = VolumeAccess("SINGLE_NODE_WRITER")
    node.stage(ID, staging, access=writer, context={NAMES.blank_key: "true"}, published={})
    node.publish(ID, staging, target=target, access=writer, read_only=False)
    unplug(tmp_path / "one", "vdb")
    plug(tmp_path / "one", device("new", 64 * MIB), name="vdc")
    node.stage(ID, staging, access=writer, context={NAMES.blank_key: "true"}, published={})
    node.publish(ID, staging, target=target, access=writer, read_only=False)
    number = (tmp_path / "one/dev/vdc").stat().st_rdev
    shown = [mounts.at(place) for place in (staging, target)]
    assert [one and os.makedev(*one.device) for one in shown] == [number, number]
