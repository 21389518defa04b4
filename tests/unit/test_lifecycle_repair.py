"""What `moyai status` finds wrong, a plan has a step for, or one sentence; and no `up` waits for what cannot come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from moyai.cloud.model import Power
from moyai.core.errors import Terminal
from moyai.kube.objects import parse_node
from moyai.kube.objects.node import EXCLUDE_LABEL
from moyai.kube.quick import KubeApi
from moyai.kube.resources import DEPLOYMENTS, NODES, PODS
from moyai.lifecycle import drain, status
from moyai.lifecycle import up as building
from moyai.lifecycle.record import JOIN_TIME, Record
from moyai.lifecycle.status import ClusterStatus
from moyai.plan import text
from tests.fakes.cloud import named
from tests.unit.lifecycle_world import World

PLANE, FIRST, SECOND = "quickstart-control-plane-0", "quickstart-workers-0", "quickstart-workers-1"
Harm = Callable[[World], object]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path, monkeypatch)

    def open_api(record: Record) -> KubeApi | None:
        return building.open_api(record)

    # the same way in for both commands
    monkeypatch.setattr(status, "open_api", open_api)
    made.up()
    made.clock.sleep(JOIN_TIME.total_seconds())
    return made


def record(world: World) -> Record:
    found = Record.open(world.paths, "quickstart", clock=world.clock)
    assert found is not None
    return found


def seen(world: World) -> ClusterStatus:
    return status.read(record(world), world.cloud, clock=world.clock)


def forget_server(world: World, name: str) -> None:
    world.cloud.machines.delete_server(named(world.store.servers, name).id)
    while any(one.name == name for one in world.cloud.machines.servers()):
        world.clock.sleep(1)


def drop_rule(world: World) -> None:
    rule = next(one for one in world.store.rules if one.port_min == 6443)
    world.store.rules.drop(rule.id)


def drop_route(world: World) -> None:
    router = next(iter(world.store.routers))
    world.store.routers.put(replace(router, routes=router.routes[1:]))


def drop_address(world: World) -> None:
    address = next(iter(world.store.floating_ips))
    world.store.floating_ips.drop(address.id)


def half_removed(world: World) -> None:
    drain.cordon(world.api(), SECOND)
    drain.exclude(world.api(), SECOND)


#: What happened → what somebody did, and what the plan says of it.
MENDED: dict[str, tuple[Harm, str]] = {
    "a Node object was deleted": (
        lambda w: w.kube().delete(NODES, SECOND),
        f"restart server {SECOND}: it has no Node object, and a kubelet registers only when it starts",
    ),
    "the control plane's Node object was deleted": (
        lambda w: w.kube().delete(NODES, PLANE),
        f"mark node {PLANE} as the control plane's, once it is registered",
    ),
    "all Node objects were deleted": (
        lambda w: [w.kube().delete(NODES, name) for name in (PLANE, FIRST, SECOND)],
        f"restart server {FIRST}: it has no Node object, and a kubelet registers only when it starts",
    ),
    "a kubelet has been silent for long": (
        lambda w: w.silence(FIRST, minutes=6),
        f"restart server {FIRST}: its node has not been Ready since",
    ),
    "a machine was shut off": (lambda w: w.power(FIRST, Power.OFF), f"start server {FIRST}"),
    "a machine was paused": (lambda w: w.power(FIRST, Power.SUSPENDED), f"resume server {FIRST}"),
    "the control plane was paused": (lambda w: w.power(PLANE, Power.SUSPENDED), f"resume server {PLANE}"),
    "a machine broke": (lambda w: w.fail(FIRST, "its disk is gone"), f"delete server {FIRST}: its disk is gone"),
    "a machine was deleted": (lambda w: forget_server(w, FIRST), f"create server {FIRST}"),
    "a removal ended half-way": (half_removed, f"uncordon node {SECOND}"),
}
#: What no server or node shows, and `up` mends all the same.
UNSEEN: dict[str, tuple[Harm, str]] = {
    "a rule was removed": (drop_rule, "add 1 rules to security group control-plane"),
    "a route was removed": (drop_route, "add route 10.244.0.0/24 via 10.8.0.10"),
    "the API's address was removed": (drop_address, "create floating ip for the API"),
}


def lines(world: World) -> list[str]:
    return text.lines(world.preview())


def test_a_cluster_that_is_well_has_no_problem_and_no_plan(world: World) -> None:
    assert (seen(world).problems, lines(world)) == ((), ["nothing to do"])


@pytest.mark.parametrize("name", MENDED)
def test_what_status_finds_wrong_is_planned_and_mended(world: World, name: str) -> None:
    harm, said = MENDED[name]
    harm(world)
    assert seen(world).problems
    assert any(said in line for line in lines(world)), lines(world)
    begun = world.clock.monotonic()
    world.up()
    assert world.clock.monotonic() - begun < 60
    assert (seen(world).problems, lines(world)) == ((), ["nothing to do"])
    assert parse_node(world.kube().get(NODES, PLANE)).control_plane


@pytest.mark.parametrize("name", UNSEEN)
def test_what_is_missing_in_the_cloud_is_planned_and_mended(world: World, name: str) -> None:
    harm, said = UNSEEN[name]
    harm(world)
    assert any(said in line for line in lines(world)), lines(world)
    world.up()
    assert lines(world) == ["nothing to do"]


def test_a_control_plane_that_comes_back_keeps_pods_and_load_balancers_off_it(world: World) -> None:
    world.kube().delete(NODES, PLANE)
    world.up()
    node = parse_node(world.kube().get(NODES, PLANE))
    assert EXCLUDE_LABEL in node.labels
    assert [(one.key, one.effect) for one in node.taints] == [("node-role.kubernetes.io/control-plane", "NoSchedule")]


def test_pods_that_a_control_plane_without_labels_refused_are_deleted(world: World) -> None:
    world.kube().delete(NODES, PLANE)
    for name, why in (("refused", "NodeAffinity"), ("evicted", "Evicted")):
        world.kube().pod(name, node=PLANE)
        world.kube().patch(PODS, name, body={"status": {"phase": "Failed", "reason": why}}, namespace="default")
    world.up()
    pods = {pod["metadata"]["name"] for pod in world.kube().list(PODS, fields=f"spec.nodeName={PLANE}")}
    assert "refused" not in pods
    assert "evicted" in pods, "what moyai did not cause is for people to see"


#: What only a person can decide, and the sentence that says so.
SAID: dict[str, tuple[Harm, str]] = {
    "a machine is being rescued": (
        lambda w: w.power(FIRST, Power.HELD),
        f"note: machine {FIRST} is in held, which `up` does not end: end it in the cloud, then run `moyai up` again",
    ),
    "an add-on was deleted": (
        lambda w: w.kube().delete(DEPLOYMENTS, "coredns", namespace="kube-system"),
        "note: coredns of kube-system is gone, and `up` applies add-ons only to a new cluster: restore it from a copy, or "
        "build the cluster again with `moyai down` and `moyai up`",
    ),
    "somebody else's workload lacks pods": (
        lambda w: w.kube().deployment("metrics-server", runs=False),
        "note: metrics-server of kube-system, which is not moyai's, lacks pods: `moyai explain -n kube-system POD` says why",
    ),
    "a node was cordoned by a person": (
        lambda w: w.kube().patch(NODES, FIRST, body={"spec": {"unschedulable": True}}),
        f"note: node {FIRST} is cordoned: `moyai kubectl uncordon {FIRST}` lets pods onto it again",
    ),
}


@pytest.mark.parametrize("name", SAID)
def test_what_up_cannot_mend_is_one_sentence_and_nothing_waits_for_it(world: World, name: str) -> None:
    harm, said = SAID[name]
    harm(world)
    assert said in lines(world)
    begun = world.clock.monotonic()
    world.up()
    assert world.clock.monotonic() - begun < 60
    assert said in lines(world)


def test_a_control_plane_that_is_held_is_refused_before_anything_is_waited_for(world: World) -> None:
    world.power(PLANE, Power.HELD)
    with pytest.raises(Terminal, match=f"the control plane's machine {PLANE} is in held, and its API does not answer"):
        world.up()


def test_a_node_that_is_silent_for_a_moment_is_waited_for(world: World) -> None:
    world.silence(FIRST, minutes=4)
    assert [line for line in lines(world) if "server" in line] == []
    assert any("wait until 3 nodes are Ready" in line for line in lines(world))


def test_a_node_that_a_mended_network_may_bring_back_is_not_restarted_with_it(world: World) -> None:
    world.silence(FIRST, minutes=60)
    drop_rule(world)
    assert not [line for line in lines(world) if "restart" in line]


def test_a_machine_that_starts_is_left_in_peace(world: World) -> None:
    """Nobody can tell a node that was deleted from one that has not registered yet, but by when its machine began."""
    world.kube().delete(NODES, SECOND)
    record(world).await_node(SECOND)
    assert not [line for line in lines(world) if "restart" in line]
    world.clock.sleep(JOIN_TIME.total_seconds())
    assert [line for line in lines(world) if "restart" in line]


def test_a_worker_that_never_joined_gets_its_own_token_again(world: World) -> None:
    """The token in its user data ended before it could join: another one would not help it."""
    kept = "abcdef.0123456789abcdef"
    record(world).keep_token(kept)
    record(world).await_node(SECOND)
    world.kube().delete(NODES, SECOND)
    world.clock.sleep(JOIN_TIME.total_seconds() + 1)
    assert any("renew the bootstrap token" in line for line in lines(world))
    said: list[str] = []
    world.kube().store.on_call = lambda name, _after: said.append(name)
    world.up()
    assert said.count("create secrets") == 2  # asked, and done
    assert record(world).secret("token") == ""
    assert lines(world) == ["nothing to do"]


def test_a_certificate_and_a_credential_that_end_soon_are_in_the_plan(world: World) -> None:
    name, stored = next((name, one) for name, one in world.store.credentials.items() if name.startswith("quickstart-"))
    world.store.credentials[name] = replace(stored, expires=world.clock.now() + timedelta(days=3))
    note = f"note: credential {name} ends on"
    assert any(line.startswith(note) for line in lines(world))
    world.clock.sleep(timedelta(days=9.5 * 365).total_seconds())
    assert any("`moyai certificates rotate-ca` replaces it" in line for line in lines(world))
