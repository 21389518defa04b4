"""Folders whose content somebody else made: no link of a guest or an image leads to the host's files. Needs root."""

from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from moyai.linux import beneath
from moyai.linux.nspawn import NspawnMachine
from moyai.localcloud.drivers.nova import image_tree
from moyai.localcloud.drivers.nova.image_tree import ImageRefused, copy_store, unpack
from tests.command_lines import naming

Build = Callable[[tarfile.TarFile], None]


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """The host's files that no test may change; checked at its end."""
    folder = tmp_path / "host"
    (folder / "containerd").mkdir(parents=True)
    for name in ("machine-id", "resolv.conf", "meminfo", "containerd/meta.db", "vdb"):
        (folder / name).write_text("the host's\n")
        (folder / name).chmod(0o640)
    before = state(folder)
    yield folder
    assert state(folder) == before


def state(folder: Path) -> dict[str, tuple[int, int, int, bytes]]:
    found: dict[str, tuple[int, int, int, bytes]] = {}
    for path in sorted(folder.rglob("*")):
        info = path.lstat()
        found[str(path)] = (info.st_mode, info.st_nlink, info.st_ino, path.read_bytes() if path.is_file() else b"")
    return found


def archive(path: Path, *parts: Build) -> Path:
    with tarfile.open(path, "w") as tar:
        for part in parts:
            part(tar)
    return path


