"""Nodes on NIFCLOUD: what a Node says of its server, as the cloud's own controller manager writes it, and when it goes."""

from __future__ import annotations

from typing import Any

import pytest

from moyai.cloud.nifcloud.marks import Mark
from moyai.kube.objects import Node, parse_node
from moyai.kube.resources import NODES
from tests.fakes.nifcloud_wire import NifcloudWire
from tests.unit.ccm_world import UID, World

pytestmark = pytest.mark.virtual_time

SHUTDOWN = "node.cloudprovider.kubernetes.io/shutdown"
UNINITIALIZED = {"key": "node.cloudprovider.kubernetes.io/uninitialized", "value": "true", "effect": "NoSchedule"}


class NodeWorld(World):
    def __init__(self) -> None:
        super().__init__(nodes=0)
        self.wire = NifcloudWire()
        self.inside = self.wire.cloud()

    def server(self, name: str, *, node: str = "", uid: str = UID, zone: str = "east-12") -> dict[str, Any]:
        """``node``: moyai's name of it; a server of a cluster that somebody else made has none."""
        description = Mark(uid, node).text if node else "made by hand"
        return self.wire.account.server(name, description=description, zone=zone)

    def join(self, name: str, *, provider_id: str = "", ready: bool = True) -> None:
        spec: dict[str, Any] = {"providerID": provider_id} if provider_id else {"taints": [UNINITIALIZED]}
        status = {"conditions": [{"type": "Ready", "status": str(ready)}]}
        self.kube.put(NODES, {"metadata": {"name": name, "labels": {}}, "spec": spec, "status": status})

    def node(self, name: str) -> Node:
        return parse_node(self.kube.find(NODES, name))

    def has(self, name: str) -> bool:
        return any(one["metadata"]["name"] == name for one in self.kube.all(NODES))


async def test_a_node_says_what_its_server_is() -> None:
    world = NodeWorld()
    made = world.server("o8x2mwor0q7c1f9", node="quick-workers-0")
    world.join("quick-workers-0")
    async with world.run("node"):
        await world.until(lambda: world.node("quick-workers-0").provider_id, 30)
        node = world.node("quick-workers-0")
    assert node.provider_id == f"nifcloud:///east-12/{made['InstanceUniqueId']}"
    assert (node.labels["topology.kubernetes.io/zone"], node.labels["topology.kubernetes.io/region"]) == (
        "east-12",
        "RegionOne",
    )
    assert node.labels["node.kubernetes.io/instance-type"] == "e-medium4"
    assert {(one.type, one.address) for one in node.addresses} == {
        ("InternalIP", "10.0.0.5"),
        ("ExternalIP", "203.0.113.5"),
        ("Hostname", "quick-workers-0"),
    }
    assert not node.uninitialized


async def test_a_node_of_a_cluster_that_somebody_else_made_is_called_as_its_server() -> None:
    world = NodeWorld()
    made = world.server("worker1")
    world.server("worker2", node="worker1", uid="9876543210")
    world.join("worker1")
    async with world.run("node"):
        await world.until(lambda: world.node("worker1").provider_id, 30)
    assert world.node("worker1").provider_id == f"nifcloud:///east-12/{made['InstanceUniqueId']}"


async def test_a_server_of_another_cluster_is_nobodys_here() -> None:
    world = NodeWorld()
    world.server("worker2", node="worker1", uid="9876543210")
    world.join("worker1")
    async with world.run("node"):
        await world.until(lambda: any("SyncNodeFailed" in one for one in world.events()), 60)
    assert not world.node("worker1").provider_id


async def test_the_clouds_own_forms_of_provider_ids_are_read() -> None:
    world = NodeWorld()
    ids = [world.server(f"worker{number}")["InstanceUniqueId"] for number in range(3)]
    forms = (f"nifcloud:///east-12/{ids[0]}", f"nifcloud:////{ids[1]}", ids[2])
    for number, form in enumerate(forms):
        world.join(f"worker{number}", provider_id=form)
    async with world.run("node"):
        await world.until(lambda: all(world.node(f"worker{number}").addresses for number in range(3)), 60)
    assert [world.node(f"worker{number}").provider_id for number in range(3)] == list(forms)


async def test_a_stopped_server_taints_its_node_and_a_server_that_is_gone_takes_it_along() -> None:
    world = NodeWorld()
    made = world.server("worker1", node="worker-1")
    world.join("worker-1", provider_id=f"nifcloud:///east-12/{made['InstanceUniqueId']}", ready=False)
    async with world.run("node-lifecycle"):
        made["InstanceState"] = {"Name": "pending"}
        await world.clock.asleep(30)
        assert not world.node("worker-1").taints
        made["InstanceState"] = {"Name": "stopped"}
        await world.until(lambda: SHUTDOWN in [one.key for one in world.node("worker-1").taints], 60)
        # a server that got another name is there
        world.wire.account.instances["renamed"] = world.wire.account.instances.pop("worker1")
        made["InstanceId"] = "renamed"
        await world.clock.asleep(30)
        assert world.has("worker-1")
        del world.wire.account.instances["renamed"]
        await world.until(lambda: not world.has("worker-1"), 60)
