"""Every plan cut off before and after each of its steps: the plan of the next run is exactly the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from moyai.cloud.memory import Killed, MemoryCloud
from moyai.cloud.model import Power
from moyai.core.errors import UsageError
from moyai.core.keys import Kind
from moyai.core.progress import Progress
from moyai.kube.objects.node import CONTROL_PLANE
from moyai.kube.resources import NODES
from moyai.lifecycle import down as teardown
from moyai.lifecycle import drain, execute
from moyai.lifecycle import up as building
from moyai.lifecycle.mode_change import MovingSteps
from moyai.plan import text
from moyai.plan.graph import Plan
from moyai.plan.steps import (
    Delete,
    DeletePods,
    DetachVolume,
    LeavingPlane,
    MarkControlPlane,
    Step,
    StepId,
    StopServer,
    Verb,
    WaitBalancers,
)
from moyai.spec.load import parse
from tests.fakes.clock import FakeClock
from tests.fakes.cloud import named
from tests.unit.lifecycle_world import World, in_use, with_disks

Table = Callable[..., Mapping[type[Step], execute.Handler]]
SMALL, LARGE = "spec: {nodePools: [{replicas: 1}]}", "spec: {nodePools: [{replicas: 2}]}"


class Cut:
    """Lets a run do ``count`` steps, then kills it before the next, or, with ``after``, once that one is done."""

    def __init__(self, count: int, *, after: bool) -> None:
        self.left, self.after = count, after
        self.done: set[StepId] = set()

    def wrapped(self, table: Table) -> Table:
        def wrap(*parts: Any) -> Mapping[type[Step], execute.Handler]:
            return {kind: self._cut(handler) for kind, handler in table(*parts).items()}

        return wrap

    def _cut(self, handler: execute.Handler) -> execute.Handler:
        def run(step: Step, progress: Progress) -> None:
            if self.left <= 0 and not self.after:
                raise Killed
            handler(step, progress)
            self.done.add(step.id)
            self.left -= 1
            if self.left < 0:
                raise Killed

        return run


def fresh(_: World) -> None:
    """Nothing was there before."""


def small(world: World) -> None:
    world.up(SMALL)


def large(world: World) -> None:
    world.up(LARGE)


def broken(world: World) -> None:
    """A worker that its cloud could not start, and whose Node object is still there."""
    world.up(SMALL)
    world.fail("quickstart-workers-0", "No valid host was found")


def neglected(world: World) -> None:
    """A node that somebody deleted, and one that has been silent for long, while their machines run."""
    world.up(LARGE)
    world.kube().delete(NODES, "quickstart-workers-0")
    world.silence("quickstart-workers-1", minutes=20)


def planeless(world: World) -> None:
    """The control plane's Node is gone, and with it what kubeadm marked it with."""
    world.up(SMALL)
    world.kube().delete(NODES, "quickstart-control-plane-0")


THREE = "spec: {controlPlane: {replicas: 3}, nodePools: [{replicas: 1}]}"
FIVE = "spec: {controlPlane: {replicas: 5}, nodePools: [{replicas: 1}]}"
ONE_OF_MORE = "spec: {controlPlane: {endpoint: vrrp}, nodePools: [{replicas: 1}]}"


def three(world: World) -> None:
    world.up(THREE)


def one_of_more(world: World) -> None:
    """A single control plane whose API has a virtual address."""
    world.up(ONE_OF_MORE)


def three_led_by_the_last(world: World) -> None:
    """The one that leaves first leads etcd, and has the API's address."""
    world.up(THREE)
    world.kube().etcd.leader = world.kube().etcd.holder = "quickstart-control-plane-2"


def five(world: World) -> None:
    world.up(FIVE)


def three_with_a_dead_one(world: World) -> None:
    """The lowest one is broken: another one stays."""
    world.up(THREE)
    world.fail("quickstart-control-plane-0", "its host is gone")


def plane_broken(world: World) -> None:
    world.up(THREE)
    world.fail("quickstart-control-plane-0", "its host is gone")


def plane_deleted(world: World) -> None:
    world.up(THREE)
    world.cloud.machines.delete_server(named(world.store.servers, "quickstart-control-plane-1").id)
    world.store.settle()


def set_aside(world: World) -> None:
    """A machine that somebody paused, and a node that a run began to remove and that is wanted again."""
    world.up(LARGE)
    world.power("quickstart-workers-0", Power.SUSPENDED)
    drain.cordon(world.api(), "quickstart-workers-1")
    drain.exclude(world.api(), "quickstart-workers-1")


def one_missing(world: World) -> None:
    world.up(SMALL)
    world.kube().delete(NODES, "quickstart-workers-0")


def doomed(world: World) -> None:
    """A disk that goes with its cluster, at a machine, with a snapshot."""
    with_disks(world)


def silent(world: World) -> None:
    """As in use, but Kubernetes does not answer any more."""
    in_use(world)
    world.power("quickstart-control-plane-0", Power.OFF)


