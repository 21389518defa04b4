"""A machine that `up` removes or replaces: no load balancer sends to it any more when it goes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moyai.cloud.capabilities import Capability
from moyai.cloud.load_balancers import BalancerState, BalancingAlgorithm, Listener, LoadBalancer, Member, Pool, TrafficProtocol
from moyai.cloud.model import Power
from moyai.core.ids import cluster_tag
from moyai.kube.objects import parse_node
from moyai.kube.objects.node import EXCLUDE_LABEL
from moyai.kube.resources import NODES, SERVICES
from moyai.lifecycle import drain
from moyai.lifecycle import up as building
from moyai.lifecycle.record import Record
from moyai.lifecycle.services import CONNECTIONS_TIME
from tests.unit.lifecycle_world import World

PLANE, FIRST, SECOND = "quickstart-control-plane-0", "quickstart-workers-0", "quickstart-workers-1"
SMALL = "spec: {nodePools: [{replicas: 1}]}"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path, monkeypatch)
    made.up()
    return made


class Balanced:
    """A Service's load balancer that sends to all workers, kept by a cloud controller manager that follows the label."""

    def __init__(self, world: World, *, follows: bool = True) -> None:
        self.world, self.follows = world, follows
        record = Record.open(world.paths, "quickstart", clock=world.clock)
        assert record is not None
        pool = Pool("p", TrafficProtocol.TCP, BalancingAlgorithm.ROUND_ROBIN, tuple(self._members()))
        tree = LoadBalancer(
            "web",
            vip_subnet_id=next(one.id for one in world.store.subnets if one.name == "quickstart-subnet"),
            listeners=(Listener("l", TrafficProtocol.TCP, 80, pool),),
            tags=(cluster_tag(record.uid),),
        )
        self.id = world.cloud.load_balancers.create(tree).id
        self.settle()
        world.kube().store.on_call = self._called
        self.gone_while_member: list[str] = []
        world.store.servers.watch(self._server)

    def _members(self) -> list[Member]:
        servers = [one for one in self.world.store.servers if "workers" in one.name]
        return [Member(one.addresses[0].address, 30080, name=one.name) for one in servers]

    def settle(self) -> None:
        calls = self.world.cloud.load_balancers
        for _ in range(20):
            if calls.head(self.id).state is BalancerState.ACTIVE:
                return

    def members(self) -> list[str]:
        (listener,) = self.world.cloud.load_balancers.get(self.id).listeners
        assert listener.pool
        return sorted(one.name for one in listener.pool.members)

    def _called(self, name: str, after: bool) -> None:
        if not (self.follows and after and name == "patch nodes"):
            return
        labels = {one["metadata"]["name"]: one["metadata"].get("labels", {}) for one in self.world.kube().store.all(NODES)}
        excluded = {name for name, has in labels.items() if has.get(EXCLUDE_LABEL) == ""}
        (listener,) = self.world.cloud.load_balancers.get(self.id).listeners
        assert listener.pool
        kept = [one for one in listener.pool.members if one.name not in excluded]
        self.world.cloud.load_balancers.set_members(listener.pool.id, kept)

    def _server(self, before: Any, after: Any) -> None:
        if after is None and before is not None and before.name in self.members():
            self.gone_while_member.append(before.name)


def shrink(world: World) -> building.UpResult:
    return world.up(SMALL)


def test_a_machine_goes_once_no_load_balancer_sends_to_it(world: World) -> None:
    balanced = Balanced(world)
    assert balanced.members() == [FIRST, SECOND]
    result = shrink(world)
    assert (balanced.members(), balanced.gone_while_member) == ([FIRST], [])
    assert not result.notes


def test_pods_leave_a_node_after_the_load_balancers_and_after_kept_connections(world: World) -> None:
    balanced, kube = Balanced(world), world.kube()
    kube.pod("web", node=SECOND)
    seen: list[tuple[list[str], float]] = []
    begun, followed = world.clock.monotonic(), kube.store.on_call

    def called(name: str, after: bool) -> None:
        followed(name, after)
        if name == "evict pods" and not after:
            seen.append((balanced.members(), world.clock.monotonic() - begun))

    kube.store.on_call = called
    shrink(world)
    ((members, seconds),) = seen
    assert members == [FIRST]
    assert seconds >= CONNECTIONS_TIME


