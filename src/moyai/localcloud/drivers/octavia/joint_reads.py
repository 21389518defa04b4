"""Reads of the same thing by several threads at once, made together: a read serves all that asked before it began.

Nobody gets an answer that is older than the question. While a read runs, what else asks for the same thing waits for the next
one, which is made once for all of them. Nothing is remembered once nobody asks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class _Round:
    """One read: whether it has begun and ended, and what came of it. ``askers``: threads that still want it."""

    askers: int = 0
    begun: bool = False
    done: bool = False
    answer: Any = None
    error: BaseException | None = None


@dataclass
class _Reading:
    running: bool = False
    next: _Round = field(default_factory=_Round)


class JointReads:
    """Safe to use from several threads. ``on_wait`` is called for each caller that waits for a read which has not begun."""

    def __init__(self, *, on_wait: Callable[[], None] = lambda: None) -> None:
        self._on_wait = on_wait
        self._changed = threading.Condition()
        self._things: dict[str, _Reading] = {}

    def fresh(self, name: str, read: Callable[[str], Any]) -> Any:
        """``read(name)``, begun after this call. Raises what it raised, in all threads that it was made for."""
        with self._changed:
            thing = self._things.setdefault(name, _Reading())
            mine = thing.next
            mine.askers += 1
            if thing.running:
                self._on_wait()
            self._changed.wait_for(lambda: mine.done or not (mine.begun or thing.running))
            if mine.done:
                return self._result(mine)
            mine.begun, thing.running, thing.next = True, True, _Round()
        try:
            mine.answer = read(name)
        except BaseException as error:
            mine.error = error
        with self._changed:
            mine.done, thing.running = True, False
            if thing.next.askers == 0:
                del self._things[name]
            self._changed.notify_all()
            return self._result(mine)

    @staticmethod
    def _result(done: _Round) -> Any:
        if done.error is not None:
            raise done.error
        return done.answer
