"""Time, injected: code that waits or dates takes a ``Clock`` so that tests decide what time it is.

``sleep`` blocks its thread, ``asleep`` suspends its task: each loop that waits exists for both worlds.
"""

from __future__ import annotations

import asyncio
import threading
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    def now(self) -> datetime:
        """The time of day, in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back."""
        ...

    def sleep(self, seconds: float, *, wake: threading.Event | None = None) -> None:
        """Block for ``seconds``, or until ``wake`` is set."""
        ...

    async def asleep(self, seconds: float) -> None:
        """Suspend the task for ``seconds``; cancelling the task ends it at once."""
        ...


class SystemClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float, *, wake: threading.Event | None = None) -> None:
        if wake is None:
            time.sleep(seconds)
        else:
            wake.wait(seconds)

    async def asleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class BootClock(SystemClock):
    """Its ``monotonic`` goes on while the machine is suspended (CLOCK_BOOTTIME): for promises to other machines."""

    def monotonic(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)
