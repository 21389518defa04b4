"""Loop devices: what losetup lists is understood, and only a cloud's own are freed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moyai.linux import loop
from moyai.linux.process import Completed, ProcessError
from tests.fakes.clock import FakeClock


@pytest.fixture
def devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Devices of a volume, of a volume that was deleted, of a stranger, and of another device; records what is called."""
    called: list[tuple[str, ...]] = []
    names = {
        "/dev/loop0": tmp_path / "cloud/vol1",
        "/dev/loop1": f"{tmp_path}/cloud/vol2 (deleted)",
        "/dev/loop2": "/srv/cloud.img",
        "/dev/loop3": "/vdb",
    }
    listed = {"loopdevices": [{"name": name, "autoclear": False, "back-file": str(file)} for name, file in names.items()]}

    def run(argv: list[str | Path], **_: object) -> Completed:
        words = tuple(str(word) for word in argv)
        called.append(words[1:])
        return Completed(words, 0, json.dumps(listed) if "--json" in words else "/dev/loop9\n", "")

    monkeypatch.setattr(loop, "run", run)
    # loop3 stands upon loop1, which a machine did that is gone
    monkeypatch.setattr(loop, "_number", {"/dev/loop0": 0x700, "/dev/loop1": 0x701}.__getitem__)
    monkeypatch.setattr(loop, "behind", {"/dev/loop3": 0x701}.get)
    return called


def test_a_file_that_has_a_device_keeps_it(devices: list[tuple[str, ...]], tmp_path: Path) -> None:
    assert loop.attach(tmp_path / "cloud/vol1") == "/dev/loop0"
    assert loop.attach(tmp_path / "cloud/vol3") == "/dev/loop9"


def test_only_what_is_below_the_folder_is_freed(devices: list[tuple[str, ...]], tmp_path: Path) -> None:
    assert loop.detach_under(tmp_path / "cloud") == ["/dev/loop0", "/dev/loop1"]
    assert [words for words in devices if words[0] == "--detach"] == [
        ("--detach", f"/dev/loop{number}") for number in (3, 0, 1)
    ]


def test_freeing_a_file_without_a_device_is_nothing(devices: list[tuple[str, ...]], tmp_path: Path) -> None:
    loop.detach(tmp_path / "cloud/vol")
    assert all(words[0] != "--detach" for words in devices)


def test_a_device_that_is_dying_is_waited_for_and_never_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0

    def run(argv: list[str | Path], **_: object) -> Completed:
        nonlocal looks
        words = tuple(str(word) for word in argv)
        if "--json" not in words:
            return Completed(words, 0, "/dev/loop7\n", "")
        looks += 1
        dying = [{"name": "/dev/loop3", "autoclear": True, "back-file": str(tmp_path / "vol")}]
        return Completed(words, 0, json.dumps({"loopdevices": dying}) if looks < 4 else "", "")

    monkeypatch.setattr(loop, "run", run)
    monkeypatch.setattr(loop, "time", FakeClock())
    assert loop.attach(tmp_path / "vol") == "/dev/loop7"
    looks = -1000
    with pytest.raises(ProcessError, match="still in use"):
        loop.attach(tmp_path / "vol", timeout=5)
    assert not loop.detach(tmp_path / "vol", timeout=5)
    looks = 2  # one look finds it, the next does not
    assert loop.detach(tmp_path / "vol", timeout=5)
