"""How long work shows itself: code reports what it does to a ``Reporter``; its sinks decide how that looks.

Events are data, from any thread. Every sink gets every event, in the order in which they happened. A step's name is unique
within one run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
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


class Progress:
    """A step under way: code inside it calls ``progress``."""

    def __init__(self, name: str, emit: Sink, *, elapsed: Callable[[], float]) -> None:
        self.name = name
        self._emit = emit
        self._elapsed = elapsed

    def progress(self, detail: str, fraction: float | None = None) -> None:
        """Say what is being done within the step, and how much of it is done (0 to 1) where known."""
        self._emit(Event("progress", self.name, detail, fraction, self._elapsed()))


class Reporter:
    """Hands events to its sinks, one at a time. Without sinks it is silent; ``timings`` holds what each step took."""

    def __init__(self, *sinks: Sink, clock: Clock | None = None) -> None:
        self._sinks = list(sinks)
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self.timings: dict[str, float] = {}

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
        try:
            yield Progress(name, self.emit, elapsed=elapsed)
        except BaseException as error:
            self.emit(Event("failed", name, str(error) or type(error).__name__, seconds=elapsed()))
            raise
        self.timings[name] = elapsed()
        self.emit(Event("finished", name, seconds=self.timings[name]))
