"""A cache of files and folders. The key of an entry is computed from the inputs of the entry, and each key is made once.

An entry under its final name is whole: it is made under a temporary name and then renamed. A file lock allows one process at a
time to make entries of a kind; the next process finds the entry. The most recently used entries of every kind are kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from moyai.core.errors import Terminal
from moyai.core.files import FULL, naming, rename_durably
from moyai.core.locks import file_lock


def key_of(*parts: Any) -> str:
    """16 hexadecimal digits that change when any of ``parts`` (plain data) changes."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def digest_of_folder(folder: Path, pattern: str = "**/*") -> str:
    """The digest of all files under ``folder`` that match: their paths, modes and contents; compiled Python left out."""
    found = hashlib.sha256()
    for path in sorted(folder.glob(pattern)):
        if path.is_file() and "__pycache__" not in path.parts:
            mode = "x" if os.access(path, os.X_OK) else "-"
            found.update(f"{path.relative_to(folder)}\0{mode}\0{path.stat().st_size}\0".encode())
            found.update(path.read_bytes())
    return found.hexdigest()


class Cache:
    """A folder of made things, called ``<kind>-<key><suffix>``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, kind: str, key: str, *, suffix: str = "") -> Path:
        return self.folder / f"{kind}-{key}{suffix}"

    def get(
        self,
        kind: str,
        key: str,
        *,
        make: Callable[[Path], None],
        suffix: str = "",
        keep: int = 2,
        say: Callable[[str], None] = lambda _: None,
    ) -> Path:
        """The entry of this key. ``make(path)`` makes an absent entry.

        ``keep``: the number of entries of this kind that stay. ``say`` is called if the call waits for another process. Raises
        the errors of ``make``, and Terminal if the disk refuses a write.
        """
        final = self.path(kind, key, suffix=suffix)
        if not final.exists():
            with (
                naming(self.folder),
                file_lock(self.folder / f".lock-{kind}", lambda holder: say(f"waiting for {holder}, which makes it")),
            ):
                if not final.exists():
                    self._make(kind, final, make=make)
                    self._prune(kind, suffix, keep=keep, newest=final)
        os.utime(final)
        return final

    def _make(self, kind: str, final: Path, *, make: Callable[[Path], None]) -> None:
        # this process has the lock: no other process works on a half-made entry
        for stale in self.folder.glob(f".tmp-{kind}.*"):
            # a program of a killed maker may still write there for a moment: then it goes the next time
            with contextlib.suppress(OSError):
                remove(stale)
        temporary = self.folder / f".tmp-{kind}.{os.getpid()}"
        try:
            make(temporary)
            rename_durably(temporary, final)
        except OSError as error:
            raise Terminal(f"{kind} cannot be made in {self.folder}: {error.strerror or error}", hint=_hint(error)) from error
        finally:
            with contextlib.suppress(OSError):
                remove(temporary)

    def _prune(self, kind: str, suffix: str, *, keep: int, newest: Path) -> None:
        found = [
            path
            for path in self.folder.glob(f"{kind}-*")
            if path != newest and path.name == f"{kind}-{path.name[len(kind) + 1 :][:16]}{suffix}"
        ]
        found.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for old in found[max(0, keep - 1) :]:
            remove(old)


def _hint(error: OSError) -> str | None:
    return "free some space, or set MOYAI_CACHE_DIR to another disk" if error.errno in FULL else None


def remove(path: Path) -> None:
    """Delete a file, or a folder with its content. An absent path is no error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
