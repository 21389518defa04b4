"""How progress looks: a live table on a terminal, plain lines elsewhere, JSON lines where a program reads.

All of it goes to standard error; standard output is for results.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Literal, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from moyai.core.clock import Clock, SystemClock
from moyai.core.files import FULL
from moyai.core.printable import printable
from moyai.core.progress import Event, Reporter

OutputFormat = Literal["text", "json"]


@contextmanager
def reporter(output: OutputFormat = "text", *, title: str = "", stream: TextIO | None = None) -> Generator[Reporter]:
    """A Reporter whose events are shown while the block runs; the right form for where ``stream`` goes."""
    target = stream or sys.stderr
    if output == "json":
        yield Reporter(lambda event: _write(target, json.dumps(asdict(event))))
    elif target.isatty():
        display = LiveDisplay(title, Console(file=target))
        with display.live:
            yield Reporter(display.handle)
    else:
        yield Reporter(PlainDisplay(target).handle)


def seconds(value: float) -> str:
    """A duration as people read it: 0.3 s, 42 s, 3 min 12 s."""
    if value < 10:
        return f"{value:.1f} s"
    if value < 120:
        return f"{value:.0f} s"
    return f"{int(value) // 60} min {int(value) % 60:02d} s"


def _write(stream: TextIO, line: str) -> None:
    try:
        stream.write(line + "\n")
        stream.flush()
    except OSError as error:
        # the work goes on without the line
        if error.errno not in FULL:
            raise


class PlainDisplay:
    """One line for each start, end and note; progress within a step at most every ten seconds."""

    def __init__(self, stream: TextIO, clock: Clock | None = None) -> None:
        self._stream = stream
        self._clock = clock or SystemClock()
        self._start = self._clock.monotonic()
        self._last: dict[str, float] = {}
        self._left: set[str] = set()

    def handle(self, event: Event) -> None:
        match event.kind:
            case "planned":
                self._left.add(event.step)
            case "started":
                self._last[event.step] = self._clock.monotonic()
                self._line(f"… {event.step}{_detail(event)}")
            case "progress":
                now = self._clock.monotonic()
                if now - self._last.get(event.step, 0.0) >= 10:
                    self._last[event.step] = now
                    share = f" {event.fraction:.0%}" if event.fraction is not None else ""
                    self._line(f"… {event.step}{share}{_detail(event)}")
            case "finished":
                self._left.discard(event.step)
                left = f", {len(self._left)} left" if self._left else ""
                self._line(f"✓ {event.step} ({seconds(event.seconds)}{left})")
            case "failed":
                self._left.discard(event.step)
                self._line(f"✗ {event.step} after {seconds(event.seconds)}{_detail(event)}")
            case "note":
                self._line(event.detail)

    def _line(self, text: str) -> None:
        _write(self._stream, f"{self._clock.monotonic() - self._start:6.1f}s {printable(' '.join(text.split()))}")


def _detail(event: Event) -> str:
    return f": {event.detail}" if event.detail else ""


@dataclass
class _StepRow:
    state: Literal["planned", "running", "done", "failed"]
    since: float = 0.0
    took: float = 0.0
    detail: str = ""
    fraction: float | None = None


_MARKS = {
    "running": ("▸", "cyan"),
    "done": ("✓", "green"),
    "failed": ("✗", "red"),
    "planned": ("·", "dim"),
}


class LiveDisplay:
    """A table that is redrawn in place: what runs side by side with its progress, what is done, how much is left."""

    def __init__(self, title: str, console: Console, *, clock: Clock | None = None) -> None:
        self._title = title
        self._clock = clock or SystemClock()
        self._start = self._clock.monotonic()
        self._rows: dict[str, _StepRow] = {}
        self.live = Live(console=console, get_renderable=self.render, refresh_per_second=5)

    def handle(self, event: Event) -> None:
        if event.kind == "note":
            self.live.console.print(Text(printable(event.detail)))
            return
        row = self._rows.setdefault(event.step, _StepRow("planned"))
        match event.kind:
            case "started":
                row.state, row.since, row.detail = "running", self._clock.monotonic(), event.detail
            case "progress":
                row.detail, row.fraction = event.detail, event.fraction
            case "finished":
                row.state, row.took, row.detail, row.fraction = "done", event.seconds, "", None
            case "failed":
                row.state, row.took, row.detail = "failed", event.seconds, event.detail
            case "planned":
                pass

    def render(self) -> Table:
        """The table as it stands now."""
        now = self._clock.monotonic()
        left = sum(row.state == "planned" for row in self._rows.values())
        head = f"{self._title}  {seconds(now - self._start)}" + (f", {left} still to come" if left else "")
        title = Text(printable(head.strip()), "table.title")
        table = Table(title=title, title_justify="left", box=None, show_header=False, padding=(0, 1))
        for name, row in self._rows.items():
            if row.state == "planned":
                continue
            mark, style = _MARKS[row.state]
            took = seconds(now - row.since if row.state == "running" else row.took)
            share = f"{row.fraction:.0%} " if row.fraction is not None else ""
            table.add_row(
                Text(mark, style),
                Text(printable(name)),
                Text(took, "dim"),
                Text(share + printable(row.detail), "dim", overflow="ellipsis", no_wrap=True),
            )
        return table