def test_a_control_plane_that_no_load_balancer_has_ever_had_waits_for_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    three = "spec: {controlPlane: {replicas: 3, endpoint: vrrp}}"
    other = World(tmp_path, monkeypatch)
    other.up(three)
    for name in other.kube().names(NODES):
        if "control-plane" in name:
            other.kube().patch(NODES, name, body={"metadata": {"labels": {EXCLUDE_LABEL: ""}}})
    steps = other.preview(three.replace("3", "1")).steps
    assert not [step for step in steps if "balancer" in step.text]


def test_a_machine_that_is_replaced_leaves_the_load_balancers_first(world: World) -> None:
    balanced = Balanced(world)
    world.fail(SECOND, "its host is gone")
    world.up()
    assert balanced.gone_while_member == []


def test_nodes_that_leave_together_read_a_load_balancer_together(world: World) -> None:
    world.up("spec: {nodePools: [{replicas: 5}]}")
    balanced, calls = Balanced(world), world.cloud.load_balancers
    others = 20
    for number in range(others):
        calls.create(
            replace(
                world.store.balancers[balanced.id], id="", name=f"other-{number}", listeners=(), vip_port_id="", vip_address=""
            )
        )
    world.clock.sleep(60)
    before = world.cloud.calls["load_balancers.get"]
    shrink(world)
    assert balanced.gone_while_member == []
    # a node alone reads each once; what is read again is what still sends
    assert world.cloud.calls["load_balancers.get"] - before < 2 * others


def test_a_load_balancer_of_somebody_else_that_a_service_names_is_waited_for(world: World) -> None:
    balanced = Balanced(world, follows=False)
    shown = world.store.balancers[balanced.id]
    world.store.balancers.put(replace(shown, tags=()))
    notes = {"loadbalancer.openstack.org/load-balancer-id": balanced.id}
    meta = {"name": "web", "namespace": "default", "annotations": notes}
    world.kube().store.put(SERVICES, {"metadata": meta, "spec": {"type": "LoadBalancer"}})
    assert any("web still sent to node" in note for note in shrink(world).notes)


def test_a_load_balancer_that_does_not_let_go_is_reported_and_ends_no_removal(world: World) -> None:
    balanced = Balanced(world, follows=False)
    begun = world.clock.monotonic()
    (note,) = shrink(world).notes
    assert note == (
        f"load balancers web still sent to node {SECOND} after 120 s: its machine was removed all the same, and requests may "
        "have been lost"
    )
    assert world.clock.monotonic() - begun < 200
    assert balanced.gone_while_member == [SECOND]


def test_what_somebody_else_did_to_a_node_is_not_undone(world: World) -> None:
    world.kube().patch(NODES, SECOND, body={"spec": {"unschedulable": True}, "metadata": {"labels": {EXCLUDE_LABEL: ""}}})
    drain.cordon(world.api(), SECOND)
    drain.exclude(world.api(), SECOND)
    drain.return_to_service(world.api(), SECOND)
    node = parse_node(world.kube().get(NODES, SECOND))
    assert (node.cordoned, EXCLUDE_LABEL in node.labels) == (True, True)


def test_an_api_that_does_not_answer_is_waited_for_before_a_machine_is_removed(world: World) -> None:
    """A machine that is deleted undrained takes with it what it was doing."""
    world.power(PLANE, Power.OFF)
    steps = world.preview(SMALL).steps
    deleted = next(step for step in steps if str(step.id) == f"delete server {SECOND}")
    before = {str(one) for one in deleted.after}
    assert before == {f"drain node {SECOND}", f"exclude node {SECOND}", f"load balancers without {SECOND}"}


def test_pods_of_a_machine_that_is_held_still_are_not_waited_for(world: World) -> None:
    world.power(SECOND, Power.SUSPENDED)
    node = world.kube().store.find(NODES, SECOND)
    status = {"conditions": [{"type": "Ready", "status": "Unknown"}]}
    world.kube().store.put(NODES, {**node, "status": status})
    world.kube().pod("web", node=SECOND)
    world.kube().protected.add("web")
    shrink(world)
    assert [one.name for one in world.store.servers] == [PLANE, FIRST]


def test_a_load_balancer_is_not_waited_for_where_the_cloud_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, monkeypatch, capabilities=frozenset(Capability) - {Capability.LOAD_BALANCERS})
    world.up()
    steps = world.preview(SMALL).steps
    assert not [step for step in steps if "balancer" in step.text]
