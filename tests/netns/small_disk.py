"""A real file system without room: a tmpfs in a mount namespace of a thread's own, whose size is set to the page and the inode.

A thread's namespace is that of the threads and processes that it starts. It goes with them, however the test ends.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from moyai.core.errors import MoyaiError, UsageError

PAGE = os.sysconf("SC_PAGE_SIZE")
#: Of what there is too little: bytes, or files and folders.
Shortage = Literal["pages", "inodes"]
_CLONE_NEWNS, _MS_REMOUNT, _MS_REC, _MS_PRIVATE = 0x00020000, 32, 16384, 1 << 18
_PLENTY = {"pages": 20_000, "inodes": 20_000}
_LIBC = ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _mount(target: Path, kind: str, *, flags: int, data: str = "") -> None:
    _checked(_LIBC.mount(b"none", os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), data.encode()))


class SmallDisk:
    """``folder``: where it is mounted; there is plenty of room until ``leave`` says otherwise."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        _mount(folder, "tmpfs", flags=0, data=self._sizes(**_PLENTY))

    def leave(self, count: int, shortage: Shortage) -> None:
        """From now on there is room for so many more pages, or inodes, and no more."""
        now = os.statvfs(self.folder)
        used = {"pages": now.f_blocks - now.f_bfree, "inodes": now.f_files - now.f_ffree}
        # a size of 0 means no limit
        room = max(1, used[shortage] + count)
        _mount(self.folder, "tmpfs", flags=_MS_REMOUNT, data=self._sizes(**{**_PLENTY, shortage: room}))
        if used[shortage] + count < 1:
            (self.folder / "ballast").write_bytes(b"x")

    def make_room(self) -> None:
        (self.folder / "ballast").unlink(missing_ok=True)
        _mount(self.folder, "tmpfs", flags=_MS_REMOUNT, data=self._sizes(**_PLENTY))

    def _sizes(self, *, pages: int, inodes: int) -> str:
        return f"size={pages * PAGE},nr_inodes={inodes}"


def on_small_disk(folder: Path, body: Callable[[SmallDisk], None]) -> None:
    """Call ``body`` with a disk that is mounted on ``folder``; raises what it raises."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            _checked(_LIBC.unshare(_CLONE_NEWNS))
            _mount(Path("/"), "none", flags=_MS_REC | _MS_PRIVATE)
            body(SmallDisk(folder))
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


#: More than any writer here needs.
MOST = 400


def one_line(error: BaseException, disk: SmallDisk) -> None:
    """What a user sees of it."""
    assert isinstance(error, MoyaiError), repr(error)
    assert not isinstance(error, UsageError)
    text = str(error)
    assert "\n" not in text
    assert "o space left on" in text, text
    assert str(disk.folder) in text, text
    assert error.exit_code == 1


def every_shortage(
    tmp_path: Path,
    shortage: Shortage,
    *,
    prepare: Callable[[Path], Any],
    act: Callable[[Any], object],
    intact: Callable[[Any], object],
    done: Callable[[Any], object],
    says: Callable[[BaseException, SmallDisk], None] = one_line,
) -> int:
    """Run ``act`` with ever more room, each time in a new folder, until it succeeds; returns how often it failed.

    ``prepare`` makes what was there before. ``intact`` looks after each failure, ``done`` after each success.
    """
    mount = tmp_path / "disk"
    mount.mkdir()
    failed = 0

    def body(disk: SmallDisk) -> None:
        nonlocal failed
        for room in range(MOST):
            folder = mount / str(room)
            folder.mkdir()
            site = prepare(folder)
            disk.leave(room, shortage)
            try:
                act(site)
            except (MoyaiError, OSError) as error:
                says(error, disk)
                disk.make_room()
                intact(site)
                act(site)
                done(site)
                failed += 1
                shutil.rmtree(folder)
            else:
                disk.make_room()
                done(site)
                return
        raise AssertionError(f"not done with room for {MOST} {shortage}")

    on_small_disk(mount, body)
    return failed


def no_rest(folder: Path) -> None:
    """Nothing that was written aside is left."""
    assert not [path for path in folder.rglob(".*") if path.is_file() and not path.name.endswith(".lock")]
    assert not list(folder.rglob("*.new"))


def names_the_file(error: BaseException, disk: SmallDisk) -> None:
    """What the log of one of the local cloud's programs says."""
    assert isinstance(error, OSError)
    assert error.errno == errno.ENOSPC
    assert str(error.filename).startswith(str(disk.folder))