def entry(name: str, kind: bytes = tarfile.REGTYPE, *, target: str = "", data: bytes = b"", mode: int = 0o755) -> Build:
    def add(tar: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.size, info.mode = kind, target, len(data), mode
        tar.addfile(info, io.BytesIO(data))

    return add


INIT = entry("sbin/init", data=b"#!/bin/sh\n")


@pytest.mark.parametrize("folder", ["etc", "var", "var/lib"])
@pytest.mark.parametrize("relative", [False, True])
def test_an_image_whose_folders_are_links_is_refused(tmp_path: Path, outside: Path, folder: str, relative: bool) -> None:
    new = tmp_path / "new"
    new.mkdir()
    # relative: out of the root by parent folders
    target = os.path.relpath(outside, new / "root" / Path(folder).parent) if relative else str(outside)
    parents = [entry("var", tarfile.DIRTYPE)] if folder == "var/lib" else []
    source = archive(tmp_path / "image", INIT, *parents, entry(folder, tarfile.SYMTYPE, target=target))
    with pytest.raises(ImageRefused, match=rf"/?{folder} is no folder, or lies behind a link"):
        unpack(source, new)


@pytest.mark.parametrize("kind", ["link", "hard link", "file", "pipe"])
def test_a_machine_id_of_any_kind_becomes_an_empty_file(tmp_path: Path, outside: Path, kind: str) -> None:
    new = tmp_path / "new"
    new.mkdir()
    file = {
        "link": entry("etc/machine-id", tarfile.SYMTYPE, target=str(outside / "machine-id")),
        "hard link": entry("etc/machine-id", tarfile.LNKTYPE, target="sbin/init"),
        "file": entry("etc/machine-id", data=b"0123"),
        "pipe": entry("etc/machine-id", tarfile.FIFOTYPE),
    }[kind]
    unpack(archive(tmp_path / "image", INIT, entry("etc", tarfile.DIRTYPE), file), new)
    made = new / "root/etc/machine-id"
    assert stat.S_ISREG(made.lstat().st_mode)
    assert made.read_bytes() == b""
    assert (new / "root/sbin/init").read_bytes() == b"#!/bin/sh\n"


def test_a_container_store_that_is_a_link_is_none(tmp_path: Path, outside: Path) -> None:
    new = tmp_path / "new"
    new.mkdir()
    link = entry("var/lib/containerd", tarfile.SYMTYPE, target=str(outside / "containerd"))
    unpack(archive(tmp_path / "image", INIT, entry("var/lib", tarfile.DIRTYPE), link), new)
    assert list((new / "store").iterdir()) == []
    assert stat.S_ISDIR((new / "root/var/lib/containerd").lstat().st_mode)


def test_an_init_behind_a_link_to_the_host_is_none(tmp_path: Path) -> None:
    new = tmp_path / "new"
    new.mkdir()
    links = [entry(name, tarfile.SYMTYPE, target=f"/usr/{name}") for name in ("sbin", "lib")]
    with pytest.raises(ImageRefused, match="no init"):
        unpack(archive(tmp_path / "image", *links), new)


def test_an_image_that_would_fill_the_disk_is_refused_while_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = tmp_path / "new"
    new.mkdir()
    source = archive(tmp_path / "image", INIT, *(entry(f"f{n}", data=bytes(1 << 20)) for n in range(512)))
    monkeypatch.setattr(image_tree, "_STAYS_FREE", shutil.disk_usage(tmp_path).free - (8 << 20))
    monkeypatch.setattr(image_tree, "_LOOK_SECONDS", 0.01)
    with pytest.raises(ImageRefused, match="free on the disk"):
        unpack(source, new)
    # the program that unpacked has ended
    assert not naming(str(source))


def test_what_tar_says_is_told(tmp_path: Path) -> None:
    new = tmp_path / "new"
    new.mkdir()
    (tmp_path / "image").write_bytes(b"BZh9" + b"x" * 1000)
    with pytest.raises(ImageRefused, match=r"cannot be unpacked: tar: ended with 2: .*not recoverable"):
        unpack(tmp_path / "image", new)


def test_an_ordinary_root_with_merged_folders_is_taken(tmp_path: Path) -> None:
    new = tmp_path / "new"
    new.mkdir()
    merged = [entry(name, tarfile.SYMTYPE, target=f"usr/{name}") for name in ("sbin", "lib")]
    store = [entry("var/lib/containerd", tarfile.DIRTYPE), entry("var/lib/containerd/meta.db", data=b"1")]
    init = entry("usr/lib/systemd/systemd", data=b"1")
    unpack(archive(tmp_path / "image", init, *merged, *store), new)
    assert (new / "store/meta.db").read_bytes() == b"1"
    assert list((new / "root/var/lib/containerd").iterdir()) == []


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_store_is_copied_without_reading_what_its_databases_point_to(tmp_path: Path, outside: Path, kind: str) -> None:
    store, target = tmp_path / "store", tmp_path / "target"
    store.mkdir()
    target.mkdir()
    (store / "real.db").write_text("real")
    odd = store / "odd.db"
    if kind == "link":
        odd.symlink_to(outside / "containerd/meta.db")
    elif kind == "pipe":
        os.mkfifo(odd)
    else:
        odd.mkdir()
    copy_store(store, target)
    assert (target / "real.db").read_text() == "real"
    assert (target / "real.db").stat().st_nlink == 1
    assert stat.S_IFMT((target / "odd.db").lstat().st_mode) == stat.S_IFMT(odd.lstat().st_mode)


# what a guest leaves in its own root, found again at its next start


@pytest.fixture
def machine(tmp_path: Path) -> NspawnMachine:
    for name in ("lower/usr/lib", "folder"):
        (tmp_path / name).mkdir(parents=True)
    folder = tmp_path / "folder"
    return NspawnMachine("m1", "m1", folder, tmp_path / "lower", "netns", memory_bytes=1 << 20, cpus=1)


@pytest.mark.parametrize("part", ["usr", "usr/lib", "usr/lib/moyai"])
@pytest.mark.parametrize("kind", ["link", "deleted", "file"])
def test_files_for_a_guest_are_put_past_what_it_made_of_their_folders(
    machine: NspawnMachine, outside: Path, part: str, kind: str
) -> None:
    path = machine.upper / part
    path.parent.mkdir(parents=True)
    if kind == "link":
        path.symlink_to(outside)
    elif kind == "deleted":
        os.mknod(path, stat.S_IFCHR, 0)  # an overlay's mark for an entry of the image that was deleted
    else:
        path.write_text("")
    machine.put("usr/lib/moyai/meminfo", "new\n")
    assert (machine.upper / "usr/lib/moyai/meminfo").read_text() == "new\n"


def test_a_file_of_the_guest_is_replaced_never_written_to(machine: NspawnMachine, outside: Path) -> None:
    machine.put("etc/first", "")
    (machine.upper / "etc/hostname").symlink_to(outside / "resolv.conf")
    machine.put("etc/hostname", "m1\n")
    assert stat.S_ISREG((machine.upper / "etc/hostname").lstat().st_mode)


# a guest that runs: its root is a folder here, since a link does not know who follows it


def test_a_running_guests_file_is_written_below_its_root_or_not_at_all(tmp_path: Path, outside: Path) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/resolv.conf").symlink_to(outside / "resolv.conf")
    beneath.write(root, "/etc/resolv.conf", data=b"nameserver 192.0.2.1\n")
    assert (root / "etc/resolv.conf").read_text() == "nameserver 192.0.2.1\n"
    (root / "etc").rename(root / "old")
    (root / "etc").symlink_to(outside)
    with pytest.raises(OSError, match="symbolic links"):
        beneath.write(root, "/etc/resolv.conf", data=b"nameserver 192.0.2.1\n")
    (root / "etc").unlink()
    (root / "etc").mkdir()
    subprocess.run(["mount", "--bind", outside, root / "etc"], check=True)
    try:
        with pytest.raises(OSError, match="cross-device"):
            beneath.write(root, "/etc/resolv.conf", data=b"nameserver 192.0.2.1\n")
    finally:
        subprocess.run(["umount", root / "etc"], check=True)


def test_a_device_node_replaces_a_link_of_its_name(tmp_path: Path, outside: Path) -> None:
    root = tmp_path / "root"
    (root / "dev").mkdir(parents=True)
    (root / "dev/vdb").symlink_to(outside / "vdb")
    with beneath.folder(root, "dev") as dev:
        beneath.make_device("vdb", dev, kind=stat.S_IFBLK, number=os.makedev(7, 9999))
    made = (root / "dev/vdb").lstat()
    assert (stat.S_IFMT(made.st_mode), stat.S_IMODE(made.st_mode)) == (stat.S_IFBLK, 0o660)
