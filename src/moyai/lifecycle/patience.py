"""How long a command bears a cloud that fails for a moment: it looks again by itself, and says so.

Always holds: errors that another try cannot mend end the command at once; so do too many failures, or failures for too long,
without a round in between that went well.
"""

from __future__ import annotations

from moyai.core.backoff import Backoff
from moyai.core.clock import Clock
from moyai.core.errors import Retriable
from moyai.core.progress import Reporter

#: How many failures in a row are borne, and for how many seconds from the first of them.
TRIES, SECONDS = 5, 900.0
_PAUSES = Backoff(base=2.0, ceiling=30.0)


class CloudPatience:
    def __init__(self, reporter: Reporter, clock: Clock) -> None:
        self._reporter, self._clock = reporter, clock
        self._failures, self._first = 0, 0.0

    def bear(self, error: Retriable) -> None:
        """Wait a moment before the next look. Raises the error where it is one too many."""
        if not self._failures:
            self._first = self._clock.monotonic()
        pause = _PAUSES.delay(self._failures)
        self._failures += 1
        if self._failures > TRIES or self._clock.monotonic() + pause - self._first > SECONDS:
            raise error
        self._reporter.note(f"{error.message}: looking again in {pause:.0f} s ({self._failures} of {TRIES})")
        self._clock.sleep(pause)

    def renew(self) -> None:
        """Something went well."""
        self._failures = 0
