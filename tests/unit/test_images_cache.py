"""What stands in the cache is whole, made once, and not kept for ever."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from moyai.core.errors import Terminal
from moyai.images.cache import Cache, digest_of_folder, key_of

A, B, C, D = (key_of(letter) for letter in "abcd")


def _file(path: Path) -> None:
    path.write_text("x")


def test_a_thing_is_made_once(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "new")
    made: list[Path] = []

    def make(path: Path) -> None:
        made.append(path)
        path.write_text("whole")

    first, second = cache.get("thing", A, make=make), cache.get("thing", A, make=make)
    assert first == second
    assert first.read_text() == "whole"
    assert len(made) == 1


def test_two_at_once_make_it_once(tmp_path: Path) -> None:
    cache, made, gate = Cache(tmp_path), list[int](), threading.Barrier(2)

    def make(path: Path) -> None:
        made.append(1)
        path.mkdir()
        (path / "content").write_text("x")

    def get() -> None:
        gate.wait()
        assert (cache.get("folder", A, make=make) / "content").read_text() == "x"

    threads = [threading.Thread(target=get) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]


def test_who_waits_for_another_says_so(tmp_path: Path) -> None:
    said: list[str] = []
    cache, began, waiting = Cache(tmp_path), threading.Event(), threading.Event()

    def slow(path: Path) -> None:
        began.set()
        waiting.wait()
        path.write_text("x")

    def say(text: str) -> None:
        said.append(text)
        waiting.set()

    maker = threading.Thread(target=lambda: cache.get("thing", A, make=slow))
    maker.start()
    began.wait()
    cache.get("thing", A, make=_file, say=say)
    maker.join()
    assert said == [f"waiting for process {os.getpid()}, which makes it"]


def test_a_failed_make_leaves_nothing(tmp_path: Path) -> None:
    cache = Cache(tmp_path)

    def fail(path: Path) -> None:
        path.mkdir()
        (path / "half").write_text("x")
        raise RuntimeError("no disk")

    with pytest.raises(RuntimeError, match="no disk"):
        cache.get("thing", A, make=fail)
    assert [path.name for path in tmp_path.iterdir()] == [".lock-thing"]


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    def fill(path: Path) -> None:
        path.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with pytest.raises(Terminal, match=r"thing cannot be made in .*: No space left on device: free some space"):
        Cache(tmp_path).get("thing", A, make=fill)
    assert [path.name for path in tmp_path.iterdir()] == [".lock-thing"]


def test_what_a_killed_make_left_is_cleared_but_only_of_its_own_kind(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    (tmp_path / ".tmp-node.1234").mkdir()
    (tmp_path / ".tmp-node.1234-work").write_text("half")
    (tmp_path / ".tmp-node-base.99").mkdir()  # being made by another process at this very moment
    cache.get("node", A, make=_file)
    assert {path.name for path in tmp_path.glob(".tmp-*")} == {".tmp-node-base.99"}


def test_of_each_kind_the_last_used_two_are_kept(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    for number, key in enumerate((A, B, C)):
        os.utime(cache.get("node", key, make=_file, suffix=".tar"), (number, number))
    cache.get("node-base", A, make=_file)
    cache.get("node", D, make=_file, suffix=".tar")
    left = {path.name for path in tmp_path.glob("node*")}
    assert left == {f"node-{C}.tar", f"node-{D}.tar", f"node-base-{A}"}


def test_use_keeps_a_thing_young(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    for number, key in enumerate((A, B)):
        os.utime(cache.get("node", key, make=_file), (number, number))
    cache.get("node", A, make=_file)
    cache.get("node", C, make=_file)
    assert {path.name for path in tmp_path.glob("node*")} == {f"node-{A}", f"node-{C}"}


def test_a_folders_digest_follows_content_name_and_mode(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    digests = [digest_of_folder(tmp_path)]
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__/a.pyc").write_text("x")
    assert digest_of_folder(tmp_path) == digests[0]
    (tmp_path / "a").write_text("2")
    digests.append(digest_of_folder(tmp_path))
    (tmp_path / "a").chmod(0o755)
    digests.append(digest_of_folder(tmp_path))
    (tmp_path / "a").rename(tmp_path / "b")
    digests.append(digest_of_folder(tmp_path))
    assert len(set(digests)) == 4
