"""Carries out the works of the store: one step at a time of each, several objects side by side.

An error of the cloud puts the step off, with a growing delay. A step that the cloud refuses for good stays, and its last words
are in the work: an operator can see why an object stays busy, as it does on the real service.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

from moyai.core.backoff import Backoff
from moyai.core.clock import Clock
from moyai.core.errors import MoyaiError, one_line
from moyai.nifcloud_front.store.rows import WorkRow
from moyai.nifcloud_front.works.step import Again, WorkContext, WorkDone
from moyai.nifcloud_front.works.verbs import VERBS
from moyai.nifcloud_front.works.watch import watch_balancers, watch_images, watch_instances

_LOG = logging.getLogger(__name__)
_AFTER_REFUSAL = Backoff(base=1, ceiling=30)
#: Seconds that a call waits for the work that its answer needs.
PATIENCE = 120
#: Objects on which the worker is at work at the same time.
_AT_ONCE = 4


class Worker:
    def __init__(self, context: WorkContext, clock: Clock) -> None:
        self._context, self._clock = context, clock
        self._lock = threading.Lock()
        #: Objects on which a step runs now.
        self._running: set[tuple[str, str]] = set()
        self._wake = threading.Event()

    def wake(self) -> None:
        """There is new work."""
        self._wake.set()

    def step(self, kind: str, uid: str) -> float | None:
        """Run the next step of an object's work if it is due. Returns the seconds until the next, None without work."""
        with self._lock:
            if (kind, uid) in self._running:
                return self._context.pace.poll
            self._running.add((kind, uid))
        try:
            return self._step(kind, uid)
        finally:
            with self._lock:
                self._running.discard((kind, uid))

    def _step(self, kind: str, uid: str) -> float | None:
        with self._context.store.transaction() as tx:
            work = tx.work_of(kind, uid)
        if work is None:
            return None
        now = self._context.now()
        if work.due > now:
            return work.due - now
        try:
            outcome = VERBS[kind, work.verb](self._context, work)
        except MoyaiError as error:
            _LOG.warning("%s %s: %s at step %r: %s", kind, uid, work.verb, work.step, one_line(error))
            wait = _AFTER_REFUSAL.delay(work.refused)
            self._keep(work, replace(work, refused=work.refused + 1, why=one_line(error), due=now + wait))
            return wait
        return self._after(work, outcome)

    def _keep(self, before: WorkRow, after: WorkRow) -> None:
        with self._context.store.transaction() as tx:
            # another work may have taken its place
            if tx.work_of(before.kind, before.uid) == before:
                tx.keep(after)

    def _after(self, work: WorkRow, outcome: Again | WorkDone) -> float | None:
        now = self._context.now()
        with self._context.store.transaction() as tx:
            if tx.work_of(work.kind, work.uid) != work:
                return 0.0
            if isinstance(outcome, Again):
                outcome.change(tx)
                tx.keep(replace(work, step=outcome.step, due=now + outcome.seconds, refused=0, why=""))
                return outcome.seconds
            if outcome.seen is not None and tx.get(type(outcome.seen), outcome.seen.uid) != outcome.seen:
                tx.keep(replace(work, step="", due=now, began=now))
                return 0.0
            outcome.change(tx)
            tx.finish(work)
            return None

    def finish(self, kind: str, uid: str, *, ready: Callable[[], bool]) -> bool:
        """Go on with a work until what a call needs is ``ready``; whether it is in time. Blocks."""
        end = self._clock.monotonic() + PATIENCE
        while not ready():
            wait = self.step(kind, uid)
            if self._clock.monotonic() >= end or wait is None:
                return ready()
            if wait:
                self._clock.sleep(wait)
        return True

    def run_due(self) -> float:
        """One step of each work that is due, one after the other. Returns the seconds until the next is."""
        with self._context.store.transaction() as tx:
            works = tx.works()
        waits = [self.step(one.kind, one.uid) for one in works]
        return min((wait for wait in waits if wait is not None), default=self._context.pace.poll)

    def settle(self, limit: int = 10_000) -> None:
        """Until no work is left, for tests. Raises RuntimeError where ``limit`` rounds are not enough."""
        for _ in range(limit):
            with self._context.store.transaction() as tx:
                if not tx.works():
                    return
            wait = self.run_due()
            if wait:
                self._clock.sleep(wait)
        raise RuntimeError("works do not end")

    def run(self, stop: threading.Event, *, watches: Collection[Callable[[WorkContext], None]] = ()) -> None:
        """Until ``stop`` is set. Blocks."""
        watches = watches or (watch_images, watch_instances, watch_balancers)
        poll, looked = self._context.pace.poll, 0.0
        under_way: dict[tuple[str, str], Future[None]] = {}
        with ThreadPoolExecutor(max_workers=_AT_ONCE, thread_name_prefix="work") as pool:
            while not stop.is_set():
                now = self._context.now()
                under_way = {key: one for key, one in under_way.items() if not one.done()}
                with self._context.store.transaction() as tx:
                    works = [one for one in tx.works() if one.due <= now]
                free = [one for one in works if (one.kind, one.uid) not in under_way]
                for one in free[: _AT_ONCE - len(under_way)]:
                    under_way[one.kind, one.uid] = pool.submit(self._guarded, one)
                if now - looked >= 5 * poll:
                    looked = now
                    for look in watches:
                        self._look(look)
                self._wake.clear()
                self._clock.sleep(min(poll, 0.2) if free else poll / 2, wake=self._wake)

    def _guarded(self, work: WorkRow) -> None:
        try:
            self.step(work.kind, work.uid)
        except Exception as error:
            _LOG.exception("%s %s: %s", work.kind, work.uid, work.verb)
            # otherwise it would be tried, and logged, several times a second for ever
            wait = _AFTER_REFUSAL.delay(work.refused)
            put_off = replace(work, refused=work.refused + 1, why=type(error).__name__, due=self._context.now() + wait)
            self._keep(work, put_off)

    def _look(self, look: Callable[[WorkContext], None]) -> None:
        try:
            look(self._context)
        except MoyaiError as error:
            _LOG.warning("%s: %s", getattr(look, "__name__", "watch"), one_line(error))
        except Exception:
            # the next look may go well; the works must go on
            _LOG.exception("a look at the cloud")
