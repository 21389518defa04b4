"""The agents of a cluster that exists: switched on and off by the spec, and brought back when somebody deleted them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moyai.bootstrap.machine import server_content
from moyai.bootstrap.user_data import encoded_size
from moyai.core.errors import Terminal
from moyai.kube.resources import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    CONFIG_MAPS,
    DAEMON_SETS,
    DEFINITIONS,
    NAMESPACES,
    SERVICE_ACCOUNTS,
)
from moyai.lifecycle import addon_objects, execute
from moyai.lifecycle import up as building
from moyai.lifecycle.record import Record
from moyai.plan import text
from moyai.spec.load import parse, validate
from tests.unit.lifecycle_world import World

ON, OFF = "spec: {network: {policy: true}}", "spec: {network: {policy: false}}"
VXLAN = "spec: {network: {mode: vxlan%s}}"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def settled(world: World, spec: str = "") -> World:
    """A cluster whose add-ons were applied long ago."""
    world.up(spec)
    world.clock.sleep(3600)
    world.up(spec)
    return world


def agents(world: World) -> list[str] | None:
    """The arguments of the agents, None where there are none."""
    found = world.kube().store.objects.get((DAEMON_SETS.plural, "kube-system", "moyai-agent"))
    return found["spec"]["template"]["spec"]["containers"][0]["args"] if found else None


def controllers(world: World) -> str:
    return next(one.partition("=")[2] for one in agents(world) or () if one.startswith("--controllers="))


def record_of(world: World) -> Record:
    record = Record.open(world.paths, "quickstart", clock=world.clock)
    assert record is not None
    return record


def older(world: World) -> None:
    """The record is that of a moyai that had no such field."""
    record = record_of(world)
    spec = json.loads(json.dumps(record.spec))
    del spec["spec"]["network"]["policy"]
    record.set_spec(spec)


def test_switched_off_agents_clear_up_before_they_are_removed_and_switched_on_they_come_back(world: World) -> None:
    settled(world)
    seen: list[str] = []
    kube = world.kube()
    kube.store.on_call = lambda name, after: seen.append(f"{name} {agents(world)}") if not after else None
    lines = text.lines(world.preview(OFF))
    assert lines[:4] == [
        "change spec.network.policy: True → False (live: an agent on each node follows)",
        "1  apply add-on network policies: so that its pods take back what they have done to the nodes",
        "2  wait until moyai-agent run  (after 1)",
        "3  remove add-on network policies  (after 2)",
    ]
    seen.clear()
    assert world.up(OFF).changed
    (deleted,) = [one for one in seen if one.startswith("delete daemonsets")]
    assert "--controllers='" in deleted
    assert "--net-config-path" not in deleted
    store = kube.store
    # with the definition the user's objects would go
    assert [one["spec"]["names"]["plural"] for one in store.all(DEFINITIONS)] == []
    assert not store.all(SERVICE_ACCOUNTS) + store.all(CLUSTER_ROLES) + store.all(CLUSTER_ROLE_BINDINGS)
    assert agents(world) is None
    assert not world.up(OFF).changed
    # what a cluster has counts where the spec says nothing
    assert not world.up().changed
    found = world.up(ON)
    assert any("with the moyai of its own image" in note for note in found.notes)
    assert controllers(world) == "policy,cluster-policy"
    assert not world.up(ON).changed


def test_a_switch_is_never_passed_over_because_the_cluster_is_young(world: World) -> None:
    world.up(OFF)
    world.kube().store.vanish(DAEMON_SETS, "moyai-agent", namespace="kube-system")
    assert not world.up(OFF).changed
    assert world.up(ON).changed
    assert world.up(OFF).changed
    assert agents(world) is None


def test_agents_that_keep_the_pod_network_stay_and_change_their_controllers(world: World) -> None:
    settled(world, VXLAN % "")
    assert world.up(VXLAN % ", policy: false").changed
    assert controllers(world) == "pod-network"
    assert not world.up(VXLAN % ", policy: false").changed
    assert world.up(VXLAN % ", policy: true").changed
    assert controllers(world) == "pod-network,policy,cluster-policy"


def test_a_cluster_of_an_older_moyai_goes_on_as_it_is_until_its_spec_asks_for_policies(world: World) -> None:
    settled(world)
    older(world)
    kube = world.kube()
    kube.store.vanish(DAEMON_SETS, "moyai-agent", namespace="kube-system")
    assert not record_of(world).cluster.spec.network.policy
    assert not world.up().changed
    assert record_of(world).spec["spec"]["network"]["policy"] is False
    older(world)
    assert world.up(ON).changed
    assert controllers(world) == "policy,cluster-policy"


def test_a_cluster_of_an_older_moyai_whose_nodes_had_agents_enforced_policies(world: World) -> None:
    settled(world, VXLAN % "")
    older(world)
    assert record_of(world).cluster.spec.network.policy
    assert not world.up(VXLAN % "").changed
    older(world)
    assert world.up(VXLAN % ", policy: false").changed
    assert controllers(world) == "pod-network"


def test_agents_that_somebody_deleted_come_back(world: World) -> None:
    settled(world)
    world.kube().store.vanish(DAEMON_SETS, "moyai-agent", namespace="kube-system")
    plan = world.preview()
    assert plan.steps[0].text == "apply add-on network policies: the cluster has none"
    assert not [note for note in plan.notes if "is gone" in note]
    assert world.up().changed
    assert controllers(world) == "policy,cluster-policy"


def test_agents_hear_of_other_routers_while_the_cluster_exists(world: World) -> None:
    speaks = "spec: {network: {mode: bgp, bgp: {routers: [%s]}}}"
    settled(world, speaks % "")
    assert world.up(speaks % "{name: rt-01, address: 10.8.0.2, asn: 64512}").changed
    conf = world.kube().store.objects[(CONFIG_MAPS.plural, "kube-system", "moyai-agent-bgp")]["data"]["bgp.json"]
    assert [one["name"] for one in json.loads(conf)["peers"]] == ["rt-01"]
    assert not world.up(speaks % "{name: rt-01, address: 10.8.0.2, asn: 64512}").changed


def test_other_routers_are_not_forgotten_while_the_api_does_not_answer(world: World) -> None:
    speaks = "spec: {network: {mode: bgp, bgp: {routers: [%s]}}}"
    settled(world, speaks % "")
    world.kube().mute = True
    plan = world.preview(speaks % "{name: rt-01, address: 10.8.0.2, asn: 64512}")
    assert "apply add-on pod network: spec.network.bgp has changed" in [step.text for step in plan.steps]
    assert not any("apply" in step.text for step in world.preview(speaks % "").steps)


def test_agents_that_announce_change_their_controllers(world: World) -> None:
    announces = "spec: {network: {policy: %s}, services: {announce: {ranges: [10.8.0.96/28]}}}"
    settled(world, announces % "true")
    assert world.up(announces % "false").changed
    assert controllers(world) == "announce,bgp"


def test_objects_of_users_outlive_the_agents(world: World) -> None:
    settled(world)
    kube = world.kube()
    kube.store.put(NAMESPACES, {"metadata": {"name": "metallb-system"}})
    addon_objects.remove(world.api(), "apiVersion: v1\nkind: Namespace\nmetadata: {name: metallb-system}\n")
    assert (NAMESPACES.plural, "", "metallb-system") in kube.store.objects


def test_where_a_node_does_not_clear_up_the_agents_stay_and_up_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    settled(world)
    kube = world.kube()
    apply = kube.apply

    def half(*args: Any, **more: Any) -> Any:
        made = apply(*args, **more)
        if made["kind"] == "DaemonSet":
            kube.store.put(DAEMON_SETS, {**made, "status": {**made["status"], "updatedNumberScheduled": 0}})
        return made

    monkeypatch.setattr(kube, "apply", half)
    with pytest.raises(Terminal, match="moyai-agent is not ready yet"):
        world.up(OFF)
    assert agents(world) is not None
    monkeypatch.undo()


@pytest.mark.exhaustive
@pytest.mark.parametrize(("before", "after"), [(ON, OFF), (OFF, ON)])
def test_a_switch_that_was_killed_is_finished_by_the_next(
    before: str, after: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execute, "WORKERS", 1)
    number = 0
    while True:
        number += 1
        world = settled(World(tmp_path / str(number), monkeypatch), before)
        store, calls = world.kube().store, iter(range(1, 1000))

        def on_call(name: str, done: bool, *, calls: Any = calls, world: World = world, last: int = number) -> None:
            world.mortal.check()
            if done and name.split()[0] in ("apply", "delete") and next(calls) == last:
                world.mortal.dead = True
                world.mortal.check()

        store.on_call = on_call
        try:
            world.up(after)
            break
        except BaseException:
            assert world.mortal.dead
        store.on_call = lambda _name, _done: None
        world.mortal.revive()
        world.up(after)
        assert (agents(world) is None) == (after == OFF), f"killed at call {number}"
        assert not world.up(after).changed
    assert number > 3


def test_mode_none_has_agents_only_where_the_spec_wants_policies(world: World) -> None:
    none = parse("spec: {network: {mode: none}}")
    assert not none.spec.network.policy
    wanted = parse("spec: {network: {mode: none, policy: true}}")
    assert any(
        step.text == "wait until moyai-agent run" for step in building.preview(wanted, world.cloud, paths=world.paths).steps
    )


@pytest.mark.parametrize("mode", ["routes", "host-gw", "vxlan"])
def test_the_agents_objects_are_in_the_user_data_of_the_first_control_plane_and_leave_room(
    mode: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    planes: list[int] = []

    def measured(step: Any, facts: Any, **more: Any) -> Any:
        content = server_content(step, facts, **more)
        if step.node.role == "control-plane":
            planes.append(encoded_size(content.user_data))
        return content

    monkeypatch.setattr(building, "server_content", measured)
    for policy in (True, False):
        name = f"{mode}-{policy}".lower()
        spec = {"metadata": {"name": name}, "spec": {"network": {"mode": mode, "policy": policy}}}
        world.up(validate(spec, source="test"))
        world.down(name)
    # the definition of cluster policies takes most of it
    assert planes[0] - planes[1] < 6000
    assert planes[0] < world.cloud.kind.user_data_limit * 3 // 4


def test_all_kinds_of_objects_of_the_agents_are_known(world: World) -> None:
    settled(world, VXLAN % "")
    world.kube().store.vanish(DAEMON_SETS, "moyai-agent", namespace="kube-system")
    world.up(VXLAN % "")
    assert controllers(world) == "pod-network,policy,cluster-policy"
    assert addon_objects.MANAGER in (Path(building.__file__).parents[1] / "bootstrap/data/bootstrap-control-plane").read_text()
