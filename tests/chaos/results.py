"""What a run of the scenarios found: one result for each case, as plain lines for people and as data for programs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


class Broken(Exception):
    """A case did not end as it should; the message says how."""


def insist(true: object, text: str) -> None:
    """Raise Broken with ``text`` unless ``true``."""
    if not true:
        raise Broken(text)


@dataclass
class Result:
    """One case of a scenario. ``times``: what it took, phase → seconds. ``fault``: empty when it ended as it should."""

    scenario: str
    case: str
    times: dict[str, float] = field(default_factory=dict[str, float])
    facts: list[str] = field(default_factory=list[str])
    fault: str = ""
    load: float = 0.0

    def line(self) -> str:
        """The result as one line."""
        times = [f"{phase} {seconds:.1f} s" for phase, seconds in self.times.items()]
        return "  ".join([f"{self.scenario}: {self.case}", *times, *self.facts, f"FAULT: {self.fault}" if self.fault else "ok"])

    def data(self) -> dict[str, Any]:
        return {
            "scenario": self.scenario,
            "case": self.case,
            "seconds": {phase: round(seconds, 1) for phase, seconds in self.times.items()},
            "facts": self.facts,
            "ok": not self.fault,
            "fault": self.fault,
            "load": round(self.load, 1),
        }

    @contextmanager
    def timed(self, phase: str) -> Generator[None]:
        """What the block takes is the phase's time."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.times[phase] = time.monotonic() - began


class Results:
    """Collects results; ``say`` gets each one's line as soon as it has ended."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.found: list[Result] = []

    @contextmanager
    def case(self, scenario: str, case: str) -> Generator[Result]:
        """Run the block as one case. What it raises is the case's fault; the next case runs all the same."""
        result = Result(scenario, case)
        self.say(f"{scenario}: {case} …")
        try:
            yield result
        except Exception as error:
            result.fault = " ".join(f"{error if isinstance(error, Broken) else repr(error)}".split())[:2000]
        except BaseException as error:
            result.fault = f"interrupted ({type(error).__name__})"
            raise
        finally:
            result.load = os.getloadavg()[0]
            self.found.append(result)
            self.say(result.line())

    @property
    def faults(self) -> list[Result]:
        return [one for one in self.found if one.fault]
