"""The shape of every loop: a key comes in, the object's state is made as desired, and the key is done or comes again.

``reconcile`` is handed a key, never an event. What it raises decides what follows: Conflict and Retriable come again, later and
later; so do CredentialsRefused and Unreachable, never much later, for whatever waited must go on soon once the cloud is back.
Terminal comes again only after a long while (somebody may have raised a quota); UsageError waits for the object to change. Keys
are worked on side by side, one key never twice at a time. A cloud that is gone is one line a minute in the log, however many
keys wait for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from moyai.core.clock import Clock, SystemClock
from moyai.core.errors import Conflict, CredentialsRefused, MoyaiError, NotFound, Retriable, Unreachable, UsageError
from moyai.kube.workqueue import WorkQueue
from moyai.runtime.metrics import Metrics

_log = logging.getLogger(__name__)

#: How long a Terminal error rests before it is tried again.
TERMINAL_SECONDS = 300.0
_CONFLICT_SECONDS = 0.1
#: The longest that refused credentials rest: nodes must not wait for it once they are accepted again.
REFUSED_SECONDS = 15.0
#: The longest that a key rests while the cloud does not answer, and the least time between two lines of the log about that.
UNREACHABLE_SECONDS, _QUIET_SECONDS = 20.0, 60.0


@dataclass(frozen=True)
class Result:
    """``requeue_after``: seconds until the key comes again by itself, None for not at all."""

    requeue_after: float | None = None


DONE = Result()
Reconcile = Callable[[str], Awaitable[Result]]
#: Called with the key and the error, before it is decided when the key comes again.
OnError = Callable[[str, MoyaiError], None]


class Controller:
    """``workers``: how many keys are worked on at the same time. ``run`` works until cancelled."""

    def __init__(
        self,
        name: str,
        reconcile: Reconcile,
        *,
        metrics: Metrics,
        workers: int = 1,
        on_error: OnError = lambda _key, _error: None,
        queue: WorkQueue | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.name = name
        self.queue = WorkQueue() if queue is None else queue
        self._reconcile = reconcile
        self._metrics = metrics
        self._workers = workers
        self._on_error = on_error
        self._clock = clock or SystemClock()
        self._quiet_until = float("-inf")

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._workers):
                    group.create_task(self._work())
        finally:
            self.queue.close()

    async def _work(self) -> None:
        while True:
            key = await self.queue.get()
            try:
                await self._once(key)
            finally:
                self.queue.done(key)

    async def _once(self, key: str) -> None:
        start = self._clock.monotonic()
        outcome = "success"
        try:
            result = await self._reconcile(key)
            self.queue.forget(key)
            if result.requeue_after is not None:
                self.queue.add_later(key, result.requeue_after)
        except MoyaiError as error:
            outcome = type(error).__name__.lower()
            self._failed(key, error)
        except Exception:
            outcome = "bug"
            delay = self.queue.add_failed(key)
            _log.exception("%s: %s failed in a way that was not foreseen, again in %.1f s", self.name, key, delay)
        self._metrics.count("moyai_reconcile_total", controller=self.name, outcome=outcome)
        self._metrics.observe("moyai_reconcile_seconds", self._clock.monotonic() - start, controller=self.name)

    def _failed(self, key: str, error: MoyaiError) -> None:
        self._on_error(key, error)
        if isinstance(error, Conflict) and self.queue.failures(key) == 0:
            self.queue.add_failed(key)
            delay = _CONFLICT_SECONDS
            self.queue.add_later(key, delay)
        elif isinstance(error, CredentialsRefused):
            delay = self.queue.add_failed(key, at_most=REFUSED_SECONDS)
        elif isinstance(error, Unreachable):
            delay = self.queue.add_failed(key, at_most=UNREACHABLE_SECONDS)
            if self._clock.monotonic() < self._quiet_until:
                return
            self._quiet_until = self._clock.monotonic() + _QUIET_SECONDS
        elif isinstance(error, Retriable | NotFound):
            delay = self.queue.add_failed(key)
        elif isinstance(error, UsageError):
            _log.warning("%s: %s: %s", self.name, key, error)
            return
        else:
            delay = TERMINAL_SECONDS
            self.queue.add_later(key, delay)
        _log.warning("%s: %s: %s; again in %.1f s", self.name, key, error, delay)