def up_plan(spec: str) -> Callable[[World], Plan]:
    return lambda world: building.preview(parse(spec), world.cloud, paths=world.paths, clock=world.clock)


def replaced(world: World) -> str:
    """What is said to `up` as long as the machine is there; a run without it finishes the rest."""
    return next((one.name for one in world.store.servers if one.name == "quickstart-control-plane-0"), "")


def down_plan(world: World) -> Plan:
    try:
        target, record = teardown.target_of("quickstart", world.paths, cloud=world.cloud)
    except UsageError:
        return Plan()  # nothing of it is left
    return teardown.preview(target, record, cloud=world.cloud)


def came_about(world: World, step: Step) -> bool:
    """Whether something else has done what the step is for: Kubernetes takes volumes off a machine, the cloud deletes the port
    of a load balancer with it, and kubeadm marks the Node of a control plane that joins others."""
    if isinstance(step, MarkControlPlane):
        nodes = {one["metadata"]["name"]: one["metadata"] for one in world.kube().store.all(NODES)}
        return CONTROL_PLANE in nodes.get(step.node, {}).get("labels", {})
    if isinstance(step, Delete):
        return step.kind is Kind.PORT and step.object_id not in world.store.ports
    volumes = step.volume_ids if isinstance(step, StopServer) else (step.volume_id,) if isinstance(step, DetachVolume) else ()
    return bool(volumes) and not any(world.store.volumes[one].attached_server_ids for one in volumes)


def unsafe(world: World) -> list[str]:
    """What etcd or the API's clients have suffered."""
    return [one for kube in world.kubes.values() for one in kube.etcd.broken]


#: What was there before, the plan, and the run.
Case = tuple[Callable[[World], None], Callable[[World], Plan], Callable[[World], object]]
CASES: dict[str, Case] = {
    "up": (fresh, up_plan(SMALL), lambda world: world.up(SMALL)),
    "scale up": (small, up_plan(LARGE), lambda world: world.up(LARGE)),
    "scale down": (large, up_plan(SMALL), lambda world: world.up(SMALL)),
    "replace": (broken, up_plan(SMALL), lambda world: world.up(SMALL)),
    "down": (small, down_plan, lambda world: world.down()),
    "down in use": (in_use, down_plan, lambda world: world.down()),
    "down with a disk that goes": (doomed, down_plan, lambda world: world.down()),
    "down without Kubernetes": (silent, down_plan, lambda world: world.down()),
    "repair": (neglected, up_plan(LARGE), lambda world: world.up(LARGE)),
    "repair the control plane": (planeless, up_plan(SMALL), lambda world: world.up(SMALL)),
    "take back": (set_aside, up_plan(LARGE), lambda world: world.up(LARGE)),
    "three control planes": (fresh, up_plan(THREE), lambda world: world.up(THREE)),
    "from one control plane to three": (one_of_more, up_plan(THREE), lambda world: world.up(THREE)),
    "replace a broken control plane": (plane_broken, up_plan(THREE), lambda world: world.up(THREE)),
    "replace a lost control plane": (plane_deleted, up_plan(THREE), lambda world: world.up(THREE)),
    "from three control planes to one": (three_led_by_the_last, up_plan(ONE_OF_MORE), lambda world: world.up(ONE_OF_MORE)),
    "from five control planes to three": (five, up_plan(THREE), lambda world: world.up(THREE)),
    "to the one that works": (three_with_a_dead_one, up_plan(ONE_OF_MORE), lambda world: world.up(ONE_OF_MORE)),
    "replace a control plane that works": (
        three,
        lambda world: world.preview(THREE, replaced=replaced(world)),
        lambda world: world.up(THREE, replaced=replaced(world)),
    ),
    "down of three control planes": (three, down_plan, lambda world: world.down()),
    "grow while a node is missing": (one_missing, up_plan(LARGE), lambda world: world.up(LARGE)),
}

