"""Nodes, their lifecycle and routes over a cloud in memory."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from moyai.ccm.nodes import desired_addresses, desired_patch, label_value
from moyai.cloud.model import Address, Power, Route, Server
from moyai.core.errors import CredentialsRefused
from moyai.kube.objects import Node, Taint, parse_node
from moyai.kube.resources import EVENTS, NODES, SERVICES
from tests.unit.ccm_world import World, node_object, server, service_object

pytestmark = pytest.mark.virtual_time


def parsed(world: World, name: str) -> Node:
    return parse_node(world.kube.find(NODES, name))


def test_the_address_that_the_kubelet_uses_comes_first() -> None:
    many = replace(
        server(1),
        addresses=(Address("192.0.2.9", "floating", "n"), Address("10.1.0.1", "fixed", "m"), Address("10.0.0.1", "fixed", "n")),
    )
    node = Node("demo-1", "u", annotations={"alpha.kubernetes.io/provided-node-ip": "10.0.0.1"})
    assert desired_addresses(node, many) == [
        ("InternalIP", "10.0.0.1"),
        ("InternalIP", "10.1.0.1"),
        ("ExternalIP", "192.0.2.9"),
        ("Hostname", "demo-1"),
    ]


def test_what_is_as_it_should_be_is_not_patched() -> None:
    node = Node(
        "demo-1",
        "u",
        provider_id="openstack:///x",
        pod_cidrs=("10.244.9.0/24",),
        labels={
            "topology.kubernetes.io/zone": "az1",
            "topology.kubernetes.io/region": "RegionOne",
            "node.kubernetes.io/instance-type": "m1.small",
        },
        taints=(Taint("keep", "NoExecute"),),
    )
    assert desired_patch(node, server(1), region="RegionOne", provider_id="openstack:///y") == {}


def test_a_worker_shows_its_role_unless_somebody_gave_it_one() -> None:
    worker = replace(server(1), metadata={**server(1).metadata, "moyai.role": "worker"})

    def labels(node: Node, of: Server) -> object:
        return desired_patch(node, of, region="r", provider_id="p").get("metadata", {}).get("labels", {})

    assert "'node-role.kubernetes.io/worker': ''" in str(labels(Node("demo-1", "u"), worker))
    own = Node("demo-1", "u", labels={"node-role.kubernetes.io/gpu": ""})
    assert "node-role.kubernetes.io/worker" not in str(labels(own, worker))
    plane = replace(worker, metadata={"moyai.role": "control-plane"})
    assert "node-role" not in str(labels(Node("demo-0", "u"), plane))
    # where servers have no metadata, Nodes say what they are
    bare = replace(server(1), metadata={})
    told = {"moyai.dev/pool": "a", "moyai.dev/pod-cidr": "10.0.1.0_24"}
    assert "'node-role.kubernetes.io/worker': ''" in str(labels(Node("demo-1", "u", labels=told), bare))
    told["moyai.dev/pool"] = "control-plane"
    assert "node-role" not in str(labels(Node("demo-0", "u", labels=told), bare))
    assert "node-role" not in str(labels(Node("demo-2", "u"), bare))


@pytest.mark.parametrize(
    ("text", "value"),
    [("m1.small", "m1.small"), ("1 CPU / 2 GB", "1-CPU---2-GB"), ("(x)", "x"), ("a" * 80, "a" * 63), ("", "")],
)
def test_words_of_a_cloud_become_labels(text: str, value: str) -> None:
    assert label_value(text) == value


async def test_all_new_nodes_cost_one_list_of_servers() -> None:
    world = World(nodes=0)
    for number in range(1, 6):
        world.add_machine(number)
        world.kube.put(NODES, node_object(number, initialised=False))
    async with world.run("node"):
        await world.until(lambda: all(parsed(world, f"demo-{n}").provider_id for n in range(1, 6)))
    assert dict(world.cloud.calls) == {"machines.servers": 1}
    node = parsed(world, "demo-3")
    assert node.pod_cidrs == ("10.244.3.0/24",)
    assert node.internal_ips == ("10.0.0.3",)
    assert [taint.key for taint in node.taints] == ["keep"]


async def test_addresses_that_a_kubelet_writes_over_come_back_at_once() -> None:
    world = World(nodes=0)
    world.add_machine(1)
    world.kube.put(NODES, node_object(1, initialised=False))
    async with world.run("node"):
        await world.until(lambda: parsed(world, "demo-1").internal_ips)
        await world.until(lambda: parsed(world, "demo-1").provider_id)
        await asyncio.sleep(0.05)
        found = world.kube.find(NODES, "demo-1")
        status = {**found["status"], "addresses": [{"type": "Hostname", "address": "demo-1"}]}
        world.kube.put(NODES, {**found, "status": status})
        await world.until(lambda: parsed(world, "demo-1").internal_ips == ("10.0.0.1",))


async def test_a_new_node_is_its_machine_as_it_is_now_not_as_an_earlier_list_had_it() -> None:
    """When its namesake was still there, or when it was being built and had no address yet."""
    world = World(nodes=1)
    machine = server(2)
    earlier = world.store.servers.put(replace(machine, id=server(7).id, addresses=()))
    async with world.run("node"):
        await world.until(lambda: "machines.servers" in world.cloud.calls)
        await asyncio.sleep(0.05)
        world.store.servers.drop(earlier.id)
        world.store.servers.put(machine)
        world.kube.put(NODES, node_object(2, initialised=False))
        await world.until(lambda: parsed(world, "demo-2").provider_id)
    assert parsed(world, "demo-2").provider_id == world.cloud.machines.provider_id(machine.id)
    assert parsed(world, "demo-2").internal_ips == ("10.0.0.2",)


async def test_a_machine_whose_addresses_the_cloud_does_not_know_yet_keeps_those_of_its_kubelet() -> None:
    world = World(nodes=0)
    world.store.servers.put(replace(server(1), addresses=()))
    found = node_object(1, initialised=False)
    own = [{"type": "InternalIP", "address": "10.0.0.1"}, {"type": "Hostname", "address": "demo-1"}]
    world.kube.put(NODES, {**found, "status": {**found["status"], "addresses": own}})
    async with world.run("node"):
        await world.until(lambda: parsed(world, "demo-1").provider_id)
    assert parsed(world, "demo-1").internal_ips == ("10.0.0.1",)


async def test_a_node_of_another_name_is_found_by_one_of_the_addresses_that_its_kubelet_was_given() -> None:
    world = World(nodes=0)
    world.store.servers.put(replace(server(1), name="renamed"))
    found = node_object(1, initialised=False)
    given = {"alpha.kubernetes.io/provided-node-ip": "10.0.0.1,fd00::1"}
    world.kube.put(NODES, {**found, "metadata": {**found["metadata"], "annotations": given}})
    async with world.run("node"):
        await world.until(lambda: parsed(world, "demo-1").provider_id)


async def test_a_node_without_server_keeps_its_taint_and_is_initialised_when_the_server_shows() -> None:
    world = World(nodes=0)
    world.kube.put(NODES, node_object(1, initialised=False))
    async with world.run("node"):
        await asyncio.sleep(0.1)
        assert not parsed(world, "demo-1").provider_id
        world.add_machine(1)
        await world.until(lambda: parsed(world, "demo-1").provider_id)


async def test_a_node_of_another_cloud_is_left_alone() -> None:
    world = World(nodes=0)
    body = node_object(1, ready=False)
    body["spec"]["providerID"] = "aws:///eu/i-1"
    world.kube.put(NODES, body)
    async with world.run("node", "node-lifecycle"):
        await asyncio.sleep(0.1)
    assert parsed(world, "demo-1").provider_id == "aws:///eu/i-1"


async def test_a_ready_node_costs_no_call_and_one_that_is_not_follows_its_machine() -> None:
    world = World(nodes=2)
    async with world.run("node-lifecycle"):
        await asyncio.sleep(0.1)
        assert not world.cloud.calls
        world.machine(1, status="SHUTOFF", power=Power.OFF)
        world.store.servers.drop(server(2).id)
        for number in (1, 2):
            body = world.kube.find(NODES, f"demo-{number}")
            body = {**body, "metadata": dict(body["metadata"]), "status": node_object(number, ready=False)["status"]}
            world.kube.put(NODES, body)
        await world.until(lambda: ("nodes", "", "demo-2") not in world.kube.objects)
        await world.until(lambda: any("shutdown" in taint.key for taint in parsed(world, "demo-1").taints))


async def test_a_server_that_lost_its_tag_does_not_cost_its_node() -> None:
    world = World(nodes=1)
    world.machine(1, tags=())
    body = world.kube.find(NODES, "demo-1")
    world.kube.put(NODES, {**body, "metadata": dict(body["metadata"]), "status": node_object(1, ready=False)["status"]})
    async with world.run("node-lifecycle"):
        await world.until(lambda: "machines.server" in world.cloud.calls)
        await asyncio.sleep(0.05)
    assert ("nodes", "", "demo-1") in world.kube.objects


async def test_routes_are_added_in_one_call_pairs_and_conditions_follow_foreign_ones_stay() -> None:
    world = World(nodes=3)
    foreign = Route("192.168.0.0/24", "10.0.0.99")
    world.store.routers.put(replace(world.store.routers["router-1"], routes=(foreign,)))
    async with world.run("route"):
        await world.until(lambda: len(world.store.routers["router-1"].routes) == 4)
        await world.until(lambda: all(world.store.ports[f"p{number}"].send_from for number in (1, 2, 3)))
        await world.until(lambda: parsed(world, "demo-3").network_unavailable is False)
    assert foreign in world.store.routers["router-1"].routes
    assert world.cloud.calls["pod_routing.add_routes"] == 1
    assert world.cloud.calls["pod_routing.remove_routes"] == 0


async def test_a_node_without_a_server_is_told_so() -> None:
    world = World(nodes=0)
    world.kube.put(NODES, node_object(7, initialised=False))
    async with world.run("node"):
        await world.until(lambda: any("the cloud has no server for node demo-7" in one for one in world.events()))
        (event,) = [one for one in world.kube.all(EVENTS) if one["reason"] == "SyncNodeFailed"]
        assert (event["type"], event["involvedObject"]["kind"], event["involvedObject"]["name"]) == (
            "Warning",
            "Node",
            "demo-7",
        )
        assert "its name must be the server's name" in event["message"]
        world.add_machine(7)
        await world.until(lambda: parsed(world, "demo-7").provider_id)


async def test_credentials_that_are_refused_are_told_counted_and_tried_again_soon() -> None:
    world = World(nodes=1)
    world.pause = 0.1
    refused = CredentialsRefused("Keystone: the request you have made requires authentication")
    for call in ("machines.servers", "load_balancers.load_balancers"):
        world.cloud.faults.fail_next(call, refused, times=1000)
    world.kube.put(NODES, node_object(2, initialised=False))
    world.add_machine(2)
    world.kube.put(SERVICES, service_object())
    async with world.run("node", "service") as manager:
        await asyncio.sleep(60)
        assert manager.metrics.value("moyai_cloud_credentials_refused_total") > 5
        for kind in ("SyncNodeFailed", "SyncLoadBalancerFailed"):
            assert any(one.startswith(kind) and "requires authentication" in one for one in world.events()), kind
        world.cloud.faults.clear()
        began = asyncio.get_running_loop().time()
        await world.until(lambda: parsed(world, "demo-2").provider_id and world.address(), 60)
        assert asyncio.get_running_loop().time() - began < 20
