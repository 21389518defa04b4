"""One line of the doctor's report."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """``MISSING``: the cloud lacks it, or it ends soon. ``UNKNOWN``: the cloud does not report it, or not to this user."""

    OK = "ok"
    MISSING = "missing"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Finding:
    """``subject``: what was looked at. ``text``: what was found. ``advice``: what its absence costs and what to do about it."""

    subject: str
    state: State
    text: str
    advice: str = ""

    def data(self) -> dict[str, str]:
        return {"subject": self.subject, "state": self.state.value, "text": self.text, "advice": self.advice}
