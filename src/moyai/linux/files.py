"""Files that are whole or not there, also after a loss of power. (``core.files`` is its like for moyai's own processes.)

Loaded also in OpenStack's own environment and by the supervisor: standard library only, and little of it.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def write_durably(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Write a file that only its owner reads (or as ``mode`` says): written aside, synced, renamed; then its folder is synced.

    Raises OSError that names the file; the old one is then untouched, and nothing of the new one stays.
    """
    _write(path, text, mode=mode, durable=True)


def write_whole(path: Path, text: str) -> None:
    """The same for a file that means nothing once the host has stopped: whole after a kill, without the wait for the disk."""
    _write(path, text, mode=0o600, durable=False)


def _write(path: Path, text: str, *, mode: int, durable: bool) -> None:
    new = path.with_name(f"{path.name}.new")
    try:
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
            file.write(text)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        new.rename(path)
        if durable:
            sync(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            new.unlink()
        raise OSError(error.errno, os.strerror(error.errno or 0), os.fspath(path)) from None


def rename_durably(new: Path, path: Path) -> None:
    """Give a file that is already synced its name, and sync the folder."""
    new.rename(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
