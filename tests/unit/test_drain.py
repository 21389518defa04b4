"""How pods leave a node: in order, Jobs with time to end, budgets respected or overridden after a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from moyai.core.errors import Terminal, UsageError
from moyai.core.progress import Event, Reporter
from moyai.kube.resources import NODES, PODS, Resource
from moyai.lifecycle.drain import drain, forget_node
from moyai.plan.steps import DrainNode, DrainRules
from moyai.spec.load import parse
from tests.unit.lifecycle_world import World

NODE = "quickstart-workers-1"
POOL = "spec: {nodePools: [{replicas: 2, drain: {order: [{app: web}], waitForJobs: 600, timeout: 60, atTimeout: override}}]}"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(tmp_path, monkeypatch)
    world.up()
    return world


def pod(world: World, name: str, *, owner: str = "ReplicaSet", **labels: str) -> None:
    world.kube().pod(name, node=NODE, owner=owner)
    found = world.kube().store.find(PODS, name, namespace="default")
    world.kube().store.put(PODS, {**found, "metadata": {**found["metadata"], "labels": labels}})


def drained(world: World, **rules: Any) -> list[str]:
    """What was said while the node was drained."""
    said: list[str] = []

    def hear(event: Event) -> None:
        if event.kind == "progress" and event.detail not in said[-1:]:
            said.append(event.detail)

    with Reporter(hear, clock=world.clock).step("drain") as step:
        drain(world.api(), NODE, clock=world.clock, progress=step, rules=DrainRules(**rules))
    return said


def test_pods_leave_in_order_and_the_others_last(world: World) -> None:
    for name, labels in (("plain", {}), ("second", {"tier": "back"}), ("first", {"app": "web", "tier": "back"})):
        pod(world, name, **labels)
    drained(world, order=((("app", "web"),), (("tier", "back"),)))
    assert world.kube().evicted == ["first", "second", "plain"]


def test_pods_of_jobs_have_time_to_end(world: World) -> None:
    pod(world, "sum", owner="Job")
    pod(world, "web")
    begun = world.clock.monotonic()
    said = drained(world, jobs=300.0)
    # it did not end in its time, so it is evicted as others are
    assert world.kube().evicted == ["web", "sum"]
    assert world.clock.monotonic() - begun >= 300
    assert any("pods of Jobs have 300 s to end (default/sum)" in line for line in said)


def test_a_job_that_ends_in_time_is_not_evicted(world: World) -> None:
    pod(world, "sum", owner="Job")
    found = world.kube().store.find(PODS, "sum", namespace="default")
    world.kube().store.put(PODS, {**found, "status": {"phase": "Succeeded"}})
    drained(world, jobs=300.0)
    assert world.kube().evicted == []


def test_a_budget_stops_the_drain_and_is_named(world: World) -> None:
    pod(world, "web")
    world.kube().protected.add("web")
    with pytest.raises(Terminal, match=r"could not be drained in 60 s: 1 pods are still there \(default/web\): .*budget"):
        drained(world, timeout=60.0)
    assert world.kube().names(PODS) == ["web"]


def test_a_budget_is_overridden_after_its_time(world: World) -> None:
    pod(world, "web")
    world.kube().protected.add("web")
    begun = world.clock.monotonic()
    drained(world, timeout=60.0, override=True)
    assert world.kube().names(PODS) == []
    assert 60 <= world.clock.monotonic() - begun < 70


def test_a_new_machine_of_the_same_name_finds_no_pod_of_a_daemon_set(world: World) -> None:
    """It would run it as it is, with an image that its node may not have."""
    pod(world, "kube-proxy-old", owner="DaemonSet")
    forget_node(world.api(), NODE, clock=world.clock)
    assert world.kube().names(PODS) == []
    assert NODE not in world.kube().names(NODES)


def test_a_daemon_set_never_lacks_a_pod_on_a_node_that_it_counts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """`status` would call it a problem just after `up` has removed a node."""
    pod(world, "kube-proxy-old", owner="DaemonSet")
    kube, deleted = world.kube(), list[str]()
    delete = kube.delete

    def noted(resource: Resource, name: str, **more: Any) -> None:
        deleted.append(name)
        delete(resource, name, **more)

    monkeypatch.setattr(kube, "delete", noted)
    forget_node(world.api(), NODE, clock=world.clock)
    assert deleted == [NODE, "kube-proxy-old"]


def test_the_plan_has_the_rules_of_the_pool(world: World) -> None:
    world.up(POOL)
    step = next(one for one in world.preview(POOL.replace("replicas: 2", "replicas: 1")).steps if isinstance(one, DrainNode))
    assert step.rules == DrainRules(order=((("app", "web"),),), jobs=600, timeout=60, override=True)
    assert step.text == f"drain node {NODE} (in order, Jobs have 600 s to end, after 60 s against budgets)"


@pytest.mark.parametrize(
    ("drain", "says"),
    [
        ("order: [{}]", "spec.nodePools[0].drain.order[0]: a mapping, should be labels such as {app: web}"),
        ("order: [{app tier: web}]", "drain.order[0]: a mapping, should be labels such as {app: web}"),
        ("order: [{app: web server}]", "drain.order[0]: a mapping, should be labels such as {app: web}"),
        ("timeout: 1", "spec.nodePools[0].drain.timeout: 1, should be at least 10"),
        ("atTimeout: kill", "spec.nodePools[0].drain.atTimeout: 'kill', should be 'stop' or 'override'"),
    ],
)
def test_bad_rules_are_one_line(drain: str, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(f"spec: {{nodePools: [{{drain: {{{drain}}}}}]}}")
    assert says in str(caught.value)