PLANS = {
    "scale up": [
        "change spec.nodePools[workers].replicas: 1 → 2 (live: machines are made or removed)",
        " 1  create port quickstart-workers-1 10.8.0.12, pods 10.244.2.0/24",
        " 2  renew the bootstrap token for the machines that join",
        " 3  create server quickstart-workers-1 (m1.small in az2)  (after 1, 2)",
        " 4  add route 10.244.2.0/24 via 10.8.0.12",
        " 5  wait until 3 machines run  (after 3)",
        " 6  wait until 3 nodes are Ready  (after 5)",
        " 7  delete the bootstrap token, since all nodes have joined  (after 2, 6)",
        " 8  wait until moyai-cloud-controller-manager, coredns, kube-proxy run  (after 6)",
        " 9  wait until moyai-agent run  (after 6)",
        "10  wait until csi-memory-controllerplugin, snapshot-controller, csi-memory-nodeplugin run  (after 6)",
    ],
    "scale down": [
        "change spec.nodePools[workers].replicas: 2 → 1 (live: machines are made or removed)",
        "1  exclude node quickstart-workers-1 from load balancers",
        "2  wait until load balancers and their connections have left node quickstart-workers-1  (after 1)",
        "3  drain node quickstart-workers-1  (after 1, 2)",
        "4  delete server quickstart-workers-1  (after 1, 2, 3)",
        "5  remove route 10.244.2.0/24 via 10.8.0.12  (after 4)",
        "6  delete node quickstart-workers-1  (after 4)",
        "7  delete port quickstart-workers-1  (after 1, 2, 3, 4, 5, 6)",
    ],
    "replace": [
        " 1  exclude node quickstart-workers-0 from load balancers",
        " 2  wait until load balancers and their connections have left node quickstart-workers-0  (after 1)",
        " 3  delete server quickstart-workers-0: No valid host was found  (after 1, 2)",
        " 4  delete node quickstart-workers-0  (after 3)",
        " 5  renew the bootstrap token for the machines that join",
        " 6  create server quickstart-workers-0 (m1.small in az1)  (after 3, 4, 5)",
        " 7  wait until 2 machines run  (after 6)",
        " 8  wait until 2 nodes are Ready  (after 3, 4, 7)",
        " 9  delete the bootstrap token, since all nodes have joined  (after 5, 8)",
        "10  wait until moyai-cloud-controller-manager, coredns, kube-proxy run  (after 8)",
        "11  wait until moyai-agent run  (after 8)",
        "12  wait until csi-memory-controllerplugin, snapshot-controller, csi-memory-nodeplugin run  (after 8)",
    ],
}


@pytest.mark.parametrize("name", PLANS)
def test_the_plan_is(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, monkeypatch)
    before, plan, _ = CASES[name]
    before(world)
    assert text.lines(plan(world)) == PLANS[name]


@pytest.mark.exhaustive
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", CASES)
def test_the_next_plan_is_exactly_the_rest(name: str, after: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_everywhere(CASES[name], after=after, folder=tmp_path, monkeypatch=monkeypatch)


def cut_everywhere(case: Case, *, after: bool, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cuts the case's plan off before or after each of its steps, and compares the next plan with the rest."""
    monkeypatch.setattr(execute, "WORKERS", 1)
    monkeypatch.setattr(building, "new_uid", lambda: "0123456789")
    table = execute.table
    before, plan, run = case
    number = 0
    while True:
        world = World(folder / str(number), monkeypatch)
        before(world)
        whole = plan(world)
        assert whole
        cut = Cut(number, after=after)
        monkeypatch.setattr(execute, "table", cut.wrapped(table))
        try:
            run(world)
        except Killed:
            pass
        else:
            assert number >= len(whole.steps)
            assert not unsafe(world)
            break
        finally:
            monkeypatch.setattr(execute, "table", table)
        rest = plan(world)
        left = {step.id: step.text for step in whole.steps if step.id not in cut.done}
        found = {step.id: step.text for step in rest.steps}
        # pods may have come back to a node whose machine still runs, or to a volume; only the steps ask load balancers and etcd
        looking = (DeletePods, WaitBalancers, LeavingPlane)
        again = {step.id for step in whole.steps if step.verb is Verb.DRAIN or isinstance(step, looking)}
        assert found.keys() - again <= left.keys(), f"cut at step {number}"
        # a wait is not planned where its condition came true meanwhile
        done = {step.id for step in whole.steps if came_about(world, step)}
        missing = {one for one in left.keys() - found.keys() - done if one.verb is not Verb.WAIT}
        assert not missing, f"cut at step {number}"
        assert {one: found[one] for one in found.keys() & left.keys()} == {one: left[one] for one in found.keys() & left.keys()}
        edges = {step.id: set(step.after) & found.keys() for step in whole.steps}
        # which control plane leaves first follows from which of them run
        same = [set(step.after) == edges[step.id] for step in rest.steps if not isinstance(step, LeavingPlane)]
        assert all(same), f"cut at step {number}"
        run(world)
        assert not plan(world).steps, f"cut at step {number}"
        assert not unsafe(world), f"cut at step {number}"
        number += 1


def test_every_step_has_a_call() -> None:
    def classes(kind: type[Step]) -> set[type[Step]]:
        return {kind, *(one for child in kind.__subclasses__() for one in classes(child))} - {Step, LeavingPlane}

    context = execute.Context(MemoryCloud(), None, uid="u", clock=FakeClock())
    parts = (
        execute.Making(context, public_key="", render=None),  # type: ignore[arg-type]
        execute.Inside(context, authorities=None, manifests=None),  # type: ignore[arg-type]
        execute.Restoring(context, data=None),  # type: ignore[arg-type]
        execute.Rotating(context, None, authorities=None, encrypts=False),  # type: ignore[arg-type]
        execute.Crediting(context),
        execute.Balancing(context),
        execute.Starting(context, send=None),  # type: ignore[arg-type]
        execute.Beside(context, render=None),  # type: ignore[arg-type]
        MovingSteps(context, facts=None, staged={}, begin=None),  # type: ignore[arg-type]
    )
    assert classes(Step) == set(
        execute.table(*parts, execute.Ending(context), execute.Removing(context), execute.Waiting(context))
    )
