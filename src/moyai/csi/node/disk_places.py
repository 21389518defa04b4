"""Where an attached volume shows, on a cloud on which that does not follow from the volume: the place that the controller
published is kept from staging until unstaging, because the calls in between do not name it.

Always holds: a place is on disk before a pod gets the volume; a file that cannot be read counts as no place.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

from moyai.core.files import write_private

#: Volume's id and the place that the cloud told, empty for none → paths in /dev, the likeliest first.
Links = Callable[[str, str], tuple[str, ...]]


class DiskPlaces:
    """``links``: the adapter's. ``folder``: where places are kept; None: they follow from the volume."""

    def __init__(self, links: Links, folder: Path | None) -> None:
        self._links, self._folder = links, folder

    @property
    def kept(self) -> bool:
        """Whether there is anything to keep: then the cloud may take a disk away only when the machine has let go of it."""
        return self._folder is not None

    def links(self, volume_id: str, device: str = "") -> tuple[str, ...]:
        return self._links(volume_id, device or self._kept(volume_id))

    def keep(self, volume_id: str, device: str) -> None:
        if self._folder and device and not self._links(volume_id, ""):
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o750)
            write_private(self._file(self._folder, volume_id), device)

    def forget(self, volume_id: str) -> None:
        if self._folder:
            self._file(self._folder, volume_id).unlink(missing_ok=True)

    def _kept(self, volume_id: str) -> str:
        if self._folder is None:
            return ""
        try:
            return self._file(self._folder, volume_id).read_text(encoding="utf-8")
        except (OSError, ValueError):
            return ""

    @staticmethod
    def _file(folder: Path, volume_id: str) -> Path:
        # an id is the cloud's word and no name of a file
        return folder / hashlib.sha256(volume_id.encode()).hexdigest()
