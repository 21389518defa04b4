"""How calls reach NIFCLOUD: what is repeated, and what is looked at before it is repeated.

The API has no tokens that make a repetition harmless, and it answers neither lists in pages nor in part. What always holds:

- A call that reads is repeated after any failure that may pass.
- A call that changes is repeated only where it certainly had no effect: no connection came about, or the object was busy. After
  a lost reply ``LostReply`` is raised.
- ``create`` looks before it sends and after each lost reply, for longer than a call may take to show its effect.
- Time is the injected clock's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from moyai.cloud.nifcloud.error_codes import LostReply, NameTaken, NeverSent, StillBusy
from moyai.cloud.nifcloud.sdk import Answer, Caller
from moyai.core.backoff import Backoff
from moyai.core.clock import Clock
from moyai.core.errors import MoyaiError, Retriable
from moyai.core.waiting import NotYet, until

T = TypeVar("T")

_TRIES = 5
_AGAIN = Backoff(base=0.5, ceiling=8)
#: Seconds for which an object may refuse changes because of another one.
BUSY_SECONDS = 180.0
#: Seconds after a lost reply or an accepted call in which what it made comes into sight.
SIGHT_SECONDS = 60.0
#: How often a creation is sent, each time after nothing came into sight.
_SENDS = 3
_LOOK = Backoff(base=1, ceiling=5)


class Wire:
    """Safe from several threads."""

    def __init__(self, caller: Caller, clock: Clock) -> None:
        self._caller, self.clock = caller, clock

    def read(self, operation: str, arguments: Answer | None = None, *, object_id: str = "") -> Answer:
        """Raises ``core.errors``."""
        return until(
            lambda: self._caller.call(operation, arguments or {}, object_id=object_id),
            clock=self.clock,
            timeout=BUSY_SECONDS,
            pause=_AGAIN,
            tries=_TRIES,
        )

    def change(self, operation: str, arguments: Answer, *, object_id: str = "", busy_seconds: float = BUSY_SECONDS) -> Answer:
        """Raises LostReply where nobody knows what became of it; StillBusy after ``busy_seconds``."""
        connected = 0

        def once() -> Answer | NotYet:
            nonlocal connected
            try:
                return self._caller.call(operation, arguments, object_id=object_id)
            except NeverSent as error:
                connected += 1
                if connected == _TRIES:
                    raise
                return NotYet(error.message, error=error)
            except StillBusy as error:
                return NotYet(error.message, error=error)

        return until(once, clock=self.clock, timeout=busy_seconds, pause=_AGAIN, retry=())

    def settle(self, send: Callable[[], object], done: Callable[[], bool]) -> None:
        """A change whose repetition is harmless where ``done`` is false: sent until it has its effect or is refused.

        ``done`` is asked after lost replies alone.
        """

        def once() -> bool | NotYet:
            try:
                send()
            except LostReply as error:
                return True if done() else NotYet(error.message, error=error)
            return True

        until(once, clock=self.clock, timeout=BUSY_SECONDS, pause=_AGAIN, tries=_TRIES, retry=())

    def create(self, find: Callable[[], T | None], send: Callable[[], object]) -> T:
        """What ``find`` sees, sent for where it sees nothing. ``find`` raises Conflict for somebody else's object of that name.

        The object may come from an earlier run of any process that died before it had the answer.
        """
        if (found := find()) is not None:
            return found
        lost: MoyaiError | None = None
        for _ in range(_SENDS):
            try:
                send()
                lost = None
            except LostReply as error:
                lost = error
            except NameTaken:
                # ours, of a call whose reply was lost, unless the look says otherwise
                if (found := self._seen(find)) is None:
                    raise
                return found
            if (found := self._seen(find)) is not None:
                return found
            if lost is None:
                raise Retriable(f"NIFCLOUD accepted the call, and what it makes is not seen within {SIGHT_SECONDS:.0f} s")
        assert lost
        raise lost

    def wait(self, check: Callable[[], T | NotYet], *, seconds: float) -> T:
        """The first result of ``check`` that is none of ``NotYet``; Retriable with what was missing."""
        return until(check, clock=self.clock, timeout=seconds, pause=_LOOK)

    def _seen(self, find: Callable[[], T | None]) -> T | None:
        def look() -> T | NotYet | None:
            found = find()
            return NotYet("what the call makes") if found is None else found

        try:
            return until(look, clock=self.clock, timeout=SIGHT_SECONDS, pause=_LOOK, retry=(), late=lambda _: _Unseen())
        except _Unseen:
            return None


class _Unseen(Exception):
    """Nothing came into sight."""
