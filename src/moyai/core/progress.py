"""Progress of long work: code reports its steps to a ``Reporter``; the sinks of the reporter decide how they look.

Events are data, from any thread. Every sink gets every event, in the order in which they happened. A step's name is unique
within one run. The time in which a step only waits for another one (its turn, a lock, steps that run inside it) is not its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal

from moyai.core.clock import Clock, SystemClock

EventKind = Literal["planned", "started", "progress", "finished", "failed", "note"]


@dataclass(frozen=True)
class Event:
    """``step``: what it is about. ``detail``: free text. ``fraction``: 0 to 1 where known. ``seconds``: since its start."""

    kind: EventKind
    step: str
    detail: str = ""
    fraction: float | None = None
    seconds: float = 0.0


#: Shows an event, writes it down, or passes it on.
Sink = Callable[[Event], None]
#: Takes one line for the user.
Tell = Callable[[str], None]


class Progress:
    """A step under way: code inside it calls ``progress``."""

    def __init__(self, name: str, emit: Sink, *, elapsed: Callable[[], float]) -> None:
        self.name = name
        self._emit = emit
        self._elapsed = elapsed
        self._waits = 0
        #: Seconds in which the step waited for others.
        self.waited = 0.0

    @contextmanager
    def waiting(self) -> Generator[None]:
        """While the block runs, the step does nothing itself, but waits for another one."""
        self._waits += 1
        begun = self._elapsed()
        try:
            yield
        finally:
            self._waits -= 1
            if not self._waits:
                self.waited += self._elapsed() - begun

    def progress(self, detail: str, fraction: float | None = None) -> None:
        """Say what is being done within the step, and how much of it is done (0 to 1) where known."""
        self._emit(Event("progress", self.name, detail, fraction, self._elapsed()))


class Reporter:
    """Hands events to its sinks, one at a time. Without sinks it is silent. ``timings``: how long each step was under way;
    ``own``: how long without what it waited for others."""

    def __init__(self, *sinks: Sink, clock: Clock | None = None) -> None:
        self._sinks = list(sinks)
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._here = threading.local()
        self.timings: dict[str, float] = {}
        self.own: dict[str, float] = {}

    def attach(self, sink: Sink) -> None:
        """From now on ``sink`` gets the events too."""
        with self._lock:
            self._sinks.append(sink)

    def emit(self, event: Event) -> None:
        with self._lock:
            for sink in self._sinks:
                sink(event)

    def plan(self, names: Sequence[str]) -> None:
        """Announce steps that are still to come, so that a display can show how many are left."""
        for name in names:
            self.emit(Event("planned", name))

    def note(self, text: str) -> None:
        """One line for the user that belongs to no step."""
        self.emit(Event("note", "", text))

    @contextmanager
    def step(self, name: str, detail: str = "") -> Generator[Progress]:
        """Time a step and report its start and its end; an exception passes through, reported as failed."""
        start = self._clock.monotonic()

        def elapsed() -> float:
            return self._clock.monotonic() - start

        self.emit(Event("started", name, detail))
        progress = Progress(name, self.emit, elapsed=elapsed)
        with self.waiting():
            outer, self._here.step = self._step(), progress
            try:
                yield progress
            except BaseException as error:
                self.emit(Event("failed", name, str(error) or type(error).__name__, seconds=elapsed()))
                raise
            finally:
                self._here.step = outer
        self.timings[name] = elapsed()
        self.own[name] = self.timings[name] - progress.waited
        self.emit(Event("finished", name, seconds=self.timings[name]))

    def waiting(self) -> AbstractContextManager[None]:
        """While the block runs, the step of this thread, if there is one, waits for others."""
        step = self._step()
        return step.waiting() if step else nullcontext()

    def _step(self) -> Progress | None:
        return getattr(self._here, "step", None)
