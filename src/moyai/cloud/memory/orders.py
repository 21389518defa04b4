"""What tests and simulations order of the cloud: how long things take, which call fails, at which change the caller dies."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from moyai.core.errors import MoyaiError


class Killed(BaseException):
    """The process that called is dead: nothing of it runs on, so that no handler of errors may catch it."""


class Mortal:
    """Counts changes, and kills the caller at one of them. Cloud and Kubernetes of one test can share it.

    A dead caller is refused everything, reading too, until ``revive``.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._number: int | None = None
        self._after = False
        self.changes = 0
        self.dead = False

    def kill_at(self, number: int, *, after: bool = True) -> None:
        """Die at change ``number``, counted from now: before it takes effect, or after it did and before its answer comes."""
        with self._lock:
            self.changes, self._number, self._after, self.dead = 0, number, after, False

    def revive(self) -> None:
        with self._lock:
            self._number, self.dead = None, False

    def check(self) -> None:
        """What every call does first."""
        if self.dead:
            raise Killed

    @contextmanager
    def change(self) -> Generator[None]:
        """Around each change, when it is certain that it takes place."""
        with self._lock:
            self.check()
            self.changes += 1
            fatal = self.changes == self._number
            if fatal and not self._after:
                self.dead = True
                raise Killed
        yield
        if fatal:
            self.dead = True
            raise Killed


@dataclass(frozen=True)
class Delays:
    """Seconds of the injected clock. With 0, what was asked for is done when the next call comes.

    ``call``: how far each call moves the clock on. With a clock of the cloud's own, delays so become numbers of calls.
    """

    call: float = 0.0
    server: float = 0.0
    volume: float = 0.0
    snapshot: float = 0.0
    balancer: float = 0.0

    @classmethod
    def looks(cls, count: int) -> Delays:
        """Whatever is asked for is done after ``count`` further calls."""
        return cls(call=1.0, server=count, volume=count, snapshot=count, balancer=count)


@dataclass(frozen=True)
class _OrderedFailure:
    error: MoyaiError
    after: bool


@dataclass
class _Breakage:
    reason: str
    name: str
    times: int


class Faults:
    """Failures on order, by call (``machines.create_server``)."""

    def __init__(self) -> None:
        self._failures: dict[str, deque[_OrderedFailure]] = {}
        self._breakages: dict[str, list[_Breakage]] = {}

    def fail_next(self, call: str, error: MoyaiError, *, times: int = 1, after: bool = False) -> None:
        """The next ``times`` such calls raise; ``after``: the change is made and its answer gets lost."""
        self._failures.setdefault(call, deque()).extend(_OrderedFailure(error, after) for _ in range(times))

    def break_next(self, call: str, reason: str, *, times: int = 1, name: str = "") -> None:
        """The next ``times`` such calls (for an object called ``name``) are accepted and fail later: ERROR, or no effect."""
        self._breakages.setdefault(call, []).append(_Breakage(reason, name, times))

    def clear(self) -> None:
        self._failures.clear()
        self._breakages.clear()

    def failure(self, call: str) -> _OrderedFailure | None:
        waiting = self._failures.get(call)
        return waiting.popleft() if waiting else None

    def breakage(self, call: str, name: str = "") -> str:
        """Why the object that this call makes will break; empty: it will not."""
        for one in self._breakages.get(call, ()):
            if one.times > 0 and one.name in ("", name):
                one.times -= 1
                return one.reason
        return ""
