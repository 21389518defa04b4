"""Files that are whole or not there: written aside, synced, renamed. A kill at any moment leaves the old one or the new one."""

from __future__ import annotations

import os
import threading
from pathlib import Path


def write_private(file: Path, content: str | bytes, *, mode: int = 0o600) -> None:
    """Write a file whole or not at all, readable by its owner only (or as ``mode`` says) at every moment; makes its folder."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.{threading.get_ident()}")
    # what an earlier process of the same number left could be open to others
    temporary.unlink(missing_ok=True)
    data = content.encode() if isinstance(content, str) else content
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
