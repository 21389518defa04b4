"""A run that replaces machines, cut off between all of its steps: until the old machine is gone the next plan is
exactly the rest, and in the end each machine was replaced once, with never fewer of them than the spec has."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from moyai.cloud.memory import Killed
from moyai.cloud.model import Power
from moyai.core.keys import Kind
from moyai.kube.objects import parse_node
from moyai.kube.resources import NODES
from moyai.lifecycle import execute
from moyai.lifecycle import up as building
from moyai.plan.graph import Plan
from moyai.plan.steps import LeavingPlane, StepId, Verb, WaitBalancers
from tests.unit.lifecycle_world import World
from tests.unit.test_lifecycle_prefixes import Cut, came_about, unsafe

pytestmark = pytest.mark.exhaustive

LIMITED = "security: {podPidsLimit: 2000}"
#: Spec without the change, how many workers may be missing meanwhile, whether the control planes are replaced.
CASES: dict[str, tuple[str, int, bool]] = {
    "workers": ("nodePools: [{replicas: 2}]", 0, False),
    "two at a time": ("nodePools: [{replicas: 2, rollingUpdate: {maxSurge: 2}}]", 0, False),
    "no room for one more": ("nodePools: [{replicas: 2, rollingUpdate: {maxSurge: 0, maxUnavailable: 1}}]", 1, False),
    "one control plane and a worker": ("controlPlane: {endpoint: vrrp}, nodePools: [{replicas: 1}]", 0, True),
    "three control planes": ("controlPlane: {replicas: 3}, nodePools: []", 0, True),
}


class LeastInService:
    """How few workers took pods and how few control planes ran at a time, and how many machines were made."""

    def __init__(self, world: World) -> None:
        self.world, self.workers, self.planes, self.made = world, 99, 99, 0
        world.store.servers.watch(self._server)
        world.kube().store.on_call = self._called

    def _server(self, before: Any, _after: Any) -> None:
        self.made += before is None
        self._look()

    def _called(self, _name: str, _after: bool) -> None:
        self.world.mortal.check()
        self._look()

    def _look(self) -> None:
        running = {one.name for one in self.world.store.servers if one.power is Power.RUNNING}
        nodes = [parse_node(one) for one in self.world.kube().store.all(NODES)]
        open_nodes = {one.name for one in nodes if not one.cordoned} & running
        self.workers = min(self.workers, sum("workers" in name for name in open_nodes))
        self.planes = min(self.planes, sum("control-plane" in name for name in running))


def wrong(found: Plan, whole: Plan, *, done: Collection[StepId], world: World) -> str:
    """Why ``found`` is not the rest of ``whole``; empty where it is. The next machine may take the place of one that went."""
    left = {step.id: step for step in whole.steps if step.id not in done}
    if not any(one.verb is Verb.DELETE and one.key.kind is Kind.SERVER for one in left):
        return ""
    looking = {one.id for one in whole.steps if one.verb is Verb.DRAIN or isinstance(one, LeavingPlane | WaitBalancers)}
    there = {step.id: step.text for step in found.steps}
    more = there.keys() - looking - left.keys()
    done_otherwise = {one for one, step in left.items() if one.verb is Verb.WAIT or came_about(world, step)}
    missing = left.keys() - there.keys() - done_otherwise
    return f"more {sorted(map(str, more))}, missing {sorted(map(str, missing))}" if more or missing else ""


@pytest.mark.parametrize("name", CASES)
def test_a_replacement_that_is_killed_goes_on(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "WORKERS", 1)
    monkeypatch.setattr(building, "new_uid", lambda: "0123456789")
    spec, missing, planes = CASES[name]
    now = f"spec: {{{spec}, {LIMITED}}}"
    table, carry_out = execute.table, execute.carry_out
    number, killed = 0, True
    while killed:
        where = f"cut at step {number}"
        world = World(tmp_path / str(number), monkeypatch)
        world.up(f"spec: {{{spec}}}")
        old = {one.id for one in world.store.servers if planes or "workers" in one.name}
        names = [one.name for one in world.store.servers]
        workers = sum("workers" in one for one in names)
        watched, cut = LeastInService(world), Cut(number, after=False)
        plans: list[Plan] = []

        def noted(plan: Plan, *args: Any, cut: Cut = cut, plans: list[Plan] = plans, **options: Any) -> None:
            plans.append(plan)
            cut.done.clear()
            carry_out(plan, *args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(execute, "table", cut.wrapped(table))
            patch.setattr(execute, "carry_out", noted)
            try:
                world.up(now)
                killed = False
            except Killed:
                assert wrong(world.preview(now), plans[-1], done=cut.done, world=world) == "", where
        if killed:
            world.up(now)
        assert not world.preview(now).steps, where
        assert old.isdisjoint(one.id for one in world.store.servers), where
        assert (len(world.store.servers), watched.made) == (len(names), len(old)), where
        assert watched.workers >= workers - missing, where
        assert watched.planes >= len(names) - workers, where
        assert not unsafe(world), where
        number += 1
    assert number > 20
