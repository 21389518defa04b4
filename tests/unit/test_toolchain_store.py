"""The store: what is under a component's name is whole, whatever was killed, and one process makes it while others wait."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from moyai.core.errors import MoyaiError
from moyai.toolchain.component_store import ComponentStore
from moyai.toolchain.pins import Pin

PIN = Pin("tool", "1.0", ("a", "b"), "abc")


def _fill(folder: Path) -> str:
    for name in PIN.files:
        (folder / name).write_text(f"program {name}")
    (folder / "more").write_text("left by the build")
    return "here"


def test_made_once_and_found_again(tmp_path: Path) -> None:
    store = ComponentStore(tmp_path)
    assert store.find(PIN) is None
    made = store.make(PIN, _fill, on_wait=print)
    assert (made.name, made.version, made.origin, set(made.files)) == ("tool", "1.0", "here", {"a", "b"})
    assert made.files["a"].read_text() == "program a"
    assert os.access(made.files["a"], os.X_OK)
    assert made.size == 18
    assert sorted(path.name for path in store.path(PIN).iterdir()) == ["a", "b", "component.json"]

    def never(_: Path) -> str:
        raise AssertionError("built again")

    assert store.make(PIN, never, on_wait=print) == made
    assert store.find(PIN) == made


def test_another_key_is_another_component(tmp_path: Path) -> None:
    store = ComponentStore(tmp_path)
    store.make(PIN, _fill, on_wait=print)
    other = Pin("tool", "1.0", ("a", "b"), "def")
    assert store.find(other) is None
    assert store.remove_others({"tool": other}) == [store.path(PIN)]
    assert store.find(PIN) is None


@pytest.mark.parametrize("damage", ["delete", "cut", "manifest", "garbage"])
def test_a_damaged_component_is_not_taken_for_whole_and_recreated(tmp_path: Path, damage: str) -> None:
    store = ComponentStore(tmp_path)
    made = store.make(PIN, _fill, on_wait=print)
    match damage:
        case "delete":
            made.files["b"].unlink()
        case "cut":
            made.files["b"].write_text("pro")
        case "manifest":
            (store.path(PIN) / "component.json").unlink()
        case _:
            (store.path(PIN) / "component.json").write_text('{"files": 3}')
    assert store.find(PIN) is None
    assert store.make(PIN, _fill, on_wait=print).files["b"].read_text() == "program b"


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    store = ComponentStore(tmp_path)

    def fails(folder: Path) -> str:
        (folder / "a").write_text("half")
        raise MoyaiError("the build broke")

    with pytest.raises(MoyaiError, match="the build broke"):
        store.make(PIN, fails, on_wait=print)
    assert store.find(PIN) is None
    assert list((tmp_path / "tool").iterdir()) == []


def test_a_missing_program_is_said(tmp_path: Path) -> None:
    def half(folder: Path) -> str:
        (folder / "a").write_text("x")
        return "the archive"

    with pytest.raises(MoyaiError, match=r"tool 1\.0: b is missing in what was made from the archive"):
        ComponentStore(tmp_path).make(PIN, half, on_wait=print)


@pytest.mark.parametrize(
    ("number", "line"),
    [(errno.ENOSPC, "tool: no space left on the disk of .* make room"), (errno.EROFS, "tool cannot be written below")],
)
def test_a_disk_that_takes_nothing_is_one_clear_line(tmp_path: Path, number: int, line: str) -> None:
    def full(folder: Path) -> str:
        raise OSError(number, os.strerror(number))

    with pytest.raises(MoyaiError, match=line):
        ComponentStore(tmp_path).make(PIN, full, on_wait=print)


_CHILD = """
import os, signal, sys
from pathlib import Path
from moyai.toolchain.pins import Pin
from moyai.toolchain.component_store import ComponentStore

def fill(folder: Path) -> str:
    (folder / "a").write_text("half")
    print("filling", flush=True)
    if sys.argv[2] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.stdin.read()
    (folder / "a").write_text("from the child")
    (folder / "b").write_text("from the child")
    return "child"

ComponentStore(Path(sys.argv[1])).make(Pin("tool", "1.0", ("a", "b"), "abc"), fill, on_wait=print)
"""


def _child(tmp_path: Path, what: str) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(tmp_path), what], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "filling\n"
    return child


def test_killed_while_filling(tmp_path: Path) -> None:
    with _child(tmp_path, "die") as child:
        child.wait()
    assert len(list((tmp_path / "tool").glob(".part-*"))) == 1
    store = ComponentStore(tmp_path)
    assert store.find(PIN) is None
    assert store.make(PIN, _fill, on_wait=print).origin == "here"
    assert list((tmp_path / "tool").glob(".part-*")) == []


def test_two_processes_at_once_one_makes_it_and_the_other_says_that_it_waits(tmp_path: Path) -> None:
    waiting = threading.Event()
    said: list[str] = []

    def on_wait(holder: str) -> None:
        said.append(holder)
        waiting.set()

    def never(_: Path) -> str:
        raise AssertionError("built twice")

    store = ComponentStore(tmp_path)
    with _child(tmp_path, "wait") as child:
        result: list[str] = []

        def make() -> None:
            result.append(store.make(PIN, never, on_wait=on_wait).origin)

        thread = threading.Thread(target=make)
        thread.start()
        assert waiting.wait(10)
        assert child.stdin is not None
        child.stdin.close()
        thread.join(10)
    assert result == ["child"]
    assert said == [f"process {child.pid}"]


def test_the_manifest_holds_checksums(tmp_path: Path) -> None:
    store = ComponentStore(tmp_path)
    store.make(PIN, _fill, on_wait=print)
    manifest = json.loads((store.path(PIN) / "component.json").read_text())
    assert manifest["files"]["a"] == {
        "size": 9,
        "sha256": "a805dcfff64a33f786de1c71a57a08f4cc81d2a819aaf3ef5f0b06d24b4ec74f",
    }
