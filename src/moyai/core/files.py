"""Files that are whole or not there: written aside, synced, renamed. A kill at any moment leaves the old one or the new one.

If the disk is full, ``naming`` makes the error one line that names the file. ``linux.files`` does the same for the local
cloud's own programs.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from moyai.core.errors import NoSpace

#: The kernel's numbers for a file system without room, and for a user's share that is used up.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
#: One sync of all file systems costs less than waiting for the disk more often than this.
_MANY = 100


def no_space(error: OSError, file: object) -> NoSpace:
    """The error for ``file``, which a full disk did not take."""
    text = f"{file} cannot be written: {os.strerror(error.errno or errno.ENOSPC)}"
    return NoSpace(text, hint="make room, then give the same command again")


@contextmanager
def naming(file: object) -> Generator[None]:
    """For whatever writes ``file`` by itself: a full disk is a NoSpace that names it."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise no_space(error, file) from error
        raise


def write_private(file: Path, content: str | bytes, *, mode: int = 0o600) -> None:
    """Write a file whole or not at all, readable by its owner only (or as ``mode`` says) at every moment; makes its folder.

    Raises NoSpace, and OSError for anything else that the disk refuses; the old file is then untouched.
    """
    with naming(file):
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = file.with_name(f".{file.name}.{os.getpid()}.{threading.get_ident()}")
        # what an earlier process of the same number left could be open to others
        temporary.unlink(missing_ok=True)
        data = content.encode() if isinstance(content, str) else content
        try:
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(file)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync(file.parent)


@contextmanager
def writing_private(file: Path, *, replaces: bool) -> Generator[BinaryIO]:
    """A stream for the content of a file, which only its owner can read. The file is there, whole, when the block has ended
    without an error. ``replaces``: whether a file of this name may be there.

    Raises FileExistsError, NoSpace, and OSError for anything else that the disk refuses.
    """
    temporary = file.with_name(f".{file.name}.{os.getpid()}.{threading.get_ident()}")

    def refuse() -> None:
        if not replaces and os.path.lexists(file):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(file))

    with naming(file):
        refuse()
        temporary.unlink(missing_ok=True)
        try:
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
            refuse()
            temporary.replace(file)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync(file.parent)


def rename_durably(new: Path, path: Path) -> None:
    """Give a file, or a folder with its content, its name. It is on the disk before it has the name, which is then synced.

    Raises NoSpace, and OSError for anything else that the disk refuses.
    """
    with naming(path):
        inside = [found for found in new.rglob("*") if not found.is_symlink()]
        if len(inside) > _MANY:
            os.sync()
        else:
            for found in (*inside, new):
                sync(found)
        new.replace(path)
        sync(path.parent)


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
