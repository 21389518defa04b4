"""One operation at a time for each volume. Operations on different volumes run at the same time.

An operation that has begun runs to its end, also when its caller gives up meanwhile: what it asked the cloud for goes on
anyway, and a second try beside it could make a thing twice. The second try waits for the first, and then finds what it made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Serial:
    """A key without an operation is forgotten."""

    def __init__(self) -> None:
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    def __len__(self) -> int:
        return len(self._locks)

    async def run(self, key: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        lock = self._take(key)
        try:
            await lock.acquire()
        except BaseException:
            self._give_back(key)
            raise
        task = asyncio.create_task(work())

        def ended(done: asyncio.Task[T]) -> None:
            lock.release()
            self._give_back(key)
            if not done.cancelled():
                # read, because asyncio reports an error that no caller reads
                done.exception()

        task.add_done_callback(ended)
        return await asyncio.shield(task)

    def _take(self, key: str) -> asyncio.Lock:
        lock, users = self._locks.get(key) or (asyncio.Lock(), 0)
        self._locks[key] = (lock, users + 1)
        return lock

    def _give_back(self, key: str) -> None:
        lock, users = self._locks[key]
        if users == 1:
            del self._locks[key]
        else:
            self._locks[key] = (lock, users - 1)
