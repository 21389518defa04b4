"""A time of the cloud's own, for callers who count calls instead of seconds (``Delays.looks``)."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta

_START = datetime(2026, 1, 1, tzinfo=UTC)


class OwnTime:
    """A clock that moves when somebody sleeps on it, and then at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._elapsed = 0.0

    def now(self) -> datetime:
        return _START + timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        return self._elapsed

    def sleep(self, seconds: float, *, wake: threading.Event | None = None) -> None:
        with self._lock:
            self._elapsed += seconds

    async def asleep(self, seconds: float) -> None:
        self.sleep(seconds)
        await asyncio.sleep(0)
