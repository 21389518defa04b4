"""What the controller deletes in the cloud because no Service has it: only what certainly nobody has."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from moyai.cloud.load_balancers import BalancerState, LoadBalancer
from moyai.cloud.model import FloatingIP
from moyai.core.ids import RESTORED, cluster_tag
from moyai.core.keys import Kind
from moyai.kube.objects import parse_service
from moyai.kube.resources import CONFIG_MAPS, EVENTS, SERVICES
from tests.unit.ccm_world import UID, World, external, service_object

pytestmark = pytest.mark.virtual_time


def names(count: int) -> list[str]:
    return [f"s{number}" for number in range(count)]


async def serve(world: World, count: int) -> None:
    """So many Services, each with its load balancer."""
    for number, name in enumerate(names(count)):
        ports = [{"name": "http", "protocol": "TCP", "port": 80, "nodePort": 30000 + number}]
        world.kube.put(SERVICES, service_object(name, ports=ports))
    await world.until(lambda: all(map(world.address, names(count))), 60)
    # what follows takes hours
    world.pause = 1.0


def state(world: World) -> tuple[object, ...]:
    """What the cloud has of Services."""
    return (
        sorted((one.id, one.tags, len(one.listeners)) for one in world.store.balancers),
        sorted((one.id, one.port_id) for one in world.floating()),
        sorted(one.id for one in world.store.rules),
    )


async def test_a_service_that_is_created_while_the_cloud_is_listed_loses_nothing() -> None:
    """It is not in the list, or it is and Kubernetes' list is older: neither makes its load balancer an orphan."""
    world = World()
    listed = world.cloud.load_balancers.load_balancers
    name = "kube_service_demo_default_s0"
    made = LoadBalancer(name, id="made", vip_port_id="p1", vip_address="10.0.0.1", state=BalancerState.ACTIVE)

    def slow(**query: Any) -> list[LoadBalancer]:
        if query.get("tag") == cluster_tag(UID) and not world.exists("s0"):
            # as by a creation that began before and ends now
            world.store.balancers.put(replace(made, tags=(cluster_tag(UID), name)))
            found = listed(**query)
            world.kube.put(SERVICES, service_object("s0"))
            return found
        return listed(**query)

    world.inside.load_balancers.load_balancers = slow  # pyright: ignore[reportAttributeAccessIssue]
    async with world.run():
        await world.until(lambda: world.exists("s0") and world.address("s0"))
        before = state(world)
        world.pause = 1.0
        await asyncio.sleep(8000)
        assert state(world) == before
        assert [one.id for one in world.store.balancers] == ["made"]


async def test_only_what_is_an_orphan_in_two_looks_goes() -> None:
    world = World()
    async with world.run() as manager:
        await serve(world, 2)
        gone = world.service("s0")
        before = state(world)
        world.kube.vanish(SERVICES, "s0", namespace="default")
        await asyncio.sleep(3700)
        # the round has begun, and it is not known for long enough: the Service comes back, as from a cache that was behind
        await world.until(lambda: "moyai_orphans{" in manager.metrics.text(), 3700)
        world.kube.put(SERVICES, gone)
        await asyncio.sleep(8000)
        assert state(world) == before
        world.kube.vanish(SERVICES, "s0", namespace="default")
        await world.until(lambda: len(world.store.balancers) == 1 and len(world.store.rules) == 1, 8000)
        assert [one.address for one in world.floating()] == [world.address("s1")]


@pytest.mark.parametrize("finalizer", [True, False])
async def test_an_etcd_that_was_lost_or_restored_from_an_older_copy_costs_nothing(finalizer: bool) -> None:
    """Of eight Services the older copy has three."""
    world = World()
    async with world.run():
        await serve(world, 8)
        before = state(world)
    for name in names(8)[3:]:
        world.kube.vanish(SERVICES, name, namespace="default")
    if not finalizer:
        for name in names(3):
            old = service_object(name)
            old["spec"]["ports"] = world.service(name)["spec"]["ports"]
            world.kube.vanish(SERVICES, name, namespace="default")
            world.kube.put(SERVICES, old)
    async with world.run() as manager:
        await asyncio.sleep(8000)
        assert state(world) == before
        assert all(world.address(name) for name in names(3))
        (event,) = [one for one in world.kube.all(EVENTS) if one["reason"] == "OrphansNotRemoved"]
        assert event["involvedObject"]["name"] == "moyai-cloud-controller-manager"
        for part in ("5 of the 8 Services", "default/s3, default/s4", "delete in the cloud: floating ip "):
            assert part in event["message"]
        assert "moyai_orphans_held 1.0" in manager.metrics.text()
        counted = {line for line in manager.metrics.text().splitlines() if line.startswith("moyai_orphans{")}
        assert counted == {f'moyai_orphans{{kind="{kind}"}} 5.0' for kind in (Kind.LOAD_BALANCER, Kind.FLOATING_IP, Kind.RULES)}
        # what the user decides is done: three of eight are few enough
        for name in names(5)[3:]:
            world.kube.put(
                SERVICES, service_object(name, ports=[{"protocol": "TCP", "port": 80, "nodePort": 30900 + ord(name[1])}])
            )
        await world.until(lambda: len(world.store.balancers) == 5, 9000)
        assert "moyai_orphans_held 0.0" in manager.metrics.text()


