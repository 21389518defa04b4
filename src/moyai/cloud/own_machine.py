"""What a machine of a cloud knows of itself, without a login."""

from __future__ import annotations

from typing import Protocol

from moyai.cloud.model import Instance


class Guest(Protocol):
    """What a machine of a cloud knows of itself without logging in: ``Adapter.guest`` on the machine."""

    def instance(self) -> Instance | None:
        """Which machine this is; None while no source names it. Blocks for some seconds."""
        ...

    def disk_links(self, volume_id: str, device: str = "") -> tuple[str, ...]:
        """Where a volume shows in /dev once it is attached, the likeliest place first. ``device``: ``Attachment.device``, for a
        cloud on which the place does not follow from the volume; none are known there without it."""
        ...
