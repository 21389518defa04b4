"""Files that belong to the user and in which moyai keeps entries of its own: a kubeconfig, a clouds.yaml.

Always holds: a link stays a link, and the file behind it is changed; what is no regular file is refused, never replaced; an
existing file keeps its owner and its mode, but for the rights of group and others; two processes of moyai change a file one
after the other.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from moyai.core.errors import UsageError
from moyai.core.files import FULL, no_space, write_private

#: More is no configuration file.
_LIMIT = 16 << 20


@contextmanager
def editing(file: Path) -> Generator[UserFile]:
    """The file while nobody else of moyai's changes it. Raises UsageError for what cannot be read, or is no regular file."""
    with _refusing(file):
        target = file.resolve()
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # the folder is the lock: it is there before the file, and nothing is left behind
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield UserFile(file, target)
    finally:
        os.close(folder)


class UserFile:
    """``named``: as the user calls it. ``target``: where links lead."""

    def __init__(self, named: Path, target: Path) -> None:
        self.named, self.target = named, target

    def read(self) -> str | None:
        """The content as text, None where there is no file."""
        with _refusing(self.named):
            status = self._status()
            if status is None:
                return None
            # never blocks: a file may have become a FIFO since
            handle = os.open(self.target, os.O_RDONLY | os.O_NONBLOCK)
            with os.fdopen(handle, "rb") as stream:
                data = stream.read(_LIMIT + 1)
            if len(data) > _LIMIT:
                raise UsageError(f"{self.named} is too large for a configuration file", hint=f"at most {_LIMIT >> 20} MiB")
            return data.decode()

    def write(self, content: str) -> None:
        """Replace the whole content; a new file is readable by its owner only."""
        with _refusing(self.named):
            before = self._status()
            # moyai's entries are credentials
            write_private(self.target, content, mode=stat.S_IMODE(before.st_mode) & ~0o077 if before else 0o600)
            if before and (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                with suppress(PermissionError):
                    os.chown(self.target, before.st_uid, before.st_gid)

    def remove(self) -> None:
        with _refusing(self.named):
            self.target.unlink(missing_ok=True)

    def _status(self) -> os.stat_result | None:
        try:
            status = self.target.lstat()
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"{self.named} is no regular file", hint="name a file, or one that does not exist yet")
        return status


@contextmanager
def _refusing(file: Path) -> Generator[None]:
    """Turns what the file system says into one line for the user."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise no_space(error, file) from None
        raise UsageError(f"{file} cannot be used: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{file} is no text") from None
    except RuntimeError:  # links in a circle, before Python 3.13
        raise UsageError(f"{file} cannot be used: its links lead in a circle") from None
