"""One poller for all calls that wait for a disk to change.

Clouds send no events about disks, so the driver has to look for changes. Fifty loops for fifty claims would ask the cloud fifty
times as often. The poller shares each look: it lists all volumes when several calls wait, and it shows one volume when one
call waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from moyai.core.backoff import Backoff
from moyai.core.errors import NotFound, Retriable
from moyai.csi.errors import Refused

T = TypeVar("T")
R = TypeVar("R")

_log = logging.getLogger(__name__)

#: From so many objects on, one list is less work for the cloud than a show of each. A list takes long, so the poller pauses for
#: the ceiling between two lists: more lists would only take the cloud's time from the work that is waited for.
_MANY = 3
#: A change is seen at most a quarter of its wait too late. The first looks are close to each other because Kubernetes looks for
#: an attached volume half a second after it has asked for it, and then half a second later.
POLL = Backoff(base=0.05, factor=1.3, ceiling=1.0)


@dataclass(eq=False)
class _Waiter(Generic[T]):
    object_id: str
    offer: Callable[[T | None], bool]
    fail: Callable[[Exception], None]


class Poller(Generic[T]):
    """Waits for objects to change. ``show`` reads one (NotFound: it is gone), ``list_all`` all, by id."""

    def __init__(
        self,
        *,
        show: Callable[[str], Awaitable[T]],
        list_all: Callable[[], Awaitable[Mapping[str, T]]],
        poll: Backoff = POLL,
    ) -> None:
        self._show, self._list_all, self._poll = show, list_all, poll
        self._waiters: set[_Waiter[T]] = set()
        self._new = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """The number of calls that wait."""
        return len(self._waiters)

    async def until(self, object_id: str, done: Callable[[T | None], R | None], *, within: float, what: str) -> R:
        """Wait until ``done`` of the object (None: it does not exist) returns something else than None, and return that.

        An exception of ``done`` is raised here. DEADLINE_EXCEEDED after ``within`` seconds; ``what`` is in its message.
        """
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()

        def offer(seen: T | None) -> bool:
            if future.done():
                return True
            try:
                result = done(seen)
            except Exception as error:
                future.set_exception(error)
                return True
            if result is None:
                return False
            future.set_result(result)
            return True

        def fail(error: Exception) -> None:
            if not future.done():
                future.set_exception(error)

        waiter = _Waiter(object_id, offer, fail)
        self._waiters.add(waiter)
        self._new.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        try:
            async with asyncio.timeout(within):
                return await future
        except TimeoutError:
            raise Refused("DEADLINE_EXCEEDED", f"after {within:.0f} s still waiting for {what}") from None
        finally:
            self._waiters.discard(waiter)

    async def _run(self) -> None:
        attempt = 0
        while self._waiters:
            if self._new.is_set():
                attempt = 0
            self._new.clear()
            many = len({one.object_id for one in self._waiters}) >= _MANY
            await self._round(many=many)
            if not self._waiters:
                return
            # the next round does not begin at once, so that it also serves the calls that come meanwhile
            pause = self._poll.ceiling if many else self._poll.delay(0)
            await asyncio.sleep(pause)
            rest = self._poll.delay(attempt) - pause
            attempt += 1
            if rest > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(rest):
                        await self._new.wait()

    async def _round(self, *, many: bool) -> None:
        waiting = list(self._waiters)
        try:
            seen = await self._look({one.object_id for one in waiting}, many=many)
        except Retriable as error:
            # each call has its own deadline
            _log.warning("the cloud cannot be asked about disks that calls wait for: %s", error)
            return
        except Exception as error:
            for one in waiting:
                one.fail(error)
                self._waiters.discard(one)
            return
        for one in waiting:
            if one.offer(seen.get(one.object_id)):
                self._waiters.discard(one)

    async def _look(self, ids: Collection[str], *, many: bool) -> Mapping[str, T]:
        if many:
            return await self._list_all()
        found: dict[str, T] = {}

        async def show(object_id: str) -> None:
            with contextlib.suppress(NotFound):
                found[object_id] = await self._show(object_id)

        await asyncio.gather(*(show(one) for one in ids))
        return found
