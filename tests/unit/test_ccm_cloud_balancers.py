"""Services of type LoadBalancer on NIFCLOUD, from the Service to the wire: the whole manager over a small account."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from moyai.ccm.cloud_balancers import service_to_serve
from moyai.ccm.service import FINALIZER
from moyai.cloud.nifcloud.marks import Mark
from moyai.cloud.nifcloud.nifcloud_service_balancers import NifcloudServiceBalancers
from moyai.cloud.nifcloud.service_orders import PREFIX, balancer_name
from moyai.cloud.service_balancers import BackendNode, HasServiceBalancers
from moyai.kube.objects import parse_service
from moyai.kube.resources import NODES, SERVICES
from tests.fakes.nifcloud_calls import Call
from tests.fakes.nifcloud_wire import NifcloudWire
from tests.unit.ccm_world import UID, World, service_object

pytestmark = pytest.mark.virtual_time


class NifcloudWorld(World):
    """Nodes ``demo-1`` and ``demo-2`` are servers ``server1`` and ``server2`` of the cluster; ``foreign`` is none."""

    def __init__(self) -> None:
        super().__init__(nodes=0)
        self.wire = NifcloudWire()
        self.wire.account.server("foreign")
        self.inside = self.wire.cloud()
        for number in (1, 2):
            self.join(number)

    def join(self, number: int) -> None:
        made = self.wire.account.server(f"server{number}", description=Mark(UID, f"demo-{number}").text)
        body: dict[str, Any] = {
            "metadata": {"name": f"demo-{number}", "labels": {}},
            "spec": {"providerID": f"nifcloud:///east-11/{made['InstanceUniqueId']}", "taints": []},
            "status": {
                "conditions": [{"type": "Ready", "status": "True"}],
                "addresses": [{"type": "InternalIP", "address": f"10.0.0.{number}"}],
            },
        }
        self.kube.put(NODES, body)

    def balancer(self, name: str = "web") -> str:
        return balancer_name(parse_service(self.service(name)).uid)

    def members(self) -> set[str]:
        pairs = self.wire.account.balancers.get(self.balancer(), [])
        return {one["InstanceId"] for pair in pairs for one in pair["Instances"]}

    def annotate(self, **annotations: str) -> None:
        self.edit(annotations={f"{PREFIX}{key.replace('_', '-')}": value for key, value in annotations.items()})


async def served(world: NifcloudWorld, address: str = "198.51.100.7") -> None:
    await world.until(lambda: world.address() == address, 1200)


async def said(world: NifcloudWorld, words: str) -> None:
    """In an event, in time."""
    await world.until(lambda: any(words in one for one in world.events()), 60)


def test_a_cloud_with_trees_has_no_load_balancers_of_its_own_for_services() -> None:
    assert not isinstance(World().inside, HasServiceBalancers)
    assert isinstance(NifcloudWorld().inside, HasServiceBalancers)


async def test_a_service_gets_a_load_balancer_and_its_nodes_follow() -> None:
    world = NifcloudWorld()
    world.kube.put(SERVICES, service_object(annotations={f"{PREFIX}accounting-type": "2"}))
    async with world.run():
        await served(world)
        assert world.members() == {"server1", "server2"}
        assert FINALIZER in world.service()["metadata"]["finalizers"]
        await said(world, "EnsuredLoadBalancer: Load balancer at 198.51.100.7: created with 1 ports and 2 nodes")
        world.join(3)
        await world.until(lambda: world.members() == {"server1", "server2", "server3"}, 30)
        for number in (1, 2, 3):
            await world.kube.delete(NODES, f"demo-{number}")
        await world.until(lambda: world.members() == set(), 30)
        assert "foreign" not in str(world.wire.sent("RegisterInstancesWithLoadBalancer"))


async def test_a_service_that_goes_takes_its_load_balancer_along() -> None:
    world = NifcloudWorld()
    world.kube.put(SERVICES, service_object())
    async with world.run():
        await served(world)
        await world.kube.delete(SERVICES, "web", namespace="default")
        await world.until(lambda: not world.exists(), 30)
    assert world.wire.account.balancers == {}


async def test_a_service_that_ceases_to_be_balanced_keeps_nothing() -> None:
    world = NifcloudWorld()
    world.kube.put(SERVICES, service_object())
    async with world.run():
        await served(world)
        world.edit(type="ClusterIP")
        await world.until(lambda: not world.wire.account.balancers and not world.address(), 30)
        await world.until(lambda: not world.service()["metadata"]["finalizers"], 30)


async def test_what_is_not_allowed_is_said_in_an_event_and_nothing_is_made() -> None:
    world = NifcloudWorld()
    world.kube.put(SERVICES, service_object(annotations={f"{PREFIX}network-volume": "50", f"{PREFIX}colour": "red"}))
    async with world.run():
        await said(world, "SyncLoadBalancerFailed")
        await said(world, f"annotation {PREFIX}network-volume is '50', and must be one of 10, 20")
        await said(world, f"UnknownAnnotation: Without effect here: {PREFIX}colour")
        assert not world.service()["metadata"]["finalizers"]
        assert not world.wire.account.balancers
        world.annotate(network_volume="100")
        await served(world)


async def test_a_slow_elastic_load_balancer_is_waited_for_by_coming_again() -> None:
    world = NifcloudWorld()
    world.wire.account.seconds = 50
    world.kube.put(SERVICES, service_object(annotations={f"{PREFIX}type": "elb"}))
    async with world.run():
        await served(world, "198.51.100.8")
        await said(world, "EnsuringLoadBalancer: The cloud makes or changes the load balancer")
        await said(world, "EnsuredLoadBalancer: Load balancer at 198.51.100.8")
        world.annotate(type="lb")
        await served(world)
        await world.until(lambda: world.wire.account.elbs == {}, 1200)


async def test_a_service_of_the_clouds_own_manager_is_taken_over() -> None:
    """It has the same finalizer, the same name in the cloud, and nothing else that says who made it."""
    world = NifcloudWorld()
    world.kube.put(SERVICES, service_object())
    balancers = world.wire.cloud().service_balancers
    ensure_as_before(world, balancers)
    old = world.service()
    old["metadata"]["finalizers"] = [FINALIZER]
    world.kube.put(SERVICES, old)
    pair = world.wire.account.balancers[world.balancer()][0]
    pair["Instances"] = [{"InstanceId": "foreign"}]
    created = world.wire.count["CreateLoadBalancer"]
    async with world.run():
        await world.until(lambda: world.members() == {"server1", "server2"}, 30)
        await served(world)
        assert world.wire.count["CreateLoadBalancer"] == created
        await world.kube.delete(SERVICES, "web", namespace="default")
        await world.until(lambda: not world.exists() and not world.wire.account.balancers, 30)


def ensure_as_before(world: NifcloudWorld, balancers: NifcloudServiceBalancers) -> None:
    servers = world.wire.account.instances
    nodes = [BackendNode(name, f"nifcloud:////{servers[name]['InstanceUniqueId']}") for name in ("server1", "server2")]
    balancers.ensure_balancer(service_to_serve(parse_service(world.service())), nodes)


# ---- orphans


async def test_a_load_balancer_whose_service_is_gone_goes_and_foreign_ones_stay() -> None:
    world = NifcloudWorld()
    balancers = world.wire.cloud().service_balancers
    world.kube.put(SERVICES, service_object())
    ensure_as_before(world, balancers)
    orphan, kept = nobodys(world, balancers, digit="b"), nobodys(world, balancers, digit="c", server="foreign")
    world.pause = 1.0
    async with world.run():
        await world.until(lambda: orphan not in world.wire.account.balancers, 4000)
        assert set(world.wire.account.balancers) == {world.balancer(), kept}


def nobodys(world: NifcloudWorld, balancers: NifcloudServiceBalancers, *, digit: str, server: str = "server1") -> str:
    """A load balancer that no Service of this cluster has."""
    found = service_to_serve(parse_service(world.service()))
    node = BackendNode(server, f"nifcloud:////{world.wire.account.instances[server]['InstanceUniqueId']}")
    balancers.ensure_balancer(replace(found, uid=digit * 32), [node])
    return digit * 15


async def life(at: int) -> bool:
    """A Service comes, changes its type and goes. The n-th change is refused. False: there are fewer."""
    world, refused = NifcloudWorld(), list[str]()
    seen = itertools.count(1)

    def trouble(call: Call) -> str:
        if "Describe" in call.operation or next(seen) != at:
            return ""
        refused.append(call.operation)
        return "died"

    world.wire.trouble = trouble
    world.pause = 0.5
    world.kube.put(SERVICES, service_object(annotations={f"{PREFIX}type": "elb"}))
    async with world.run():
        await world.until(lambda: world.address() or refused, 1200)
    world.annotate(type="lb")
    async with world.run():
        await served(world)
        await world.until(lambda: world.members() == {"server1", "server2"} and not world.wire.account.elbs, 1200)
        await world.kube.delete(SERVICES, "web", namespace="default")
        await world.until(lambda: not world.exists() and not world.wire.account.balancers, 1200)
    assert not world.wire.account.elbs
    return bool(refused)


@pytest.mark.exhaustive
async def test_a_refused_change_at_any_place_leaves_nothing_behind() -> None:
    at = 1
    while await life(at):
        at += 1
    assert at > 6
