"""Carries out plans: a table from step to call. Order is the plan's alone.

Always holds: a step that finds its work done is content; steps run side by side as the plan's edges permit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from moyai.core.graph import Task, run_graph
from moyai.core.progress import Progress, Reporter
from moyai.lifecycle.execute.balancing import Balancing
from moyai.lifecycle.execute.beside import Beside
from moyai.lifecycle.execute.context import Context, Handler
from moyai.lifecycle.execute.credentials import Crediting
from moyai.lifecycle.execute.ending import Ending
from moyai.lifecycle.execute.inside import Inside
from moyai.lifecycle.execute.making import Making
from moyai.lifecycle.execute.removing import Removing
from moyai.lifecycle.execute.restoring import Restoring
from moyai.lifecycle.execute.rotating import Rotating
from moyai.lifecycle.execute.starting import Starting
from moyai.lifecycle.execute.waiting import Waiting
from moyai.plan.graph import Plan
from moyai.plan.steps import Step

__all__ = [
    "Balancing",
    "Beside",
    "Context",
    "Crediting",
    "Ending",
    "Handler",
    "Inside",
    "Making",
    "Removing",
    "Restoring",
    "Rotating",
    "Starting",
    "Waiting",
    "carry_out",
    "table",
]

WORKERS = 24


class StepPart(Protocol):
    """Carries out steps of some classes."""

    def handlers(self) -> Mapping[type[Step], Handler]: ...


def table(*parts: StepPart) -> Mapping[type[Step], Handler]:
    """The calls of all parts, by class of step."""
    return {kind: handler for part in parts for kind, handler in part.handlers().items()}


def carry_out(
    plan: Plan,
    handlers: Mapping[type[Step], Handler],
    *,
    reporter: Reporter,
    suffix: str = "",
    failed: Callable[[Step, BaseException, Progress], bool] = lambda _step, _error, _progress: False,
) -> None:
    """Run the plan's graph; raises the first error.

    ``suffix`` tells the steps of this run from those of an earlier one in reports. ``failed`` hears of each error, and
    returns whether the steps that wait for the failed one run all the same.
    """

    def task(step: Step) -> Task:
        def run(_: Mapping[str, object], progress: Progress) -> None:
            try:
                handlers[type(step)](step, progress)
            except BaseException as error:
                if not failed(step, error, progress):
                    raise

        return Task(f"{step.id}{suffix}", run, step.after, identity=step.id)

    run_graph([task(step) for step in plan.steps], reporter, workers=WORKERS)
