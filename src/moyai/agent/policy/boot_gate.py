"""The marker that makes the node's gate close when the machine boots (``plan.network_policy.boot_gate``)."""

from __future__ import annotations

from pathlib import Path

from moyai.core.errors import NoSpace, Retriable
from moyai.core.files import write_private


class BootGate:
    """``marker``: None on a node that has no gate. Calls block; both may be repeated. They raise Retriable."""

    def __init__(self, marker: Path | None) -> None:
        self._marker = marker

    def keep(self) -> None:
        """At the next boot pods have no traffic before the agent's first transaction."""
        marker = self._marker
        if marker is None or marker.exists():
            return
        try:
            write_private(marker, "")
        except (OSError, NoSpace) as error:
            raise Retriable(f"{marker} cannot be written, so pods have traffic at once after a boot ({error})") from error

    def drop(self) -> None:
        """At the next boot pods have traffic at once."""
        if self._marker is None:
            return
        try:
            self._marker.unlink(missing_ok=True)
        except OSError as error:
            raise Retriable(f"{self._marker} cannot be removed, so pods have no traffic after a boot ({error})") from error
