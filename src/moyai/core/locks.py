"""Locks between processes: a file that one at a time holds. The lock dies with its holder, however that ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path

from moyai.core.files import naming


@contextmanager
def file_lock(
    path: Path, on_wait: Callable[[str], None], *, waiting: Callable[[], AbstractContextManager[None]] = nullcontext
) -> Generator[None]:
    """Hold the lock on ``path`` against other processes and threads, waiting for it if need be; makes its folder.

    ``on_wait`` is called before a wait, with the holder's name ("process 4711"). A caller that does not want to wait raises
    an error there. ``waiting``: runs around the wait.
    """
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait(f"process {os.pread(handle, 32, 0).decode(errors='replace').strip() or '?'}")
            with waiting():
                fcntl.flock(handle, fcntl.LOCK_EX)
        with suppress(OSError):  # on a full disk nobody learns the holder's number; the lock holds all the same
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)
