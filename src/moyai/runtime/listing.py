"""One list of all objects of a kind, shared by all callers within a short time.

What always holds: an answer was read from the source at most ``max_age`` seconds before it was asked for, and own writes
(``put``, ``drop``) made since then are in it, also those that were made while the list was under way. A caller that does not
know whether its write took effect calls ``forget``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Generic, TypeVar

from moyai.core.clock import Clock

T = TypeVar("T")


class RecentList(Generic[T]):
    """``read`` lists everything, ``key`` is an object's id."""

    def __init__(self, read: Callable[[], Awaitable[Iterable[T]]], *, key: Callable[[T], str], clock: Clock) -> None:
        self._read, self._key, self._clock = read, key, clock
        self._lock = asyncio.Lock()
        self._listed: tuple[float, dict[str, T]] | None = None
        #: Own writes since the last list began; None instead of an object: it was deleted.
        self._writes: dict[str, T | None] = {}
        self._forgotten = False

    async def get(self, *, max_age: float) -> list[T]:
        """A caller that comes while a list is under way gets that list's answer, where it began late enough."""
        asked = self._clock.monotonic()
        async with self._lock:
            if self._listed is None or self._listed[0] < asked - max_age:
                self._writes.clear()
                self._forgotten = False
                began = self._clock.monotonic()
                found = {self._key(one): one for one in await self._read()}
                self._listed = (began, found)
                for key, written in self._writes.items():
                    self._enter(key, written)
            answer = list(self._listed[1].values())
            if self._forgotten:
                self._listed = None
            return answer

    def put(self, *written: T) -> None:
        """These were created or changed just now."""
        for one in written:
            self._writes[self._key(one)] = one
            self._enter(self._key(one), one)

    def drop(self, key: str) -> None:
        """This one was deleted just now."""
        self._writes[key] = None
        self._enter(key, None)

    def forget(self) -> None:
        """The next caller gets a new list, also when one is under way."""
        self._forgotten = True
        self._listed = None

    def _enter(self, key: str, written: T | None) -> None:
        if self._listed is None:
            return
        if written is None:
            self._listed[1].pop(key, None)
        else:
            self._listed[1][key] = written
