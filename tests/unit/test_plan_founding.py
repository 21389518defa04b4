"""Which machine may begin a cluster: never one beside others that may have a cluster already, however silent they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moyai.cloud.model import Power, Server
from moyai.core.errors import Terminal
from moyai.lifecycle import up as building
from moyai.plan import text
from moyai.plan.cluster import plan_up
from moyai.plan.graph import Plan
from moyai.plan.observed import KubeFacts, KubeNode
from moyai.plan.steps import CreateServer, Delete, StepId
from moyai.spec.load import parse
from tests.fakes.cluster_api import ClusterApi
from tests.unit.lifecycle_world import World
from tests.unit.test_plan_cluster import EMPTY, NEW, TAG
from tests.unit.test_plan_control_planes import THREE

PLANES = [f"quickstart-control-plane-{number}" for number in range(3)]


def nothing(*_: object, **_options: object) -> None:
    """What is known of a cluster whose API does not answer."""


def made(plan: Plan) -> dict[str, bool]:
    """Control plane → whether its machine begins the cluster, of those that are made."""
    return {one.node.name: one.first for one in plan.steps if isinstance(one, CreateServer) and one.node.role != "worker"}


def before(plan: Plan, wanted: StepId) -> set[StepId]:
    """All steps that are done before that one."""
    edges, found, left = {one.id: one.after for one in plan.steps}, set[StepId](), [wanted]
    while left:
        new = set(edges.get(left.pop(), ())) - found
        found |= new
        left += new
    return found & set(edges)


def test_the_first_machine_of_a_new_cluster_begins_it() -> None:
    assert made(plan_up(parse(THREE), EMPTY, recorded=NEW)) == {PLANES[0]: True, PLANES[1]: False, PLANES[2]: False}


def test_a_first_machine_that_is_made_again_joins_however_silent_the_others_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, monkeypatch)
    world.up(THREE)
    world.fail(PLANES[0], "its host is gone")
    world.kube().mute = True
    assert made(world.preview(THREE)) == {PLANES[0]: False}


@pytest.fixture
def unseen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """All machines run, and `up` has not seen the API answer yet."""
    world = World(tmp_path, monkeypatch)
    monkeypatch.setattr(ClusterApi, "mute", True)
    with pytest.raises(Terminal, match="waited 300 s for the API"):
        world.up(THREE)
    return world


def test_a_cluster_that_never_answered_and_whose_first_machine_is_gone_begins_again_with_all_machines(
    unseen: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    unseen.fail(PLANES[0], "its host is gone")
    before_again = {server.name: server.id for server in unseen.store.servers}
    plan = unseen.preview(THREE)
    assert made(plan) == {PLANES[0]: True, PLANES[1]: False, PLANES[2]: False}
    why = "quickstart-control-plane-0, which begins the cluster, is made again"
    assert any(f"delete server quickstart-control-plane-1: {why}" in line for line in text.lines(plan))
    monkeypatch.setattr(ClusterApi, "mute", False)
    # as the first machine begins again: nothing answers before
    monkeypatch.setattr(building.observe, "kube_facts", nothing)
    unseen.up(THREE)
    assert not {before_again[name] for name in PLANES} & {server.id for server in unseen.store.servers}


def test_an_api_that_answers_is_joined_whatever_the_record_says(unseen: World, monkeypatch: pytest.MonkeyPatch) -> None:
    unseen.fail(PLANES[0], "its host is gone")
    monkeypatch.setattr(ClusterApi, "mute", False)
    plan = unseen.preview(THREE)
    assert made(plan) == {PLANES[0]: False}
    unseen.up(THREE)
    assert not unseen.preview(THREE).steps


STATES = st.sampled_from([None, Power.RUNNING, Power.OFF, Power.FAILED])


@given(
    machines=st.dictionaries(st.sampled_from(PLANES), STATES),
    ready=st.booleans(),
    answers=st.booleans(),
    replicas=st.sampled_from([1, 3]),
)
def test_whatever_is_there_no_machine_begins_a_cluster_beside_another_control_plane(
    machines: Mapping[str, Power | None], ready: bool, answers: bool, replicas: int
) -> None:
    servers = tuple(
        Server(f"id-{name}", name, "X", "az1", "m1.medium", metadata={"moyai.cluster": NEW.uid}, tags=TAG, power=power)
        for name, power in machines.items()
        if power
    )
    kube = KubeFacts(nodes=tuple(KubeNode(one.name, role="control-plane") for one in servers)) if answers else None
    observed = replace(EMPTY, servers=servers, kube=kube)
    spec = f"spec: {{controlPlane: {{replicas: {replicas}, endpoint: vrrp}}, nodePools: []}}"
    try:
        plan = plan_up(parse(spec), observed, recorded=replace(NEW, ready=ready))
    except Terminal:
        return  # nothing is done
    founders = [one for one in plan.steps if isinstance(one, CreateServer) and one.first]
    assert len(founders) <= 1
    for founder in founders:
        assert not ready
        gone = {one.object_id for one in plan.steps if isinstance(one, Delete) and one.id in before(plan, founder.id)}
        assert {one.id for one in servers} <= gone
    # and a cluster that nobody has begun is begun by somebody
    working = {one.name for one in servers if not one.power.broken}
    if not ready and not answers:
        assert founders or PLANES[0] in working
