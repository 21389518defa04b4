"""Files that are whole or not there, also after a loss of power. (``core.files`` is its like for moyai's own processes.)

Loaded also in OpenStack's own environment: standard library only.
"""

from __future__ import annotations

import os
from pathlib import Path


def write_durably(path: Path, text: str) -> None:
    """Write a file that only its owner reads: written aside, synced, renamed; then its folder is synced."""
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    rename_durably(new, path)


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
