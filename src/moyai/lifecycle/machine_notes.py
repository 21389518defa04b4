"""What moyai keeps of a machine beside the record, where the cloud has no place for it: the metadata that it was made with,
what it runs first, and the public address at which it is logged in to.

One folder for each node, in the record's folder. Always holds: what a machine runs first is on disk before the machine is asked
for, readable for its owner alone, and goes once the machine has run it; a file that is damaged counts as one that is not there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from moyai.core.files import write_private

_FOLDER, _FACTS, _START, _ADDRESS = "machines", "metadata.json", "start", "address"


class MachineNotes:
    """``folder``: the record's."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / _FOLDER

    def keep(self, node: str, *, metadata: Mapping[str, str], start: str) -> None:
        """Of a machine that is about to be made; what an earlier one of its name had is gone. ``start`` empty: none."""
        folder = self._made(node)
        (folder / _ADDRESS).unlink(missing_ok=True)
        write_private(folder / _FACTS, json.dumps(dict(metadata), indent=1))
        if start:
            write_private(folder / _START, start)
        else:
            (folder / _START).unlink(missing_ok=True)

    def keep_address(self, node: str, address: str) -> None:
        if address != self.address(node):
            write_private(self._made(node) / _ADDRESS, address)

    def started(self, node: str) -> None:
        """The machine has run its start."""
        (self._folder / node / _START).unlink(missing_ok=True)

    def unstarted(self) -> frozenset[str]:
        """Nodes whose start is kept."""
        return frozenset(file.parent.name for file in self._folder.glob(f"*/{_START}"))

    def start(self, node: str) -> str:
        return self._read(node, _START)

    def address(self, node: str) -> str:
        return self._read(node, _ADDRESS).strip()

    def metadata(self, node: str) -> dict[str, str]:
        try:
            found: Any = json.loads(self._read(node, _FACTS) or "{}")
        except ValueError:
            return {}
        return cast("dict[str, str]", found) if isinstance(found, dict) else {}

    def _made(self, node: str) -> Path:
        folder = self._folder / node
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return folder

    def _read(self, node: str, name: str) -> str:
        try:
            return (self._folder / node / name).read_text(encoding="utf-8")
        except (OSError, ValueError):
            return ""
