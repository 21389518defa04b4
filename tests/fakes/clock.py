"""Time that tests decide: a clock that moves when it is slept on, and an event loop that lives in such time.

``FakeClock`` alone serves code in threads: ``sleep`` moves time on and returns at once; ``asleep`` does the same and gives the
other tasks a turn, however long they would have to wait.

Where several tasks wait side by side their order matters. A module marked ``pytest.mark.virtual_time`` runs its tests on a
``VirtualLoop``: time stands still while any task or worker thread has something to do, and then jumps to the next timer
(``asyncio.sleep``, ``asyncio.timeout``, ``call_later`` and ``asleep`` alike). A ``FakeClock`` made there shows the loop's time.
looptime has such a loop too, but jumps while a worker thread runs, so the cloud's calls would time out.
Not for tests with sockets: nobody outside of the process waits for the jumps.
"""

from __future__ import annotations

import asyncio
import selectors
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from datetime import UTC, datetime
from typing import Any

#: The shortest step that moves the loop's time.
_INSTANT = 1e-6


class Elapsed:
    """Seconds since the start; threads may move it."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._lock = threading.Lock()

    @property
    def seconds(self) -> float:
        return self._seconds

    def move(self, seconds: float) -> None:
        with self._lock:
            self._seconds += seconds


class FakeClock:
    def __init__(self, start: datetime | None = None) -> None:
        self._start = start or datetime(2026, 1, 1, tzinfo=UTC)
        self._loop = _virtual_loop()
        self._elapsed = self._loop.elapsed if self._loop else Elapsed()
        # a loop's time began before this clock
        self._zero = self._elapsed.seconds

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._start.timestamp() + self.monotonic(), UTC)

    def monotonic(self) -> float:
        return self._elapsed.seconds - self._zero

    def sleep(self, seconds: float, *, wake: threading.Event | None = None) -> None:
        if not (wake and wake.is_set()):
            self._elapsed.move(seconds)

    async def asleep(self, seconds: float) -> None:
        if self._loop and asyncio.get_running_loop() is self._loop:
            await asyncio.sleep(seconds)
        else:
            self._elapsed.move(seconds)
            await asyncio.sleep(0)

    async def advance(self, seconds: float = 0.0) -> None:
        """Let time pass, with everything that falls due in it, until all tasks and threads are idle. On a VirtualLoop only."""
        assert self._loop, "the test's module is not marked virtual_time"
        await asyncio.sleep(seconds)
        await asyncio.sleep(2 * _INSTANT)


def _virtual_loop() -> VirtualLoop | None:
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return None
    return loop if isinstance(loop, VirtualLoop) else None


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next timer as soon as nothing else is to be done."""

    def __init__(self) -> None:
        self.elapsed = Elapsed()
        self._in_threads = 0
        super().__init__(_Jumping(self))

    def time(self) -> float:
        return self.elapsed.seconds

    @property
    def waits_for_threads(self) -> bool:
        return self._in_threads > 0

    def run_in_executor(self, executor: Executor | None, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        self._in_threads += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._back)
        return future

    def _back(self, _: asyncio.Future[Any]) -> None:
        self._in_threads -= 1


class _Jumping(selectors.DefaultSelector):
    """Does not block where only time would pass: it moves the loop's time on instead."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        if self._loop.waits_for_threads:
            # the thread's end wakes the loop; then the same timers are looked at again
            return super().select(None)
        if events := super().select(0):
            return events
        self._loop.elapsed.move(max(timeout, _INSTANT))
        return []
