"""Files of the user's are never replaced by surprise, whatever they are, and nothing that moyai did not write is removed."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from moyai.bootstrap import pki
from moyai.core.clock import SystemClock
from moyai.core.errors import UsageError
from moyai.core.user_files import editing
from moyai.lifecycle.kubeconfig import merge_kubeconfig, remove_from_kubeconfig


def _folder(file: Path) -> None:
    file.mkdir()


def _device(file: Path) -> None:
    os.mknod(file, stat.S_IFCHR | 0o666, os.makedev(1, 3))


def _circle(file: Path) -> None:
    file.symlink_to(file.with_name("other"))
    file.with_name("other").symlink_to(file)


def _link_to_fifo(file: Path) -> None:
    os.mkfifo(file.with_name("pipe"))
    file.symlink_to(file.with_name("pipe"))


def _kubeconfig(folder: Path, name: str = "quickstart") -> str:
    return pki.admin_kubeconfig(
        pki.ensure(folder, SystemClock()), name=name, server="https://198.51.100.7:6443", clock=SystemClock()
    )


@pytest.fixture
def text(tmp_path: Path) -> str:
    return _kubeconfig(tmp_path / "pki")


@pytest.mark.parametrize("make", [_folder, _device, os.mkfifo, _circle, _link_to_fifo])
def test_what_is_no_regular_file_is_refused_and_stays(make: Callable[[Path], None], tmp_path: Path, text: str) -> None:
    if make is _device and os.geteuid() != 0:
        pytest.skip("only root makes devices")
    file = tmp_path / "config"
    make(file)
    before = file.lstat()
    with pytest.raises(UsageError, match=r"config (is no regular file|cannot be used)") as caught:
        merge_kubeconfig(text, file)
    assert "\n" not in str(caught.value)
    assert not remove_from_kubeconfig(text, file)
    after = file.lstat()
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)


def test_a_link_stays_a_link_and_the_file_behind_it_is_changed(tmp_path: Path, text: str) -> None:
    target, link = tmp_path / "dotfiles" / "kube", tmp_path / "config"
    link.symlink_to(target)
    merge_kubeconfig(text, link)
    assert link.is_symlink()
    assert yaml.safe_load(target.read_text())["current-context"] == "quickstart"


@pytest.mark.parametrize(("before", "after"), [(0o640, 0o600), (0o600, 0o600), (0o644, 0o600), (0o400, 0o400), (None, 0o600)])
def test_a_file_keeps_its_owners_rights_and_is_closed_to_everybody_else(
    before: int | None, after: int, tmp_path: Path, text: str
) -> None:
    file = tmp_path / "config"
    if before is not None:
        file.touch()
        file.chmod(before)
    merge_kubeconfig(text, file)
    assert stat.S_IMODE(file.stat().st_mode) == after


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[", b"[" * 3000, b"just words", b"contexts: 5", b"clusters: {}\nusers: 7"])
def test_what_is_no_kubeconfig_is_refused_and_stays(content: bytes, tmp_path: Path, text: str) -> None:
    file = tmp_path / "config"
    file.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        merge_kubeconfig(text, file)
    assert "\n" not in str(caught.value)
    assert not remove_from_kubeconfig(text, file)
    assert file.read_bytes() == content


def test_entries_of_another_cluster_of_the_same_name_stay(tmp_path: Path, text: str) -> None:
    theirs, file = _kubeconfig(tmp_path / "other"), tmp_path / "config"
    file.write_text(theirs)
    with pytest.raises(UsageError, match="has entries named 'quickstart' of another cluster") as caught:
        merge_kubeconfig(text, file)
    assert "--overwrite-existing" in (caught.value.hint or "")
    assert not remove_from_kubeconfig(text, file)
    assert file.read_text() == theirs
    merge_kubeconfig(text, file, overwrite=True)
    assert remove_from_kubeconfig(text, file)


def test_ours_are_renewed_and_removed_and_others_stay(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config"
    merge_kubeconfig(_kubeconfig(tmp_path / "second", "second"), file)
    merge_kubeconfig(text, file)
    merge_kubeconfig(text, file)
    assert remove_from_kubeconfig(text, file)
    left = yaml.safe_load(file.read_text())
    assert [entry["name"] for section in ("clusters", "users", "contexts") for entry in left[section]] == [
        "second",
        "second-admin",
        "second",
    ]
    # a command after it must not reach another cluster by surprise
    assert left["current-context"] == ""


def test_two_at_once_lose_nothing(tmp_path: Path) -> None:
    file = tmp_path / "clouds.yaml"

    def add(number: int) -> None:
        with editing(file) as opened:
            content = opened.read() or ""
            opened.write(f"{content}{number}\n")

    threads = [threading.Thread(target=add, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(file.read_text().split()) == [str(number) for number in range(8)]
