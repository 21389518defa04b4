"""Reads of the cloud that several callers share: one value (``SharedRead``), and a list that knows own writes (``RecentList``).

What always holds:

- One read runs at a time. All callers that a read is recent enough for get its result, and its error.
- A read goes on when one of its callers is cancelled.
- The read of a result began at most ``max_age`` seconds before the caller asked (``get``), or after the caller asked
  (``fresh``).
- A list contains the own writes (``put``, ``drop``) made since its read began. A caller that does not know whether its write
  took effect calls ``forget``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Generic, TypeVar

from moyai.core.clock import Clock

T = TypeVar("T")


class SharedRead(Generic[T]):
    """The result of ``read``, shared by all callers within a time that each caller states."""

    def __init__(self, read: Callable[[], Awaitable[T]], *, clock: Clock) -> None:
        self._read, self._clock = read, clock
        #: The latest result, and when its read began.
        self._kept: tuple[float, T] | None = None
        #: The read under way, and when it began.
        self._running: tuple[float, asyncio.Task[T]] | None = None
        #: The read that begins as soon as the one under way has ended.
        self._next: asyncio.Task[T] | None = None
        #: ``forget`` was called since the latest read began.
        self._forgotten = False

    async def get(self, *, max_age: float) -> T:
        """The result of a read that began at most ``max_age`` seconds ago. Raises what that read raised."""
        oldest = self._clock.monotonic() - max_age
        if self._kept and self._kept[0] >= oldest:
            return self._kept[1]
        if self._running and self._running[0] >= oldest and not self._forgotten:
            # a caller that gives up must not cancel the read of the others
            return await asyncio.shield(self._running[1])
        return await self.fresh()

    async def fresh(self) -> T:
        """The result of a read that begins after this call. Raises what that read raised."""
        if self._next is None:
            self._next = asyncio.create_task(self._after(self._running[1] if self._running else None))
        return await asyncio.shield(self._next)

    def forget(self) -> None:
        """The next caller gets the result of a new read, also when a read is under way."""
        self._kept, self._forgotten = None, True

    async def _after(self, former: asyncio.Task[T] | None) -> T:
        if former:
            await asyncio.wait([former])
        assert self._next is not None
        began = self._clock.monotonic()
        self._running, self._next, self._forgotten = (began, self._next), None, False
        try:
            result = await self._read()
        finally:
            self._running = None
        if not self._forgotten:
            self._kept = (began, result)
        return result


class RecentList(Generic[T]):
    """``read`` lists all objects of a kind, ``key`` is an object's id."""

    def __init__(self, read: Callable[[], Awaitable[Iterable[T]]], *, key: Callable[[T], str], clock: Clock) -> None:
        self._read, self._key = read, key
        self._shared = SharedRead(self._list, clock=clock)
        self._listed: dict[str, T] = {}
        #: Own writes since the latest read began; None instead of an object: it was deleted.
        self._writes: dict[str, T | None] = {}

    async def get(self, *, max_age: float) -> list[T]:
        """The objects, as ``SharedRead.get`` reads them."""
        return list((await self._shared.get(max_age=max_age)).values())

    def put(self, *written: T) -> None:
        """These were created or changed just now."""
        for one in written:
            self._enter(self._key(one), one)

    def drop(self, key: str) -> None:
        """This one was deleted just now."""
        self._enter(key, None)

    def forget(self) -> None:
        """The next caller gets a new list, also when one is under way."""
        self._shared.forget()

    async def _list(self) -> dict[str, T]:
        self._writes.clear()
        found = {self._key(one): one for one in await self._read()}
        for key, written in self._writes.items():
            _write(found, key, written=written)
        self._listed = found
        return found

    def _enter(self, key: str, written: T | None) -> None:
        self._writes[key] = written
        _write(self._listed, key, written=written)


def _write(listed: dict[str, T], key: str, *, written: T | None) -> None:
    if written is None:
        listed.pop(key, None)
    else:
        listed[key] = written
