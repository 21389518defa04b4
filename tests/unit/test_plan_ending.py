"""What ends through Kubernetes before a cluster is removed: it is in the plan of `down`, and all else waits for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from moyai.cloud.model import Power
from moyai.core.errors import Retriable
from moyai.core.keys import Kind
from moyai.kube.resources import PODS, SERVICES
from moyai.lifecycle import down as teardown
from moyai.lifecycle import execute
from moyai.plan import steps as s
from moyai.plan import text
from moyai.plan.ending import plan_ending
from moyai.plan.graph import Plan
from tests.unit.lifecycle_world import World, in_use, kept

ENDING = (s.DeleteService, s.WaitServices, s.CordonNode, s.DeletePods, s.WaitReleased)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    # machines are made in the order of their names
    monkeypatch.setattr(execute, "WORKERS", 1)
    made = World(tmp_path, monkeypatch)
    in_use(made)
    return made


def plan_of(world: World) -> Plan:
    target, record = teardown.target_of("quickstart", world.paths, cloud=world.cloud)
    return teardown.preview(target, record, cloud=world.cloud)


def test_a_dry_run_shows_services_pods_and_waits(world: World) -> None:
    assert text.lines(plan_of(world))[:15] == [
        " 1  delete service default/web",
        " 2  delete service default/chat",
        " 3  wait until Kubernetes has removed the load balancers of Services  (after 1, 2)",
        " 4  cordon node quickstart-control-plane-0  (after 3)",
        " 5  cordon node quickstart-workers-0  (after 3)",
        " 6  cordon node quickstart-workers-1  (after 3)",
        " 7  delete the pods that use volumes which outlive the cluster: pv-of-database  (after 4, 5, 6)",
        " 8  wait until Kubernetes has detached the volumes that outlive the cluster  (after 7)",
        " 9  delete server quickstart-control-plane-0  (after 8)",
        "10  stop server quickstart-workers-0 if a volume that outlives it is still attached  (after 9)",
        "11  detach volume pvc-own from server quickstart-workers-0  (after 10)",
        "12  delete server quickstart-workers-0  (after 11)",
        "13  stop server quickstart-workers-1 if a volume that outlives it is still attached  (after 9)",
        "14  detach volume precious from server quickstart-workers-1  (after 13)",
        "15  delete server quickstart-workers-1  (after 14)",
    ]


def test_programs_read_the_same_steps(world: World) -> None:
    found = text.data(plan_of(world))["steps"]
    assert found[0] == {
        "key": "delete service default/web",
        "verb": "delete",
        "kind": "service",
        "name": "default/web",
        "does": "delete service default/web",
        "after": [],
    }
    assert (found[7]["verb"], found[7]["after"]) == ("wait", ["delete pods with volumes that stay"])


def test_nothing_is_taken_from_the_cloud_before(world: World) -> None:
    steps = plan_of(world).steps
    behind = {s.reached(s.VOLUMES_RELEASED)}
    for step in steps:
        if isinstance(step, ENDING):
            continue
        # the credentials and the API's address too: without them nothing ends through Kubernetes
        assert behind.intersection(step.after), step.text
        behind.add(step.id)
    assert {step.key.kind for step in steps} >= {Kind.CREDENTIAL, Kind.FLOATING_IP, Kind.KEY_PAIR}


def test_down_does_it_and_stops_only_machines_whose_volumes_are_still_attached(world: World) -> None:
    world.cloud.calls.clear()
    report = world.down()
    assert not report.left, report.left
    assert kept(report) == [("snapshot", "snapshot-1"), ("volume", "precious"), ("volume", "pvc-own")]
    assert sum(entry.kind == "load balancer" and entry.outcome == "gone" for entry in report.entries) == 2
    (kube,) = world.kubes.values()
    assert (kube.names(SERVICES), kube.names(PODS)) == ([], [])
    assert (world.cloud.calls["machines.stop_server"], world.torn) == (1, [])


def test_a_pod_that_came_after_the_look_ends_too(world: World) -> None:
    (kube,) = world.kubes.values()
    claim = {"name": "data", "persistentVolumeClaim": {"claimName": "claim-of-database"}}

    def come(name: str, after: bool) -> None:
        if name == "delete services" and not after and "database-2" not in kube.names(PODS):
            kube.store.on_call = lambda _name, _after: None
            kube.pod("database-2", volumes=[claim])

    kube.store.on_call = come
    assert not world.down().left
    assert (kube.names(PODS), world.cloud.calls["machines.stop_server"], world.torn) == ([], 1, [])


def test_without_an_answer_the_cloud_alone_is_asked_and_the_plan_says_so(world: World) -> None:
    world.power("quickstart-control-plane-0", Power.OFF)
    plan = plan_of(world)
    assert not [step for step in plan.steps if isinstance(step, ENDING)]
    assert text.lines(plan)[-1].startswith("note: the Kubernetes API does not answer: load balancers are removed in the cloud")
    assert not world.down().left
    assert world.torn == []


def test_an_api_that_ends_after_the_look_keeps_nothing(world: World) -> None:
    (kube,) = world.kubes.values()

    def fail(name: str, after: bool) -> None:
        if name == "delete services" and not after:
            world.power("quickstart-control-plane-0", Power.OFF)
            raise Retriable("connection reset")

    kube.store.on_call = fail
    started = world.clock.monotonic()
    assert not world.down().left
    assert world.clock.monotonic() - started < 60
    assert world.torn == []


def test_a_cluster_that_was_never_asked_has_nothing_to_end() -> None:
    assert plan_ending(None, {"v"}) == ()
