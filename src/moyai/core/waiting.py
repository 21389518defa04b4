"""Waiting until a condition holds: one deadline loop, for threads (``until``) and for tasks (``auntil``).

The contract, the same in both:

- ``check`` looks once. It returns its result, or ``NotYet`` with a text that says what is missing. A result ends the wait at
  once, also when the deadline has passed or ``abort`` is set meanwhile.
- An exception of ``retry`` (default: ``Retriable``) counts as "not yet". Every other exception ends the wait and is raised.
- The deadline is ``timeout`` seconds after the call. The last pause is cut so that the last look happens at the deadline, and
  there is always at least one look. After the last look ``late`` of the last ``NotYet`` is raised; without ``late`` the last
  look's own exception where it raised one, else ``Retriable`` with what was missing.
- ``tries`` ends the wait after so many looks, in the same way as the deadline.
- ``pause``: seconds between two looks, or a ``Backoff`` whose attempts count the looks. ``NotYet.pause`` overrules it once.
- ``on_wait`` gets the text of what is missing, each time that it changes.
- ``abort`` (threads only) ends the wait at once, also in the middle of a pause, with ``Stopped``: the thread that sets it
  reports the reason. A task is cancelled instead.

Written by hand because neither stamina nor tenacity fits: stamina's sleep and both libraries' deadlines read the process's own
clock, so tests could not decide what time it is; and neither reports what is missing while it waits.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from moyai.core.backoff import Backoff
from moyai.core.clock import Clock
from moyai.core.errors import MoyaiError, Retriable, Terminal

T = TypeVar("T")

#: What counts as "not yet" when ``check`` raises it.
Errors = type[Exception] | tuple[type[Exception], ...]


#: Less than this is left: the deadline has come. Sums of floats may miss it by less.
_INSTANT = 1e-6


@dataclass(frozen=True)
class NotYet:
    """``missing``: what is still waited for. ``pause``: seconds until the next look. ``error``: what the look raised."""

    missing: str
    pause: float | None = None
    error: Exception | None = None


class Stopped(Terminal):
    """Another thread found the reason why waiting is pointless and reports it; this one has nothing to add."""


def until(
    check: Callable[[], T | NotYet],
    *,
    clock: Clock,
    timeout: float,
    pause: float | Backoff,
    tries: int | None = None,
    retry: Errors = Retriable,
    on_wait: Callable[[str], None] | None = None,
    late: Callable[[NotYet], Exception] | None = None,
    abort: threading.Event | None = None,
) -> T:
    """The first result of ``check`` that is not ``NotYet``; the module's head states the contract."""
    wait = _Wait(clock=clock, timeout=timeout, pause=pause, tries=tries, on_wait=on_wait, late=late)
    while True:
        try:
            seen = check()
        except retry as error:
            seen = _missing(error)
        if not isinstance(seen, NotYet):
            return seen
        if abort and abort.is_set():
            raise Stopped(f"stopped waiting ({seen.missing})")
        clock.sleep(wait.after(seen), wake=abort)


async def auntil(
    check: Callable[[], Awaitable[T | NotYet]],
    *,
    clock: Clock,
    timeout: float,
    pause: float | Backoff,
    tries: int | None = None,
    retry: Errors = Retriable,
    on_wait: Callable[[str], None] | None = None,
    late: Callable[[NotYet], Exception] | None = None,
) -> T:
    """The same in a task."""
    wait = _Wait(clock=clock, timeout=timeout, pause=pause, tries=tries, on_wait=on_wait, late=late)
    while True:
        try:
            seen = await check()
        except retry as error:
            seen = _missing(error)
        if not isinstance(seen, NotYet):
            return seen
        await clock.asleep(wait.after(seen))


def _missing(error: Exception) -> NotYet:
    return NotYet(error.message if isinstance(error, MoyaiError) else str(error), error=error)


class _Wait:
    """One wait's deadline and pauses."""

    def __init__(
        self,
        *,
        clock: Clock,
        timeout: float,
        pause: float | Backoff,
        tries: int | None,
        on_wait: Callable[[str], None] | None,
        late: Callable[[NotYet], Exception] | None,
    ) -> None:
        self._clock, self._timeout, self._pause, self._tries = clock, timeout, pause, tries
        self._on_wait, self._late = on_wait, late
        self._end = clock.monotonic() + timeout
        self._looks = 0
        self._said = ""

    def after(self, seen: NotYet) -> float:
        """Seconds until the next look; raises when that was the last one."""
        left = self._end - self._clock.monotonic()
        self._looks += 1
        if left <= _INSTANT or self._looks == self._tries:
            error = self._error(seen)
            if error is seen.error:
                raise error
            raise error from seen.error
        if self._on_wait and seen.missing != self._said:
            self._on_wait(seen.missing)
            self._said = seen.missing
        pause = seen.pause
        if pause is None:
            pause = self._pause.delay(self._looks - 1) if isinstance(self._pause, Backoff) else self._pause
        return min(pause, left)

    def _error(self, seen: NotYet) -> Exception:
        if self._late:
            return self._late(seen)
        if seen.error:
            return seen.error
        return Retriable(f"waited {self._timeout:.0f} s for {seen.missing}")
