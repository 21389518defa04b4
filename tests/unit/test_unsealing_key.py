"""What opens a cluster's authorities is readable by root alone, from the first moment that a service runs on the machine."""

from __future__ import annotations

import json
import pickle
import stat
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from moyai.bootstrap.pki import seal
from moyai.bootstrap.user_data import new_token

KEY = "k3y-that-opens-the-authorities-0123456789_-A"
PASSWORD = "N0vaPassw0rd"
SCRIPT = files("moyai.bootstrap") / "data" / "unsealing_key.py"
KEPT = "var/lib/moyai/unsealing-key"


def call(root: Path, command: str) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "-I", str(SCRIPT), command]
    # no proxy and no network: the metadata service of a cloud that this machine may be in is not asked for a key
    return subprocess.run(
        ["unshare", "-rn", *arguments], env={"MOYAI_ROOT": str(root), "PATH": "/usr/bin:/bin"}, capture_output=True, text=True
    )


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A machine's disk as cloud-init leaves it: copies of the metadata in five places, one of them open to everybody."""
    metadata = {"meta": {"moyai.key": KEY, "moyai.dev/role": "control-plane"}, "admin_pass": PASSWORD, "uuid": "6f3c"}
    data = {"ds": {"meta_data": metadata}, "v1": {"region": "RegionOne"}}
    copies = {
        "run/cloud-init/instance-data.json": (json.dumps(data).encode(), 0o644),
        "run/cloud-init/instance-data-sensitive.json": (json.dumps(data).encode(), 0o600),
        "var/lib/cloud/seed/config_drive/openstack/latest/meta_data.json": (json.dumps(metadata).encode(), 0o600),
        "var/lib/cloud/instances/6f3c/obj.pkl": (pickle.dumps(data), 0o400),
        "var/lib/cloud/instances/6f3c/user-data.txt": (b"#cloud-boothook", 0o600),
    }
    for name, (content, mode) in copies.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        file.chmod(mode)
    (tmp_path / "var/lib/cloud/instance").symlink_to("instances/6f3c")
    return tmp_path


def files_with(root: Path, word: str) -> list[str]:
    return [str(file.relative_to(root)) for file in root.rglob("*") if file.is_file() and word.encode() in file.read_bytes()]


def test_the_key_is_taken_out_of_every_copy(machine: Path) -> None:
    assert call(machine, "take").returncode == 0
    assert files_with(machine, KEY) == [KEPT]
    assert files_with(machine, PASSWORD) == []
    assert stat.S_IMODE((machine / KEPT).stat().st_mode) == 0o600
    # the rest is as it was, so that cloud-init goes on
    pickled = pickle.loads((machine / "var/lib/cloud/instances/6f3c/obj.pkl").read_bytes())
    assert pickled["ds"]["meta_data"]["uuid"] == "6f3c"
    public = json.loads((machine / "run/cloud-init/instance-data.json").read_text())
    assert public["ds"]["meta_data"]["meta"]["moyai.dev/role"] == "control-plane"


def test_a_second_boot_before_the_key_has_served_keeps_it(machine: Path) -> None:
    call(machine, "take")
    assert call(machine, "take").returncode == 0
    assert (machine / KEPT).read_text() == KEY


def test_a_boot_after_it_has_served_overwrites_new_copies_and_keeps_nothing(machine: Path) -> None:
    (machine / "var/lib/moyai").mkdir(parents=True)
    (machine / "var/lib/moyai/cluster").touch()
    assert call(machine, "take").returncode == 0
    assert files_with(machine, KEY) == []


def test_no_key_anywhere_is_said_by_the_exit_code(tmp_path: Path) -> None:
    assert call(tmp_path, "take").returncode == 1


def test_drop(machine: Path) -> None:
    call(machine, "take")
    assert call(machine, "drop").returncode == 0
    assert files_with(machine, KEY) == []
    assert call(machine, "drop").returncode == 0


def test_what_cloud_init_wrote_again_after_the_key_was_taken_is_overwritten_in_the_end(machine: Path) -> None:
    pickled = machine / "var/lib/cloud/instances/6f3c/obj.pkl"
    before = pickled.read_bytes()
    call(machine, "take")
    pickled.chmod(0o600)
    pickled.write_bytes(before)
    assert files_with(machine, KEY) != [KEPT]
    assert call(machine, "drop").returncode == 0
    assert files_with(machine, KEY) == []


@pytest.mark.parametrize("change", ["a byte of the content", "a byte of the tag", "another key", "cut off"])
def test_sealed_files_that_were_changed_are_not_unpacked(tmp_path: Path, change: str) -> None:
    sealed = seal(b"never seen", KEY)
    changed = {
        "a byte of the content": sealed[:-3] + ("A" if sealed[-3] != "A" else "B") + sealed[-2:],
        "a byte of the tag": ("0" if sealed[0] != "0" else "1") + sealed[1:],
        "another key": seal(b"never seen", new_token()),
        "cut off": sealed[:80],
    }[change]
    for name, content in {"etc/moyai/sealed": changed, KEPT: KEY}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    result = call(tmp_path, "open")
    assert (result.returncode, result.stderr) == (1, "")
    assert result.stdout == "moyai: the sealed files were changed, or were sealed with another key\n"
