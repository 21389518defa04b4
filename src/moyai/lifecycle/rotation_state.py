"""Where a rotation of certificates or keys stands: what the record's keys are at its stage, and what people read of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from moyai.bootstrap import rotation_files
from moyai.lifecycle.record import Record
from moyai.lifecycle.record_format import ENCRYPTION_KEY
from moyai.plan.rotation import COMMANDS, Rotated, Rotation


@dataclass(frozen=True)
class RotationStatus:
    """``stage``: as on record. ``due``: when the next stage may begin (ISO 8601), empty where nothing is waited for. ``text``:
    one line for people."""

    what: str
    stage: str
    begun: str
    due: str
    text: str


def prepare(record: Record, rotation: Rotation) -> None:
    """Bring the record's own keys to the stage; it may be done again at any time."""
    rotation_files.advance(record.folder / "pki", rotation)
    if rotation.what is Rotated.ENCRYPTION_KEY:
        known = record.secret(ENCRYPTION_KEY)
        if (wanted := rotation_files.encryption_at(known, rotation)) != known:
            record.keep_secret(ENCRYPTION_KEY, wanted)


def rotation_status(record: Record, *, now: datetime) -> RotationStatus | None:
    """None where there is no rotation."""
    at = record.rotation
    if at is None:
        return None
    command = COMMANDS[at.what]
    due = at.due.isoformat(timespec="seconds") if at.due and at.waits(now) else ""
    goes_on = f"from {due} on `{command}` ends it" if due else f"`{command}` goes on"
    text = f"the rotation of the {at.what}, begun {at.begun}, stands at {at.stage!s}: {goes_on}"
    return RotationStatus(str(at.what), str(at.stage), at.begun, due, text)