async def test_a_cluster_that_was_restored_keeps_what_its_backup_did_not_know_until_somebody_says_so() -> None:
    """One Service of four is younger than the backup: few enough to be taken for gone."""
    world = World()
    async with world.run():
        await serve(world, 4)
        before = state(world)
    world.kube.vanish(SERVICES, "s3", namespace="default")
    restored = {"metadata": {"name": RESTORED, "namespace": "kube-system"}, "data": {"made": "2026-11-29T12:00:00+00:00"}}
    world.kube.put(CONFIG_MAPS, restored)
    async with world.run() as manager:
        await asyncio.sleep(8000)
        assert state(world) == before
        (event,) = [one for one in world.kube.all(EVENTS) if one["reason"] == "OrphansNotRemoved"]
        for part in (
            "restored from a backup of 2026-11-29T12:00:00+00:00",
            "load balancer ",
            "then the ConfigMap moyai-restored",
        ):
            assert part in event["message"]
        assert "moyai_orphans_held 1.0" in manager.metrics.text()
        world.kube.vanish(CONFIG_MAPS, RESTORED, namespace="kube-system")
        await world.until(lambda: len(world.store.balancers) == 3, 9000)
        assert "moyai_orphans_held 0.0" in manager.metrics.text()


async def test_another_name_of_the_cluster_costs_nothing() -> None:
    """Each Service keeps its load balancer, its address and its rules, which carry the cluster's unique tag."""
    world = World()
    async with world.run():
        await serve(world, 5)
        before = {one.id: one.address for one in world.floating()}
        balancers = {one.id for one in world.store.balancers}
        listeners = {one.id for balancer in world.store.balancers for one in balancer.listeners}
    world.name = "renamed"
    async with world.run():
        await asyncio.sleep(8000)
        assert {one.id for one in world.store.balancers} == balancers
        assert {one.id for balancer in world.store.balancers for one in balancer.listeners} == listeners
        assert {one.id: one.address for one in world.floating()} == before
        assert len(world.store.rules) == 5
        assert not [one for one in world.events() if "Failed" in one]
        world.edit("s0", sessionAffinity="ClientIP")
        await world.until(lambda: [one for one in world.store.balancers if one.listeners[0].pool.persistence])  # pyright: ignore[reportOptionalMemberAccess]
        for name in names(5):
            await world.kube.delete(SERVICES, name, namespace="default")
        await world.until(lambda: not any(map(world.exists, names(5))), 60)
    assert state(world) == ([], [], [])


async def test_what_is_another_clusters_is_never_an_orphan() -> None:
    world = World()
    theirs = LoadBalancer("kube_service_demo_default_theirs", id="theirs", state=BalancerState.ACTIVE)
    world.store.balancers.put(replace(theirs, tags=("moyai.cluster=other00000", theirs.name)))
    words = "moyai.cluster=other00000 floating IP of service default/theirs of cluster demo"
    address = FloatingIP("theirs", "203.0.113.90", "DOWN", network_id=external(world.cloud).id, description=words)
    world.store.floating_ips.put(address)
    before = state(world)
    async with world.run():
        await asyncio.sleep(8000)
    assert state(world) == before


async def test_a_service_that_cannot_be_read_keeps_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()

    def parse(found: Any) -> Any:
        if found["spec"].get("odd"):
            raise ValueError("no such port")
        return parse_service(found)

    async with world.run():
        await serve(world, 2)
        before = state(world)
    world.edit("s0", odd=True)
    monkeypatch.setattr("moyai.ccm.app.parse_service", parse)
    async with world.run() as manager:
        await asyncio.sleep(8000)
        assert state(world) == before
        assert manager.metrics.value("moyai_unreadable_objects_total", resource="services") == 1
        (event,) = [one for one in world.kube.all(EVENTS) if one["reason"] == "Unreadable"]
        assert event["involvedObject"]["name"] == "s0"
        assert "no such port" in event["message"]
        world.edit("s1", sessionAffinity="ClientIP")
        await world.until(lambda: any(one.listeners[0].pool.persistence for one in world.store.balancers))  # pyright: ignore[reportOptionalMemberAccess]
