"""The rounds of a command that brings a cluster to its spec: look, plan, carry out, until no machine is out of date.

Always holds: each round begins with a look, so that nothing is planned from what an earlier one has changed; where the cloud
fails for a moment the next round comes by itself, within a bound.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from moyai.bootstrap.machine import ClusterFacts
from moyai.core.clock import Clock
from moyai.core.errors import Retriable, Terminal
from moyai.core.progress import Reporter
from moyai.kube.quick import KubeApi
from moyai.lifecycle.patience import CloudPatience
from moyai.lifecycle.record import Record
from moyai.plan.graph import Plan
from moyai.plan.observed import Observed, Recorded
from moyai.spec.model import Cluster


@dataclass(frozen=True)
class Start:
    """Where a cluster stands before a round does anything, and what is to be done. ``facts``: with the cluster as its spec has
    it, and as it was built where the spec says nothing of its security."""

    record: Record | None
    recorded: Recorded
    observed: Observed
    plan: Plan
    facts: ClusterFacts
    api: KubeApi | None = None


class Looks(Protocol):
    """Reads record, cloud and Kubernetes, and plans."""

    def __call__(self, cluster: Cluster, replaced: str, *, hold: bool) -> Start: ...


class Carries(Protocol):
    """Carries out the plan; returns what the user must hear of all the same."""

    def __call__(self, start: Start, record: Record, *, suffix: str) -> tuple[str, ...]: ...


def _of_round(number: int) -> str:
    """Tells the steps of a round from those of the first."""
    return f" (round {number})" if number > 1 else ""


class Rounds:
    """``changed``: whether anything was done. ``late``: what the user must hear of. ``stopped``: whether the caller
    ended it between two rounds."""

    def __init__(self, looks: Looks, carries: Carries, *, reporter: Reporter, clock: Clock) -> None:
        self._looks, self._carries, self._reporter = looks, carries, reporter
        self._number = 0
        self._patience = CloudPatience(reporter, clock)
        self.changed = self.stopped = False
        self.late: list[str] = []

    def look(self, cluster: Cluster, *, replaced: str = "", hold: bool = True) -> Start:
        """The beginning of a round. ``replaced``, ``hold``: see ``lifecycle.up``."""
        while True:
            self._number += 1
            try:
                with self._reporter.step(f"look at the cloud{_of_round(self._number)}"):
                    return self._looks(cluster, replaced, hold=hold)
            except Retriable as error:
                self._patience.bear(error)

    def resume(self, cluster: Cluster, *, replaced: str) -> Start:
        """A look after a failure in the middle. ``replaced``: counts while the machine is there."""
        start = self.look(cluster)
        there = any(one.name == replaced and not one.power.broken for one in start.observed.servers)
        if not there or replaced not in start.recorded.allocations or start.observed.kube is None:
            return start
        return self.look(cluster, replaced=replaced)

    def run(
        self,
        start: Start,
        record: Record,
        *,
        again: Callable[[], Start],
        most: int,
        stop: Callable[[], bool] = lambda: False,
        resume: Callable[[], Start] | None = None,
    ) -> Start:
        """Carry out the plan, ``again`` and again, ``most`` times at most; ``stop``: whether the next round waits. ``resume``:
        looks after a failure, instead of ``again``. Returns the last look."""
        last = self._number + most
        while start.plan or start.plan.replacements:
            self.changed = self.changed or bool(start.plan)
            suffix = _of_round(self._number)
            try:
                self.late += self._carries(start, record, suffix=suffix)
            except Retriable as error:
                before = self._number
                self._patience.bear(error)
                start = (resume or again)()
                record, last = start.record or record, last + self._number - before
                continue
            self._patience.renew()
            if not (start.plan.replacements or start.plan.unsettled):
                break
            if self._number >= last:
                names = ", ".join(one.node for one in start.plan.replacements)
                raise Terminal(f"{names} are still out of date after {most} rounds", hint="`moyai plan` says why")
            if stop():
                self.stopped = True
                break
            start = again()
            record = start.record or record
        return start
