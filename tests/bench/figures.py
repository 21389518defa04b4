"""What a run of the benchmarks found: figures with their goals, as a table for people and as data for programs.

Always holds: a figure is what was measured, every single value of it, beside how busy the machine was; a ratio is of two
medians of the same run; nothing here passes or fails.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Figure:
    """One phase of one part.

    ``values``: what was measured, in the order of measuring. ``floor``: the same phase without what is measured, empty
    where there is none. ``goal``: the most that is wanted, of the ratio where there is a floor, else of the value.
    ``load``: the machine's load average (1 minute) when each value had been measured.
    """

    part: str
    phase: str
    values: tuple[float, ...]
    floor: tuple[float, ...] = ()
    goal: float | None = None
    unit: Literal["s", "calls"] = "s"
    load: tuple[float, ...] = ()

    @property
    def value(self) -> float:
        return statistics.median(self.values)

    @property
    def ratio(self) -> float | None:
        base = statistics.median(self.floor) if self.floor else 0.0
        return self.value / base if base > 0 else None

    @property
    def met(self) -> bool | None:
        """Whether the goal was reached; None without a goal."""
        if self.goal is None:
            return None
        measured = self.ratio if self.floor else self.value
        return None if measured is None else measured <= self.goal

    def data(self) -> dict[str, Any]:
        return {
            "part": self.part,
            "phase": self.phase,
            "unit": self.unit,
            "value": round(self.value, 2),
            "values": [round(value, 2) for value in self.values],
            "floor": [round(value, 2) for value in self.floor],
            "ratio": None if self.ratio is None else round(self.ratio, 2),
            "goal": self.goal,
            "met": self.met,
            "load": [round(value, 1) for value in self.load],
        }


@dataclass
class Samples:
    """Collects the phases of one part, run by run, in the order in which they were first seen."""

    part: str
    values: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    load: dict[str, list[float]] = field(default_factory=dict[str, list[float]])

    def add(self, phases: Mapping[str, float], load: float) -> None:
        for phase, value in phases.items():
            self.values.setdefault(phase, []).append(value)
            self.load.setdefault(phase, []).append(load)

    def figures(
        self,
        *,
        floor: Samples | None = None,
        goals: Mapping[str, float] | None = None,
        unit: Literal["s", "calls"] = "s",
    ) -> list[Figure]:
        base = floor.values if floor else {}
        return [
            Figure(
                self.part,
                phase,
                tuple(values),
                tuple(base.get(phase, ())),
                (goals or {}).get(phase),
                unit,
                tuple(self.load[phase]),
            )
            for phase, values in self.values.items()
        ]


def table(figures: Sequence[Figure]) -> list[str]:
    """Lines of text: phase, value, its floor, ratio, goal, how often it was measured and under which load."""
    head = ("", "phase", "measured", "floor", "ratio", "goal", "", "runs", "load")
    rows: list[tuple[str, ...]] = [head]
    part = ""
    for figure in figures:
        rows.append(("" if figure.part == part else figure.part, *_cells(figure)))
        part = figure.part
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    right = {2, 3, 4, 7}
    return [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _cells(figure: Figure) -> tuple[str, ...]:
    unit = "" if figure.unit == "calls" else " s"
    digits = 0 if figure.unit == "calls" else 1
    goal = ""
    if figure.goal is not None:
        goal = f"≤ {figure.goal:g}" + (" ×" if figure.floor else unit)
    return (
        figure.phase,
        _spread(figure.values, digits) + unit,
        _spread(figure.floor, digits) + unit if figure.floor else "",
        f"{figure.ratio:.2f}" if figure.ratio is not None else "",
        goal,
        {True: "yes", False: "no", None: ""}[figure.met],
        str(len(figure.values)),
        _spread(figure.load, 1),
    )


def _spread(values: Sequence[float], digits: int) -> str:
    """The median, with the least and the most where they differ."""
    if not values:
        return ""
    middle, low, high = (f"{value:.{digits}f}" for value in (statistics.median(values), min(values), max(values)))
    return middle if low == high else f"{middle} ({low} to {high})"
