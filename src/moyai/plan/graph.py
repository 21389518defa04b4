"""A plan: steps in an order that respects what each waits for. The only place where order is kept.

Always holds: every identity is unique; ``after`` names only steps of the same plan; there is no circle.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter
from types import MappingProxyType

from moyai.core.keys import Key, Kind
from moyai.plan.changes import Change
from moyai.plan.demands import Choices
from moyai.plan.nodes import PlannedNode
from moyai.plan.steps import Step, StepId


@dataclass(frozen=True)
class Made:
    """What exists of the cluster in the cloud: known when a plan is made, and handed from step to step as more is made.

    ``ids``: the cloud's ids. ``network_mtu``: of the machines' network. ``api_address``: where the API is reached.
    """

    ids: Mapping[Key, str] = field(default_factory=lambda: MappingProxyType[Key, str]({}))
    network_mtu: int = 0
    api_address: str = ""

    def id(self, key: Key) -> str:
        """The id of the object; a plan's order sees to it that the object exists."""
        return self.ids[key]


@dataclass(frozen=True)
class KeptObject:
    """An object that stays on purpose, and why."""

    kind: Kind
    object_id: str
    name: str
    why: str


@dataclass(frozen=True)
class Replacement:
    """A node whose machine was made with something else than the spec has, and ``why``. ``now``: by the steps of this plan;
    otherwise by a later one, made when those are done."""

    node: str
    why: str
    now: bool = False


@dataclass(frozen=True)
class Plan:
    """``made``: what exists already. ``notes``: lines for the user. ``choices``: None for the plan of a removal.

    ``released``: names of nodes whose allocations are free, because nothing of them is left. ``replacements``: in order.
    ``unsettled``: names of nodes whose addresses are guesses, until their ports are made.
    """

    steps: tuple[Step, ...] = ()
    nodes: tuple[PlannedNode, ...] = ()
    made: Made = field(default_factory=Made)
    choices: Choices | None = None
    changes: tuple[Change, ...] = ()
    notes: tuple[str, ...] = ()
    kept: tuple[KeptObject, ...] = ()
    released: tuple[str, ...] = ()
    replacements: tuple[Replacement, ...] = ()
    unsettled: frozenset[str] = frozenset()

    @property
    def part(self) -> Plan:
        """What can be done now: all of it, or the ports of the nodes whose addresses the cloud is yet to choose."""
        if not self.unsettled:
            return self
        by_id = {step.id: step for step in self.steps}
        now: set[StepId] = set()
        todo = [step.id for step in self.steps if step.key.kind is Kind.PORT and step.key.name in self.unsettled]
        while todo:
            identity = todo.pop()
            if identity not in now:
                now.add(identity)
                todo += by_id[identity].after
        return replace(self, steps=tuple(step for step in self.steps if step.id in now))

    def __bool__(self) -> bool:
        return bool(self.steps)


def ordered(steps: Iterable[Step]) -> tuple[Step, ...]:
    """The steps, each behind those it waits for, otherwise in the given order.

    A step may wait for another that turned out not to be needed: an ``after`` that is not among the steps is dropped.
    Raises ValueError for an identity that is there twice, and for a circle.
    """
    given = list(steps)
    by_id: dict[StepId, Step] = {}
    for step in given:
        if step.id in by_id:
            raise ValueError(f"two steps are called {step.id}")
        by_id[step.id] = step
    position = {step.id: number for number, step in enumerate(given)}
    kept = {
        step.id: replace(step, after=tuple(sorted({one for one in step.after if one in by_id}, key=lambda one: position[one])))
        for step in given
    }
    sorter = TopologicalSorter({identity: step.after for identity, step in kept.items()})
    try:
        sorter.prepare()
    except CycleError as error:
        raise ValueError(f"steps wait for each other in a circle: {', '.join(map(str, error.args[1]))}") from None
    result: list[Step] = []
    ready: list[StepId] = []
    while sorter.is_active():
        ready = sorted({*ready, *sorter.get_ready()}, key=lambda one: position[one])
        first = ready.pop(0)
        result.append(kept[first])
        sorter.done(first)
    return tuple(result)
