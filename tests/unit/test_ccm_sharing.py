"""Load balancers, addresses and rules that several Services share: their owner, and which of them a user asked for."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from moyai.ccm.octavia.annotations import LOAD_BALANCER_ADDRESS, LOAD_BALANCER_ID, WRITTEN
from moyai.ccm.service import CLASS_ANNOTATION, FINALIZER
from moyai.cloud.load_balancers import BalancerState, Listener, LoadBalancer, TrafficProtocol
from moyai.cloud.model import FloatingIP, Port
from moyai.core.ids import KEEP_TAG
from moyai.kube.resources import SERVICES, Json
from tests.unit.ccm_world import SUBNET, World, external, run_until_dead, service_object

pytestmark = pytest.mark.virtual_time

INTERNAL = "service.beta.kubernetes.io/openstack-internal-load-balancer"
NOBODYS = "00000000-0000-4000-8000-000000000000"


def port(number: int) -> Json:
    return {"name": f"p{number}", "protocol": "TCP", "port": number, "nodePort": 30000 + number}


def balancer_of(world: World, name: str) -> LoadBalancer:
    chosen = world.service(name)["metadata"]["annotations"][LOAD_BALANCER_ID]
    return world.store.balancers[chosen]


async def pair(world: World, **second: Any) -> None:
    """``first`` with a load balancer of its own, and ``second``, which names it."""
    world.kube.put(SERVICES, service_object("first", ports=[port(80)]))
    await world.until(lambda: world.address("first"))
    notes = {LOAD_BALANCER_ID: balancer_of(world, "first").id, **second}
    world.kube.put(SERVICES, service_object("second", ports=[port(81)], annotations=notes))
    await world.until(lambda: world.address("second"))


def _note(world: World, name: str, *, key: str) -> str | None:
    return world.service(name)["metadata"]["annotations"].get(key)


async def delete(world: World, *names: str) -> None:
    for name in names:
        await world.kube.delete(SERVICES, name, namespace="default")
    await world.until(lambda: not any(map(world.exists, names)))


def edit_annotations(world: World, name: str, **changes: str | None) -> None:
    """As ``kubectl annotate``; None takes one away."""
    found = world.service(name)
    meta = dict(found["metadata"])
    notes = {**meta.get("annotations", {}), **changes}
    meta["annotations"] = {key: value for key, value in notes.items() if value is not None}
    world.kube.put(SERVICES, {**found, "metadata": meta})


def nothing_left(world: World) -> None:
    assert not world.store.balancers
    assert not world.store.floating_ips
    assert not world.store.rules


async def test_a_shared_load_balancer_keeps_its_address_when_the_one_that_it_was_made_for_goes() -> None:
    world = World()
    async with world.run():
        await pair(world)
        address = world.address("second")
        assert address == world.address("first")
        await delete(world, "first")
        await asyncio.sleep(1)
        (floating,) = world.floating()
        assert floating.address == address == world.address("second")
        assert floating.port_id == balancer_of(world, "second").vip_port_id
        assert [one.port for one in balancer_of(world, "second").listeners] == [81]
        # an hour later it is still no orphan
        await asyncio.sleep(8000)
        assert world.address("second") == address
        assert [one.address for one in world.floating()] == [address]
        # the next Service of that name has nothing to do with it
        world.kube.put(SERVICES, service_object("first", ports=[port(80)]))
        await world.until(lambda: world.address("first"))
        assert len(world.store.balancers) == 2
        await delete(world, "second")
        assert len(world.store.balancers) == len(world.floating()) == 1
        await delete(world, "first")
    nothing_left(world)


@pytest.mark.parametrize("steps", range(1, 8))
async def test_a_kill_while_the_first_of_two_goes_takes_nothing_from_the_second(steps: int) -> None:
    world = World()
    world.die_with_kubernetes()
    async with world.run():
        await pair(world)
    address = world.address("second")
    await world.kube.delete(SERVICES, "first", namespace="default")
    world.mortal.kill_at(steps)
    await run_until_dead(world)
    world.mortal.revive()
    async with world.run():
        await world.until(lambda: not world.exists("first"))
        assert [one.address for one in world.floating()] == [address]
        assert world.floating()[0].port_id == balancer_of(world, "second").vip_port_id
        await delete(world, "second")
    nothing_left(world)


async def test_all_services_of_a_load_balancer_that_go_at_once_leave_nothing() -> None:
    world = World()
    async with world.run():
        await pair(world)
        for number in (82, 83):
            notes = {LOAD_BALANCER_ID: balancer_of(world, "first").id}
            world.kube.put(SERVICES, service_object(f"s{number}", ports=[port(number)], annotations=notes))
        await world.until(lambda: world.address("s82") and world.address("s83"))
        await delete(world, "first", "second", "s82", "s83")
    nothing_left(world)


async def test_services_that_join_a_load_balancer_at_once_are_all_users_of_it() -> None:
    world = World()
    async with world.run():
        await pair(world)
        notes = {LOAD_BALANCER_ID: balancer_of(world, "first").id}
        names = [f"s{number}" for number in range(90, 96)]
        for name in names:
            world.kube.put(SERVICES, service_object(name, ports=[port(int(name[1:]))], annotations=notes))
        await world.until(lambda: all(map(world.address, names)))
        tags = balancer_of(world, "first").tags
        assert {f"kube_service_demo_default_{name}" for name in names} <= set(tags)
        await delete(world, "first", "second", *names[:-1])
        assert world.address(names[-1]) == world.floating()[0].address
        await delete(world, names[-1])
    nothing_left(world)


async def test_an_address_that_is_to_be_kept_stays_on_the_port_for_the_others() -> None:
    world = World()
    async with world.run():
        await pair(world)
        edit_annotations(world, "first", **{"loadbalancer.openstack.org/keep-floatingip": "true"})
        await world.until(lambda: KEEP_TAG in world.floating()[0].tags)
        await delete(world, "first")
        assert world.floating()[0].port_id == balancer_of(world, "second").vip_port_id
        await delete(world, "second")
    assert not world.store.balancers
    assert [one.port_id for one in world.floating()] == [""]


async def test_a_service_never_lets_go_of_an_address_that_others_use() -> None:
    world = World()
    async with world.run():
        await pair(world, **{INTERNAL: "true"})
        # internal, on a load balancer with an address of somebody else's
        assert world.address("first") == world.floating()[0].address
        assert world.address("second") == balancer_of(world, "first").vip_address
        edit_annotations(world, "second", **{INTERNAL: None})
        await world.until(lambda: world.address("second") == world.address("first"))
        world.edit("second", loadBalancerIP="203.0.113.99")
        await world.until(lambda: any("which is not this Service's alone" in one for one in world.events()))
        assert [one.address for one in world.floating()] == [world.address("first")]
        # its owner may: the other's status follows at once
        edit_annotations(world, "first", **{INTERNAL: "true"})
        world.edit("second", loadBalancerIP="")
        await world.until(lambda: world.address("first") == balancer_of(world, "first").vip_address, 10)
        await world.until(lambda: [one.address for one in world.floating()] == [world.address("second")], 10)


async def test_an_address_that_somebody_put_on_another_port_is_not_deleted_there() -> None:
    world = World()
    async with world.run():
        world.kube.put(SERVICES, service_object("web"))
        await world.until(lambda: world.address("web"))
        moved = replace(world.floating()[0], port_id="p1", fixed_ip="10.0.0.1")
        world.store.floating_ips.put(moved)
        await delete(world, "web")
        assert world.floating() == [moved]
        await asyncio.sleep(8000)
        assert world.floating() == [moved]


async def test_what_a_backup_brings_of_the_controllers_own_words_is_no_wish() -> None:
    world = World()
    async with world.run():
        world.kube.put(SERVICES, service_object("web"))
        await world.until(lambda: world.address("web"))
        written = dict(world.service("web")["metadata"]["annotations"])
        before = world.address("web")
        await delete(world, "web")
        assert set(written) == {LOAD_BALANCER_ID, LOAD_BALANCER_ADDRESS, WRITTEN, CLASS_ANNOTATION}
        # the address is somebody else's by now
        taken = FloatingIP("taken", before, "DOWN", network_id=external(world.cloud).id, port_id="p1")
        world.store.floating_ips.put(taken)
        earlier = {key: value for key, value in written.items() if key in (LOAD_BALANCER_ID, LOAD_BALANCER_ADDRESS)}
        for name, notes in (("web", written), ("old", earlier)):
            world.kube.put(SERVICES, service_object(name, annotations=notes))
            await world.until(lambda name=name: world.address(name))
            assert world.address(name) not in ("", before)
            assert world.service(name)["metadata"]["annotations"][LOAD_BALANCER_ADDRESS] == world.address(name)
        assert not [one for one in world.events() if "Failed" in one]


async def test_a_backup_that_is_restored_beside_the_living_original_takes_nothing_from_it() -> None:
    world = World()
    theirs = LoadBalancer("kube_service_demo_default_web", id=NOBODYS, tags=("moyai.cluster=other00000",))
    world.store.balancers.put(replace(theirs, state=BalancerState.ACTIVE))
    notes = {LOAD_BALANCER_ID: NOBODYS, LOAD_BALANCER_ADDRESS: "198.51.100.1"}
    world.kube.put(SERVICES, service_object("web", annotations=notes))
    async with world.run():
        await world.until(lambda: world.address("web"))
        assert len(world.store.balancers) == 2
        await delete(world, "web")
    assert [one.id for one in world.store.balancers] == [NOBODYS]


async def test_the_address_annotation_is_a_wish_when_the_user_wrote_it() -> None:
    world = World()
    free = FloatingIP("mine", "203.0.113.200", "DOWN", network_id=external(world.cloud).id)
    world.store.floating_ips.put(free)
    world.kube.put(SERVICES, service_object("web", annotations={LOAD_BALANCER_ADDRESS: free.address}))
    async with world.run():
        await world.until(lambda: world.address("web") == free.address)
        edit_annotations(world, "web", touched="1")
        await asyncio.sleep(2)
        # a backup brings it along as the wish that it is
        assert free.address not in world.service("web")["metadata"]["annotations"][WRITTEN].split(",")


async def test_a_users_change_of_an_annotation_is_seen_also_where_the_controller_writes_it() -> None:
    world = World()
    world.kube.put(SERVICES, service_object("web", annotations={LOAD_BALANCER_ID: NOBODYS}))
    async with world.run():
        await world.until(lambda: any("must be the id of a load balancer" in one for one in world.events()))
        edit_annotations(world, "web", **{LOAD_BALANCER_ID: None})
        await world.until(lambda: world.address("web"))
        own = balancer_of(world, "web").id
        for key in (LOAD_BALANCER_ID, LOAD_BALANCER_ADDRESS, CLASS_ANNOTATION, WRITTEN):
            before = world.service("web")["metadata"]["annotations"][key]
            edit_annotations(world, "web", **{key: None})
            await world.until(lambda key=key, before=before: _note(world, "web", key=key) == before)
        assert balancer_of(world, "web").id == own
        calls = sum(world.cloud.calls.values())
        await asyncio.sleep(60)
        assert sum(world.cloud.calls.values()) == calls


async def test_a_service_that_moves_to_another_load_balancer_and_back_leaves_nothing_behind() -> None:
    world = World()
    async with world.run():
        await pair(world)
        shared = balancer_of(world, "first").id
        edit_annotations(world, "second", **{LOAD_BALANCER_ID: None})
        await world.until(lambda: _note(world, "second", key=LOAD_BALANCER_ID) not in (None, shared))
        await world.until(lambda: [one.port for one in world.store.balancers[shared].listeners] == [80])
        await world.until(lambda: not any("second" in tag for tag in world.store.balancers[shared].tags))
        own = balancer_of(world, "second").id
        edit_annotations(world, "second", **{LOAD_BALANCER_ID: shared})
        await world.until(lambda: world.address("second") == world.address("first"))
        await world.until(lambda: own not in world.store.balancers)
        assert [one.port for one in world.store.balancers[shared].listeners] == [80, 81]
        assert len(world.floating()) == 1
        await delete(world, "first", "second")
    nothing_left(world)


async def test_services_of_clusters_with_the_same_name_keep_apart_on_a_load_balancer_of_the_users() -> None:
    world = World()
    world.store.ports.put(Port("port-x", "", "net", "ACTIVE", ("10.0.0.50",), (SUBNET,)))
    tags = ("kube_service_demo_default_web", "moyai.service=of-the-other-cluster")
    theirs = Listener("listener", TrafficProtocol.TCP, 81, tags=tags, id="theirs")
    shared = LoadBalancer("users-own", id=NOBODYS, vip_port_id="port-x", vip_address="10.0.0.50", vip_subnet_id=SUBNET)
    shared = replace(shared, state=BalancerState.ACTIVE, tags=tags, listeners=(theirs,))
    world.store.balancers.put(shared)
    world.kube.put(SERVICES, service_object("web", annotations={LOAD_BALANCER_ID: NOBODYS}))
    async with world.run():
        await world.until(lambda: world.address("web"))
        assert theirs in world.store.balancers[NOBODYS].listeners
        await delete(world, "web")
    assert world.store.balancers[NOBODYS].listeners == (theirs,)
    assert world.store.balancers[NOBODYS].tags == tags


@pytest.mark.parametrize("earlier_version", [False, True])
async def test_the_finalizer_comes_off_whatever_class_the_service_has_by_now(earlier_version: bool) -> None:
    world = World()
    async with world.run():
        world.kube.put(SERVICES, service_object("web"))
        await world.until(lambda: world.address("web"))
        address = world.address("web")
    # while the controller is down: another type, and then somebody else's class
    world.edit("web", type="LoadBalancer", loadBalancerClass="example.org/other")
    if earlier_version:
        edit_annotations(world, "web", **{CLASS_ANNOTATION: None, WRITTEN: None})
    async with world.run():
        await world.until(lambda: FINALIZER not in world.service("web")["metadata"]["finalizers"])
        nothing_left(world)
        assert not {LOAD_BALANCER_ID, CLASS_ANNOTATION, WRITTEN} & set(world.service("web")["metadata"]["annotations"])
        # whose status it is now is the other controller's affair
        assert world.address("web") == address
        await delete(world, "web")


async def test_the_finalizer_of_another_controller_stays() -> None:
    world = World()
    foreign = service_object("web", loadBalancerClass="example.org/other")
    foreign["metadata"]["finalizers"] = [FINALIZER]
    world.kube.put(SERVICES, foreign)
    async with world.run():
        await asyncio.sleep(5)
        await world.kube.delete(SERVICES, "web", namespace="default")
        await asyncio.sleep(5)
        assert world.service("web")["metadata"]["finalizers"] == [FINALIZER]


async def test_a_finalizer_that_somebody_took_off_comes_back() -> None:
    world = World()
    world.kube.put(SERVICES, service_object("web"))
    async with world.run():
        await world.until(lambda: world.address("web"))
        found = world.service("web")
        world.kube.put(SERVICES, {**found, "metadata": {**found["metadata"], "finalizers": []}})
        await world.until(lambda: world.service("web")["metadata"]["finalizers"] == [FINALIZER])
