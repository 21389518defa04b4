"""A queue of keys: what is added twice is worked on once, a key is never worked on twice at the same time.

A key that is added while it is being worked on comes again afterwards. ``add_later`` keeps the earliest time. Failures are
counted per key and make the next try later. All of it belongs to one event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque

from moyai.core.backoff import Backoff


class WorkQueue:
    def __init__(self, backoff: Backoff | None = None) -> None:
        self._backoff = backoff or Backoff(base=0.2, ceiling=300)
        self._ready: deque[str] = deque()
        self._queued: set[str] = set()
        self._working: set[str] = set()
        self._again: set[str] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._failures: dict[str, int] = {}
        self._wake = asyncio.Event()

    # no __len__: an empty queue would count as false, where a caller asks whether it was given one
    @property
    def waiting(self) -> int:
        """How many keys wait for a worker now."""
        return len(self._ready)

    @property
    def idle(self) -> bool:
        """Whether nothing is worked on and nothing waits for a worker."""
        return not self._ready and not self._working

    def add(self, key: str) -> None:
        """Now, or as soon as the work on it that is under way ends."""
        if timer := self._timers.pop(key, None):
            timer.cancel()
        if key in self._working:
            self._again.add(key)
        elif key not in self._queued:
            self._queued.add(key)
            self._ready.append(key)
            self._wake.set()

    def add_later(self, key: str, seconds: float) -> None:
        """After ``seconds``, unless it is due earlier anyway."""
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        timer = self._timers.get(key)
        if timer and timer.when() <= due:
            return
        if timer:
            timer.cancel()
        self._timers[key] = loop.call_at(due, self.add, key)

    def add_failed(self, key: str, *, at_most: float = float("inf")) -> float:
        """Later and later with every failure, but after ``at_most`` seconds; returns after how many."""
        count = self._failures.get(key, 0)
        self._failures[key] = count + 1
        delay = min(self._backoff.delay(count), at_most)
        self.add_later(key, delay)
        return delay

    def failures(self, key: str) -> int:
        return self._failures.get(key, 0)

    def forget(self, key: str) -> None:
        """It went well: the next failure is the first again."""
        self._failures.pop(key, None)

    async def get(self) -> str:
        """The next key; ``done`` must be called for it."""
        while not self._ready:
            self._wake.clear()
            await self._wake.wait()
        key = self._ready.popleft()
        self._queued.discard(key)
        self._working.add(key)
        return key

    def done(self, key: str) -> None:
        self._working.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def close(self) -> None:
        """No timer fires any more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
