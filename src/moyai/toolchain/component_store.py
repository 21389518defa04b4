"""Where components are kept: ``<cache>/toolchain/<name>/<version>-<key>/`` with the programs and ``component.json``.

What always holds: a folder of that name is whole. It is filled under another name in the same folder, synced to disk and
then renamed, so a kill at any moment leaves only a ``.part-*`` folder, which the next run removes. Only the holder of the
component's file lock (``<name>.lock``; the kernel frees it with the process) fills or renames.
"""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moyai.core.errors import MoyaiError, NoSpace
from moyai.core.files import FULL, rename_durably
from moyai.core.locks import file_lock
from moyai.toolchain.pins import Pin

_MANIFEST = "component.json"


@dataclass(frozen=True)
class Component:
    """What ``ensure`` returns: ``files`` maps each program's name to where it is; ``origin`` says how it came here."""

    name: str
    version: str
    origin: str
    files: Mapping[str, Path]

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(path.stat().st_size for path in self.files.values())


class ComponentStore:
    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, pin: Pin) -> Path:
        return self._root / pin.name / f"{pin.version}-{pin.key}"

    def find(self, pin: Pin) -> Component | None:
        """The component if it is whole (every file exists with its recorded size), else None."""
        folder = self.path(pin)
        try:
            manifest: dict[str, Any] = json.loads((folder / _MANIFEST).read_text())
            files = {name: folder / name for name in manifest["files"]}
            whole = all(path.stat().st_size == manifest["files"][name]["size"] for name, path in files.items())
            if not whole or not set(pin.files) <= set(files):
                return None
            return Component(pin.name, pin.version, manifest["origin"], files)
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def make(self, pin: Pin, fill: Callable[[Path], str], *, on_wait: Callable[[str], None]) -> Component:
        """The component. ``fill`` makes an absent component: it puts the files in a folder and returns the origin.

        Waits for another process that makes the same component, and calls ``on_wait`` with the name of that process. Raises
        the errors of ``fill``, and MoyaiError if the disk is full or a file is missing afterwards.
        """
        with disk_errors(pin.name, self._root), self._lock(pin.name, on_wait):
            if found := self.find(pin):
                return found
            folder = self._root / pin.name
            for leftover in folder.glob(".part-*"):
                shutil.rmtree(leftover, ignore_errors=True)
            part = Path(tempfile.mkdtemp(prefix=".part-", dir=folder))
            try:
                origin = fill(part)
                self._seal(pin, part, origin=origin)
                target = self.path(pin)
                if target.exists():  # the folder has the right name, but its files were deleted or cut
                    shutil.rmtree(target)
                rename_durably(part, target)
            finally:
                shutil.rmtree(part, ignore_errors=True)
        found = self.find(pin)
        if found is None:
            raise MoyaiError(f"{pin.name} was made, but is not whole in {self.path(pin)}", hint="is the disk all right?")
        return found

    def remove_others(self, pins: Mapping[str, Pin]) -> list[Path]:
        """Remove every component folder that no pin names (older versions); returns what was removed."""
        kept = {self.path(pin) for pin in pins.values()}
        gone: list[Path] = []
        for folder in sorted(path for path in self._root.glob("*/*-*") if path.is_dir()):
            if folder not in kept and not folder.name.startswith("."):
                shutil.rmtree(folder)
                gone.append(folder)
        return gone

    @contextmanager
    def _lock(self, name: str, on_wait: Callable[[str], None]) -> Generator[None]:
        (self._root / name).mkdir(parents=True, exist_ok=True)
        with file_lock(self._root / f"{name}.lock", on_wait):
            yield

    def _seal(self, pin: Pin, part: Path, *, origin: str) -> None:
        files: dict[str, dict[str, object]] = {}
        for name in pin.files:
            path = part / name
            if not path.is_file():
                raise MoyaiError(f"{pin.name} {pin.version}: {name} is missing in what was made from {origin}")
            path.chmod(0o755)
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            files[name] = {"size": path.stat().st_size, "sha256": digest}
        for extra in part.iterdir():
            if extra.name not in files:
                shutil.rmtree(extra) if extra.is_dir() else extra.unlink()
        with (part / _MANIFEST).open("w") as file:
            json.dump({"name": pin.name, "version": pin.version, "origin": origin, "files": files}, file, indent=1)
        part.chmod(0o755)


@contextmanager
def disk_errors(what: str, folder: Path) -> Generator[None]:
    """Turn a full or forbidden disk into one clear line."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise disk_full(what, folder) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise MoyaiError(f"{what} cannot be written below {folder}", hint=error.strerror) from error
        raise


def disk_full(what: str, folder: Path) -> MoyaiError:
    """The error for a disk without room."""
    free = shutil.disk_usage(folder).free if folder.exists() else 0
    return NoSpace(
        f"{what}: no space left on the disk of {folder} ({free / 1e9:.1f} GB free)",
        hint="about 12 GB are needed; make room or set MOYAI_CACHE_DIR to a larger disk, then run it again",
    )
