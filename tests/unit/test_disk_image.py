"""The disk image: the same bytes twice, what is in its file system, where its boot loaders are. By the host's own e2fsprogs."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
import yaml

from moyai.core.errors import Terminal
from moyai.images import rootfs
from moyai.images.disk import boot, disk_image, disk_root
from moyai.images.disk.disk_image import DiskFacts, DiskImage, Identity, name_of
from moyai.images.disk.disk_tools import DiskTools
from moyai.images.disk.ext4 import PlacedFileSystem, commands, size_for, write_ext4
from moyai.linux.process import run

_DATE = 1_700_000_000
_UUID = "6c1a2d0e-3c4b-5d6e-8f70-112233445566"
_OWN = Path(disk_image.__file__).parent.with_name("disk_files")


@pytest.fixture
def tools() -> DiskTools:
    """This host's own programs, which are laid out as unpacked packages are."""
    return DiskTools(Path("/"))


def _fill(tree: Path, *, backwards: bool = False) -> None:
    """The same folder, made in one order or the other, so that its directories are in another order, too."""
    names = [f"file-{number}" for number in range(40)]
    (tree / "etc").mkdir(parents=True)
    (tree / "var/empty").mkdir(parents=True)
    for name in reversed(names) if backwards else names:
        (tree / "etc" / name).write_text(name * 100)
        os.utime(tree / "etc" / name, (_DATE - 5, _DATE - 5))
    (tree / "etc/odd \"name\" 'x'").write_text("odd")
    (tree / "etc/program").write_text("#!/bin/sh\n")
    (tree / "etc/program").chmod(0o4755)
    os.link(tree / "etc/program", tree / "var/same")
    (tree / "link").symlink_to("etc/program")
    os.setxattr(tree / "etc/file-1", "user.moyai", b"value\x00\xff")


def _written(tools: DiskTools, tree: Path, *, image: Path) -> bytes:
    offset = 1 << 20
    size = size_for(tree)
    size = -(-size // 4096) * 4096
    with image.open("wb") as file:
        file.truncate(offset + size)
    write_ext4(tools, tree, image=image, system=PlacedFileSystem(offset, size, _UUID, "moyai-root", _DATE))
    return image.read_bytes()[offset:]


def test_a_file_system_has_the_same_bytes_in_whatever_order_its_files_were_made(tmp_path: Path, tools: DiskTools) -> None:
    _fill(tmp_path / "one")
    _fill(tmp_path / "two", backwards=True)
    first, second = (_written(tools, tmp_path / name, image=tmp_path / f"{name}.img") for name in ("one", "two"))
    assert first == second


def test_a_file_system_has_the_folder_s_content_and_no_fault(tmp_path: Path, tools: DiskTools) -> None:
    _fill(tmp_path / "tree")
    plain = tmp_path / "plain.img"
    plain.write_bytes(_written(tools, tmp_path / "tree", image=tmp_path / "image"))
    run(["/usr/sbin/e2fsck", "-f", "-n", plain])

    def ask(command: str) -> str:
        return tools.run("debugfs", "-R", command, plain).stdout

    assert ask("cat /etc/file-7") == "file-7" * 100
    assert ask('cat "/etc/odd ""name"" \'x\'"') == "odd"
    program = ask("stat /etc/program")
    assert "Mode:  04755" in program
    assert "Links: 2" in program
    assert 'Fast link dest: "etc/program"' in ask("stat /link")
    assert f"0x{_DATE - 5:08x}" in ask("stat /etc/file-3")
    # what was made now has the date that it was told, not today's
    assert f"mtime: 0x{_DATE:08x}" in program
    assert "(7) = 76 61 6c 75 65 00 ff" in ask("stat /etc/file-1")


def test_a_file_that_the_file_system_does_not_take_is_named(tmp_path: Path, tools: DiskTools) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/large").write_bytes(os.urandom(9 << 20))
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(6 << 20)
    system = PlacedFileSystem(0, 6 << 20, _UUID, "moyai-root", _DATE)
    with pytest.raises(Terminal, match="cannot be written"):
        write_ext4(tools, tmp_path / "tree", image=image, system=system)
    (tmp_path / "tree/line\nbreak").touch()
    with pytest.raises(Terminal, match="line break"):
        list(commands(tmp_path / "tree", _DATE))


def test_a_program_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(Terminal, match="mke2fs is missing"):
        DiskTools(tmp_path).run("mke2fs")


def test_the_stages_of_the_bios_know_each_other_s_places() -> None:
    core = bytearray(1300)
    struct.pack_into("<H", core, 510, 0x820)
    first, second = boot.linked(bytes(512), bytes(core), first_sector=2048)
    assert len(first) == 440
    assert struct.unpack_from("<Q", first, 0x5C) == (2048,)
    assert len(second) == 3 * 512
    assert struct.unpack_from("<QHH", second, 500) == (2049, 2, 0x820)
    with pytest.raises(Terminal, match="another form"):
        boot.linked(bytes(512), bytes(1300), first_sector=2048)


def test_partitions_and_identities_follow_the_inputs() -> None:
    size = (1 << 30) - (65 << 20)
    tables = [disk_image.partitions(Identity(key), root_size=size) for key in ("a", "a", "b")]
    assert tables[0] == tables[1] != tables[2]
    places = {int(line.split()[0]): line for line in tables[0].splitlines() if "start=" in line}
    assert sorted(places) == [1, 14, 15]
    assert "type=21686148-6449-6E6F-744E-656564454649" in places[14]
    starts = {number: int(line.split("start=")[1].split(",")[0]) * 512 for number, line in places.items()}
    # the root is the last on the disk: it can grow
    assert max(starts, key=lambda number: starts[number]) == 1
    assert starts[1] + size < 1 << 30


def test_the_menu_and_the_table_of_file_systems_name_the_same_root() -> None:
    menu = boot.menu(_UUID)
    assert f"root=UUID={_UUID}" in menu
    assert "console=ttyS0" in menu


def test_a_machine_with_a_disk_has_devices_a_network_and_a_clock() -> None:
    assert {"linux-image-cloud-amd64", "udev", "systemd-resolved", "systemd-timesyncd"} <= set(disk_root.PACKAGES)
    for unit in ("systemd-udevd.service", "systemd-networkd.service", "systemd-sysctl.service", "systemd-logind.service"):
        assert unit in rootfs.MASKED
        assert unit not in disk_root.MASKED
    assert "fstrim.timer" not in disk_root.MASKED


def test_cloud_init_reads_a_config_drive_first_and_grows_the_root() -> None:
    told = yaml.safe_load((_OWN / "etc/cloud/cloud.cfg.d/99-moyai.cfg").read_text())
    assert told["datasource_list"] == ["ConfigDrive", "OpenStack", "None"]
    assert told["system_info"]["network"]["renderers"] == ["networkd"]
    modules = told["cloud_init_modules"]
    assert modules.index("growpart") < modules.index("resizefs")
    assert "network" not in told
    assert "br_netfilter" in (_OWN / "etc/modules-load.d/moyai.conf").read_text().split()


def test_a_file_is_named_after_its_content(tmp_path: Path) -> None:
    facts = DiskFacts("ab" * 32, "1.37.1", "debian", "12", 3 << 30, agent=True)
    assert name_of(DiskImage(tmp_path, "qcow2", facts)) == f"moyai-node-1.37.1-{'ab' * 8}.qcow2"
