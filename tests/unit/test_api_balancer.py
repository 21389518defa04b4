"""A load balancer of the cloud before the API: what is asked of the cloud, whom it sends to, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from moyai.cloud.capabilities import Capability
from moyai.cloud.load_balancers import BalancerState, CheckType, Listener, LoadBalancer, Member, Pool
from moyai.core.errors import Terminal, UsageError
from moyai.lifecycle.plane_status import balancer_problems
from moyai.lifecycle.record import Record
from moyai.lifecycle.ssh import ssh_command
from moyai.plan.cluster import plan_up
from moyai.plan.load_balancer.names import names_service
from moyai.plan.rules import wanted_rules
from moyai.spec.load import parse
from tests.fakes.cloud import named
from tests.unit.lifecycle_world import World
from tests.unit.test_plan_cluster import EMPTY, NEW

ONE = "spec: {controlPlane: {endpoint: load-balancer}, nodePools: [{replicas: 1}]}"
THREE = "spec: {controlPlane: {replicas: 3, endpoint: load-balancer}, nodePools: [{replicas: 1}]}"
CLIENTS = THREE.replace("spec: {", "spec: {access: {apiCIDRs: [192.0.2.0/24]}, ")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def parts(world: World) -> tuple[Listener, Pool]:
    (listener,) = named(world.store.balancers, "quickstart-api").listeners
    assert listener.pool
    return listener, listener.pool


def test_a_listener_for_the_api_with_the_address_of_a_port_of_ours(world: World) -> None:
    uid = world.up(CLIENTS).uid
    made = named(world.store.balancers, "quickstart-api")
    port = named(world.store.ports, "quickstart-api")
    (fip,) = world.store.floating_ips
    listener, pool = parts(world)
    assert (made.vip_port_id, fip.port_id, port.fixed_ips) == (port.id, port.id, ("10.8.0.4",))
    assert made.tags == (f"moyai.cluster={uid}",)
    # the cloud controller manager takes for a Service's what is called like one
    assert not names_service(made.name)
    assert listener.port == 6443
    assert set(listener.allowed_cidrs) >= {"192.0.2.0/24", "10.244.0.0/16"}
    # watches are silent for minutes
    assert (listener.timeout_client_data_ms, listener.timeout_member_data_ms) == (3_600_000, 3_600_000)
    assert pool.monitor
    assert (pool.monitor.type, pool.monitor.url_path) == (CheckType.HTTPS, "/readyz")
    addresses = [named(world.store.ports, f"quickstart-control-plane-{number}").fixed_ips[0] for number in range(3)]
    assert sorted((one.address, one.port) for one in pool.members) == sorted((address, 6443) for address in addresses)
    assert {one.subnet_id for one in pool.members} == {named(world.store.subnets, "quickstart-subnet").id}


def test_everybody_is_let_in_where_the_spec_lets_everybody_in(world: World) -> None:
    world.up(ONE)
    assert parts(world)[0].allowed_cidrs == ()


def test_the_ranges_of_clients_follow_the_spec(world: World) -> None:
    world.up(THREE)
    world.up(CLIENTS)
    assert "192.0.2.0/24" in parts(world)[0].allowed_cidrs
    world.up(THREE)
    assert parts(world)[0].allowed_cidrs == ()


def test_only_the_load_balancer_reaches_the_api_from_outside_the_cluster() -> None:
    rules = [one.rule for one in wanted_rules(parse(CLIENTS).spec) if one.rule.port_min == one.rule.port_max == 6443]
    assert [one.remote_cidr for one in rules] == [str(parse(CLIENTS).spec.network.node_cidr)]


def test_no_port_sends_from_the_address_and_no_machine_takes_it() -> None:
    spec = THREE.replace("spec: {", "spec: {network: {mode: vxlan}, ")
    plan = plan_up(parse(spec), replace(EMPTY, sources_allowed=False), recorded=NEW)
    assert not any(node.in_turns for node in plan.nodes)
    assert {node.virtual for node in plan.nodes if node.role == "control-plane"} == {"10.8.0.4"}


def test_a_cloud_without_load_balancers_has_none_before_the_api() -> None:
    offered = frozenset(Capability) - {Capability.LOAD_BALANCERS}
    message = (
        "spec.controlPlane.endpoint: 'load-balancer', should be 'vrrp', or 'single' with one control plane: cloud moyai has no "
        "load balancers"
    )
    with pytest.raises(UsageError, match=message):
        plan_up(parse(THREE), replace(EMPTY, capabilities=offered), recorded=NEW)


@pytest.mark.parametrize(
    ("before", "after"),
    [("vrrp", "load-balancer"), ("load-balancer", "vrrp"), ("single", "load-balancer"), ("load-balancer", "single")],
)
def test_a_cluster_keeps_the_way_to_its_api(world: World, before: str, after: str) -> None:
    world.up(f"spec: {{controlPlane: {{endpoint: {before}}}}}")
    there = world.all_names()
    with pytest.raises(UsageError, match=rf"controlPlane.endpoint: '{after}', should stay '{before}' while the cluster exists"):
        world.up(f"spec: {{controlPlane: {{endpoint: {after}}}}}")
    assert world.all_names() == there


@pytest.mark.parametrize("replicas", [1, 3])
def test_auto_keeps_the_load_balancer_of_a_cluster_that_has_one(world: World, replicas: int) -> None:
    world.up(ONE)
    world.up(f"spec: {{controlPlane: {{replicas: {replicas}}}, nodePools: [{{replicas: 1}}]}}")
    assert len(world.led()) == replicas
    assert "balancers quickstart-api" in world.names()


def test_a_load_balancer_of_another_cluster_under_the_name_is_left_alone(world: World) -> None:
    network = world.cloud.networks.create_network(name="other", tags=[])
    subnet = world.cloud.networks.create_subnet(
        name="other",
        network_id=network.id,
        cidr="10.9.0.0/24",
        dns=(),
        allocation_pools=[("10.9.0.10", "10.9.0.20")],
        gateway=False,
        tags=[],
    )
    wanted = LoadBalancer("quickstart-api", vip_subnet_id=subnet.id, tags=("moyai.cluster=other",))
    foreign = world.cloud.load_balancers.create(wanted)
    world.store.settle()
    world.up(ONE)
    assert not world.up(ONE).changed
    assert len(world.store.balancers.by("name", "quickstart-api")) == 2
    world.down()
    assert [one.id for one in world.store.balancers] == [foreign.id]


def test_a_load_balancer_that_failed_is_made_again_with_the_same_address(world: World) -> None:
    world.up(THREE)
    found = named(world.store.balancers, "quickstart-api")
    world.store.balancers.put(replace(found, state=BalancerState.FAILED, status="ERROR"))
    assert "delete load balancer api: it is ERROR" in [step.text for step in world.preview(THREE).steps]
    world.up(THREE)
    made = named(world.store.balancers, "quickstart-api")
    assert made.id != found.id
    assert (made.vip_port_id, made.vip_address) == (found.vip_port_id, found.vip_address)
    assert len(world.led()) == 3


def test_one_that_the_cloud_cannot_build_is_said_in_one_line_and_made_by_the_next_up(world: World) -> None:
    world.store.faults.break_next("load_balancers.create", "no host has room")
    with pytest.raises(Terminal, match="load balancer quickstart-api is failed in the cloud"):
        world.up(ONE)
    world.up(ONE)
    assert world.led() == ["10.8.0.10"]


def test_a_member_that_somebody_added_stays_while_others_are_led_in_and_out(world: World) -> None:
    world.up(ONE)
    _, pool = parts(world)
    world.cloud.load_balancers.set_members(pool.id, [*pool.members, Member("10.8.0.200", 6443)])
    world.store.settle()
    world.up(THREE)
    assert "10.8.0.200" in world.led()
    world.up(ONE)
    assert sorted(world.led()) == ["10.8.0.10", "10.8.0.200"]


def test_status_says_what_is_wrong_with_it(world: World) -> None:
    world.up(THREE)
    record = Record.open(world.paths, "quickstart")
    assert record
    planes = [f"quickstart-control-plane-{number}" for number in range(3)]

    def said(*ready: str) -> list[str]:
        return list(balancer_problems(world.cloud, record, ready=ready))

    assert said(*planes) == []
    _, pool = parts(world)
    world.cloud.load_balancers.set_members(pool.id, [one for one in pool.members if one.name != planes[1]])
    world.store.settle()
    assert said(*planes) == [f"load balancer quickstart-api before the API does not send to {planes[1]}: `moyai up` lets it"]
    assert said(planes[0]) == []
    found = named(world.store.balancers, "quickstart-api")
    world.store.balancers.put(replace(found, state=BalancerState.FAILED, status="ERROR"))
    assert said(*planes) == ["load balancer quickstart-api before the API is ERROR: `moyai up` makes it again"]
    world.cloud.load_balancers.delete(found.id)
    world.store.settle()
    assert said(*planes) == ["there is no load balancer before the API: `moyai up` makes it again"]
    world.up(THREE)
    assert said(*planes) == []


def test_ssh_is_refused_in_one_line(world: World) -> None:
    world.up(ONE)
    record = Record.open(world.paths, "quickstart")
    assert record
    with pytest.raises(Terminal, match="there is no way for SSH into cluster quickstart"):
        ssh_command(record, "workers-0")
