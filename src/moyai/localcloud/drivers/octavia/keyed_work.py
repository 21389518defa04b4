"""Work on many things side by side, and on each of them by one thread at a time.

What is to be done with a thing is a set of reasons. A worker takes all of a thing's reasons at once; what is added meanwhile
is work for afterwards. So a burst of calls costs one piece of work, and none is lost. A thing that takes long occupies one
worker and holds no other thing up.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

LOG = logging.getLogger(__name__)
Reason = TypeVar("Reason", bound=Hashable)


class KeyedWork(Generic[Reason]):
    """``do(key, reasons)`` is called by ``workers`` threads; an exception of it is logged and ends that piece of work only."""

    def __init__(self, do: Callable[[str, frozenset[Reason]], None], *, workers: int) -> None:
        self._do = do
        self._lock = threading.Lock()
        self._ready = threading.Condition(self._lock)
        self._plans = threading.Condition(self._lock)
        self._reasons: dict[str, set[Reason]] = {}  # what waits
        self._running: set[str] = set()
        self._urgent: deque[str] = deque()
        self._rest: deque[str] = deque()
        self._due: list[tuple[float, int, str, Reason]] = []
        self._number = itertools.count()
        self._planned: dict[tuple[str, Reason], float] = {}  # the one moment that counts of those in ``_due``
        self._stopping = False
        self._threads = [threading.Thread(target=self._work, name=f"lb-{n}", daemon=True) for n in range(workers)]
        self._clock = threading.Thread(target=self._add_due, name="lb-clock", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        for thread in (*self._threads, self._clock):
            thread.start()

    def stop(self) -> None:
        """Take nothing new, drop what waits, and return when what runs has ended."""
        with self._lock:
            self._stopping = True
            self._reasons.clear()
            self._ready.notify_all()
            self._plans.notify_all()
        for thread in (*self._threads, self._clock):
            thread.join()

    def add(self, key: str, reason: Reason, *, urgent: bool = True) -> None:
        """Let the work be done once more, before all that is not ``urgent``."""
        with self._lock:
            self._add(key, reason, urgent=urgent)

    def later(self, key: str, reason: Reason, *, seconds: float) -> None:
        """Add it (not urgent) after that time; an earlier plan for the same gives way."""
        with self._lock:
            due = time.monotonic() + seconds
            self._planned[key, reason] = due
            heapq.heappush(self._due, (due, next(self._number), key, reason))
            self._plans.notify()

    def forget(self, key: str, reason: Reason) -> None:
        """Give a plan up."""
        with self._lock:
            self._planned.pop((key, reason), None)

    def busy(self, key: str) -> bool:
        """Whether work on it waits or runs."""
        with self._lock:
            return key in self._running or key in self._reasons

    def take(self, key: str) -> frozenset[Reason]:
        """For ``do``: what was added since it began. The caller does that as well, in the same go."""
        with self._lock:
            return frozenset(self._reasons.pop(key, ()))

    def _add(self, key: str, reason: Reason, *, urgent: bool) -> None:
        if self._stopping:
            return
        waits = key in self._reasons
        self._reasons.setdefault(key, set()).add(reason)
        # a key may stand in both lines: whichever is reached first takes all, the other finds nothing
        if key not in self._running and (urgent or not waits):
            (self._urgent if urgent else self._rest).append(key)
            self._ready.notify()

    def _next(self) -> tuple[str, frozenset[Reason]] | None:
        with self._lock:
            while not self._stopping:
                for line in (self._urgent, self._rest):
                    while line:
                        key = line.popleft()
                        if key not in self._running and key in self._reasons:
                            self._running.add(key)
                            return key, frozenset(self._reasons.pop(key))
                self._ready.wait()
        return None

    def _work(self) -> None:
        while (found := self._next()) is not None:
            key, reasons = found
            try:
                self._do(key, reasons)
            except Exception:
                LOG.exception("%s: failed", key)
            with self._lock:
                self._running.discard(key)
                if key in self._reasons:
                    self._urgent.append(key)
                    self._ready.notify()

    def _add_due(self) -> None:
        with self._lock:
            while not self._stopping:
                now = time.monotonic()
                while self._due and self._due[0][0] <= now:
                    due, _, key, reason = heapq.heappop(self._due)
                    if self._planned.get((key, reason)) == due:
                        del self._planned[key, reason]
                        self._add(key, reason, urgent=False)
                self._plans.wait(self._due[0][0] - now if self._due else None)
