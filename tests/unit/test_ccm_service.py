"""The service controller over a cloud in memory: what is made, kept, changed in the fewest calls, told, and taken away."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from moyai.ccm.service import FINALIZER
from moyai.cloud.capabilities import Capability
from moyai.cloud.load_balancers import BalancerState, LoadBalancer, SessionPersistence
from moyai.cloud.model import FloatingIP, Port, SecurityGroup
from moyai.core.ids import cluster_tag
from moyai.kube.resources import NODES, SERVICES
from tests.fakes.cloud import memory
from tests.unit.ccm_world import SUBNET, UID, World, external, furnished, node_object, run_until_dead, service_object

pytestmark = pytest.mark.virtual_time

NAME = "kube_service_demo_default_web"


def only(world: World) -> LoadBalancer:
    assert len(world.store.balancers) == 1
    return next(iter(world.store.balancers))


async def test_a_service_gets_a_whole_load_balancer_in_one_call_and_its_address_is_told() -> None:
    world = World()
    world.kube.put(SERVICES, service_object())
    async with world.run():
        await world.until(world.address)
        balancer = only(world)
        assert balancer.name == NAME
        assert cluster_tag(UID) in balancer.tags
        (listener,) = balancer.listeners
        assert (listener.protocol, listener.port) == ("TCP", 80)
        assert listener.pool
        assert [member.key for member in listener.pool.members] == [("10.0.0.1", 30080), ("10.0.0.2", 30080)]
        assert listener.pool.monitor
        assert listener.pool.monitor.type == "TCP"
        (floating,) = world.floating()
        assert world.address() == floating.address
        assert floating.port_id == balancer.vip_port_id
        assert FINALIZER in world.service()["metadata"]["finalizers"]
        (rule,) = world.store.rules
        assert (rule.protocol, rule.port_min, rule.port_max, rule.remote_cidr) == ("tcp", 30080, 30080, "10.0.0.0/24")
        await world.until(lambda: any("EnsuredLoadBalancer" in one for one in world.events()))
    changes = [call for call in world.cloud.calls.elements() if call.partition(".")[2].startswith(("create", "set", "update"))]
    assert sorted(changes) == [
        "addresses.create_floating_ip",
        "firewall.create_security_group_rules",
        "load_balancers.create",
    ]


async def test_node_ports_are_opened_in_each_group_of_the_nodes() -> None:
    world = World()
    world.store.groups.put(SecurityGroup("group-2", "more nodes"))
    world.config = replace(world.config, cluster=replace(world.config.cluster, node_security_group_ids=("group-1", "group-2")))
    world.kube.put(SERVICES, service_object())
    async with world.run():
        await world.until(world.address)
        await world.until(lambda: len(world.store.rules) == 2)
        assert {(rule.group_id, rule.port_min) for rule in world.store.rules} == {("group-1", 30080), ("group-2", 30080)}
        await world.kube.delete(SERVICES, "web", namespace="default")
        await world.until(lambda: not world.exists())
    assert not world.store.rules
    assert world.cloud.calls["firewall.create_security_group_rules"] == 2


async def test_a_deleted_service_takes_all_with_it() -> None:
    world = World()
    world.kube.put(SERVICES, service_object())
    async with world.run():
        await world.until(world.address)
        await world.kube.delete(SERVICES, "web", namespace="default")
        await world.until(lambda: not world.exists())
    assert not world.store.balancers
    assert not world.store.floating_ips
    assert not world.store.rules


async def test_a_kept_floating_ip_stays_and_one_of_the_users_is_never_deleted() -> None:
    world = World()
    world.kube.put(SERVICES, service_object(annotations={"loadbalancer.openstack.org/keep-floatingip": "true"}))
    world.store.floating_ips.put(FloatingIP("mine", "203.0.113.200", "DOWN", network_id=external(world.cloud).id))
    world.kube.put(SERVICES, service_object("own", loadBalancerIP="203.0.113.200"))
    async with world.run():
        await world.until(lambda: world.address() and world.address("own"))
        assert world.address("own") == "203.0.113.200"
        for name in ("web", "own"):
            await world.kube.delete(SERVICES, name, namespace="default")
        await world.until(lambda: not world.exists() and not world.exists("own"))
    kept = {one.address: one for one in world.floating()}
    assert len(kept) == 2
    assert not any(one.port_id for one in kept.values())
    assert "moyai.keep=true" in next(one for one in kept.values() if one.id != "mine").tags


async def test_where_nothing_can_be_tagged_later_an_address_is_kept_from_its_creation_on_or_the_service_says_why_not() -> None:
    keep = {"loadbalancer.openstack.org/keep-floatingip": "true"}
    world = World(cloud=furnished(memory(capabilities=frozenset(Capability) - {Capability.TAGS})))
    world.kube.put(SERVICES, service_object(annotations=keep))
    world.kube.put(SERVICES, service_object("late"))
    async with world.run():
        await world.until(lambda: world.address() and world.address("late"))
        world.edit("late", annotations=keep)
        await world.until(lambda: any("cannot be kept: cloud memory has no tags" in one for one in world.events()))
        await world.kube.delete(SERVICES, "web", namespace="default")
        await world.until(lambda: not world.exists())
    assert ["moyai.keep=true" in one.tags for one in sorted(world.floating(), key=lambda one: one.port_id)] == [True, False]


async def test_changing_a_service_away_from_load_balancer_cleans_up_and_back_recreates() -> None:
    world = World()
    world.kube.put(SERVICES, service_object())
    async with world.run():
        await world.until(world.address)
        world.edit(type="ClusterIP")
        await world.until(lambda: not world.store.balancers and not world.address())
        await world.until(lambda: FINALIZER not in world.service()["metadata"].get("finalizers", []))
        assert not world.store.floating_ips
        assert not world.store.rules
        world.edit(type="LoadBalancer")
        await world.until(world.address)


async def test_nodes_that_come_and_go_change_the_members_in_one_batch() -> None:
    world = World()
    world.kube.put(SERVICES, service_object())
    async with world.run():
        await world.until(world.address)
        world.cloud.calls.clear()
        world.kube.put(NODES, node_object(3))
        world.kube.put(NODES, node_object(4))
        await world.kube.delete(NODES, "demo-1")

        def members() -> set[str]:
            pool = only(world).listeners[0].pool
            return {member.address for member in pool.members} if pool else set()

        await world.until(lambda: members() == {"10.0.0.2", "10.0.0.3", "10.0.0.4"})
    assert world.cloud.calls["load_balancers.set_members"] == 1


async def test_changes_of_ports_are_minimal() -> None:
    world = World()
    world.kube.put(SERVICES, service_object())
    async with world.run():
        await world.until(world.address)
        before = only(world).listeners[0].id
        world.edit(
            ports=[
                {"name": "dns", "protocol": "UDP", "port": 80, "nodePort": 30053},
                {"name": "http", "protocol": "TCP", "port": 80, "nodePort": 30080},
            ]
        )
        await world.until(lambda: len(only(world).listeners) == 2 and only(world).state is BalancerState.ACTIVE)
        await world.until(lambda: {rule.protocol for rule in world.store.rules} == {"tcp", "udp"})
        assert before in {one.id for one in only(world).listeners}
        udp = next(one for one in only(world).listeners if one.protocol == "UDP")
        await world.until(lambda: _pool_complete(world, "UDP"))
        assert udp.timeout_client_data_ms is None
        world.edit(ports=[{"name": "dns", "protocol": "UDP", "port": 80, "nodePort": 30053}])
        await world.until(lambda: [one.protocol for one in only(world).listeners] == ["UDP"])
        await world.until(lambda: {rule.protocol for rule in world.store.rules} == {"udp"})
        await world.until(lambda: not only(world).loose_pools)


def _pool_complete(world: World, protocol: str) -> bool:
    pool = next(one.pool for one in only(world).listeners if one.protocol == protocol)
    return bool(pool and pool.monitor and len(pool.members) == 2)


async def test_an_internal_one_has_no_floating_ip_and_can_become_external() -> None:
    world = World()
    internal = "service.beta.kubernetes.io/openstack-internal-load-balancer"
    world.kube.put(SERVICES, service_object(annotations={internal: "true"}, loadBalancerIP="10.0.0.77"))
    async with world.run():
        await world.until(world.address)
        assert world.address() == "10.0.0.77"
        assert not world.store.floating_ips
        world.edit(annotations={internal: "false"}, loadBalancerIP="")
        await world.until(lambda: world.address() in {one.address for one in world.floating()})


async def test_a_balancer_that_names_the_client_in_the_stream_is_no_shortcut_for_pods() -> None:
    """With the PROXY protocol kube-proxy must not answer for the address itself: members expect a line before the stream."""
    world = World()
    proxy = "loadbalancer.openstack.org/proxy-protocol"
    world.kube.put(SERVICES, service_object(annotations={proxy: "true"}))
    async with world.run():
        await world.until(world.address)
        (shown,) = world.service("web")["status"]["loadBalancer"]["ingress"]
        assert shown == {"ip": world.address(), "ipMode": "Proxy"}
        world.edit(annotations={proxy: "false"})
        await world.until(lambda: "ipMode" not in world.service("web")["status"]["loadBalancer"]["ingress"][0])


async def test_a_wrong_annotation_is_told_once_and_nothing_is_made() -> None:
    world = World()
    world.kube.put(SERVICES, service_object(annotations={"loadbalancer.openstack.org/connection-limit": "many"}))
    async with world.run() as manager:
        await world.until(world.events)
        await asyncio.sleep(0.3)
        assert manager.metrics.value("moyai_reconcile_total", controller="service", outcome="usageerror") == 1
        (event,) = world.events()
        assert "loadbalancer.openstack.org/connection-limit is 'many'" in event
        assert "whole number" in event
        assert not world.store.balancers
        world.edit(annotations={"loadbalancer.openstack.org/connection-limit": "100"})
        await world.until(world.address)
        assert only(world).listeners[0].connection_limit == 100


async def test_a_wrong_annotation_does_not_keep_a_service_from_going() -> None:
    world = World()
    world.kube.put(SERVICES, service_object())
    async with world.run():
        await world.until(world.address)
        world.edit(annotations={"loadbalancer.openstack.org/connection-limit": "many"})
        await world.until(lambda: any("SyncLoadBalancerFailed" in one for one in world.events()))
        await world.kube.delete(SERVICES, "web", namespace="default")
        await world.until(lambda: not world.exists())
    assert not world.store.balancers


async def test_another_class_is_not_touched() -> None:
    world = World()
    world.kube.put(SERVICES, service_object(loadBalancerClass="example.org/other"))
    async with world.run():
        await asyncio.sleep(0.2)
    assert not world.store.balancers
    assert not world.service()["metadata"]["finalizers"]


async def test_an_exhausted_quota_is_told_and_not_hammered() -> None:
    world = World()
    world.store.limits["load_balancer"] = 0
    world.kube.put(SERVICES, service_object())
    async with world.run():
        await world.until(lambda: any("Quota exceeded" in one for one in world.events()))
        await asyncio.sleep(0.5)
    assert world.cloud.calls["load_balancers.create"] == 1


async def test_a_load_balancer_in_error_is_recreated_and_the_floating_ip_stays() -> None:
    world = World()
    world.kube.put(SERVICES, service_object())
    async with world.run():
        await world.until(world.address)
        address, broken = world.address(), only(world)
        world.store.balancers.put(replace(broken, state=BalancerState.FAILED))
        world.edit(sessionAffinity="ClientIP")
        await world.until(lambda: broken.id not in world.store.balancers and len(world.store.balancers) == 1)
        await world.until(lambda: only(world).state is BalancerState.ACTIVE)
        await world.until(lambda: all(one.port_id for one in world.floating()))
        assert world.address() == address
        assert only(world).listeners[0].pool
        assert only(world).listeners[0].pool.persistence is SessionPersistence.SOURCE_ADDRESS  # pyright: ignore[reportOptionalMemberAccess]


async def test_a_creation_that_fails_is_tried_again() -> None:
    world = World()
    world.cloud.faults.break_next("load_balancers.create", "no host", times=2)
    world.kube.put(SERVICES, service_object())
    async with world.run():
        await world.until(world.address)
    assert len(world.store.balancers) == 1
    assert len(world.store.floating_ips) == 1


async def test_what_an_earlier_version_made_is_carried_on_without_a_change() -> None:
    """It knew no UIDs of Services, and wrote neither the class nor its own words into annotations of Services."""
    world = World()
    world.kube.put(SERVICES, service_object())
    async with world.run():
        await world.until(world.address)
    made = only(world)
    listener = made.listeners[0]
    assert listener.pool
    earlier = replace(listener, tags=(NAME,), pool=replace(listener.pool, tags=(NAME,)))
    world.store.balancers.put(replace(made, tags=(cluster_tag(UID), NAME), listeners=(earlier,)))
    found = world.service()
    notes = {key: value for key, value in found["metadata"]["annotations"].items() if not key.startswith("moyai.dev/")}
    world.kube.put(SERVICES, {**found, "metadata": {**found["metadata"], "annotations": notes}})
    address = world.address()
    world.cloud.calls.clear()
    async with world.run():
        await world.until(lambda: "moyai.dev/load-balancer-written" in world.service()["metadata"]["annotations"])
        await asyncio.sleep(5)
        changes = [one for one in world.cloud.calls if one.partition(".")[2].startswith(("create", "set", "update", "delete"))]
        assert changes == []
        assert world.address() == address
        world.edit(sessionAffinity="ClientIP")
        await world.until(lambda: only(world).listeners[0].pool.persistence)  # pyright: ignore[reportOptionalMemberAccess]
        assert only(world).id == made.id
        await world.kube.delete(SERVICES, "web", namespace="default")
        await world.until(lambda: not world.exists())
    assert not world.store.balancers
    assert not world.store.floating_ips


async def test_a_foreign_load_balancer_of_the_same_name_is_left_alone() -> None:
    world = World()
    other = LoadBalancer(NAME, id="foreign", tags=("moyai.cluster=other00000",), state=BalancerState.ACTIVE)
    world.store.balancers.put(other)
    world.kube.put(SERVICES, service_object())
    async with world.run():
        await world.until(world.address)
        await world.kube.delete(SERVICES, "web", namespace="default")
        await world.until(lambda: not world.exists())
    assert list(world.store.balancers) == [other]


async def test_what_belongs_to_services_that_are_gone_is_deleted_by_the_second_look() -> None:
    world = World()
    world.kube.put(SERVICES, service_object())
    async with world.run():
        await world.until(world.address)
    world.kube.vanish(SERVICES, "web", namespace="default")
    async with world.run():
        await world.until(lambda: not world.store.balancers and not world.store.rules and not world.store.floating_ips, 300)


async def test_two_services_share_a_load_balancer_and_only_take_their_own_away() -> None:
    world = World()
    shared = LoadBalancer(
        "users-own",
        id=SUBNET,
        vip_port_id="port-x",
        vip_address="10.0.0.50",
        vip_subnet_id=SUBNET,
        state=BalancerState.ACTIVE,
    )
    world.store.balancers.put(shared)
    world.store.ports.put(Port("port-x", "", "net", "ACTIVE", ("10.0.0.50",), (SUBNET,)))
    note = {"loadbalancer.openstack.org/load-balancer-id": SUBNET}
    world.kube.put(SERVICES, service_object("a", annotations=note))
    async with world.run():
        await world.until(lambda: world.address("a"))
        ports = [{"name": "x", "protocol": "TCP", "port": 81, "nodePort": 30081}]
        world.kube.put(SERVICES, service_object("b", annotations=note, ports=ports))
        await world.until(lambda: world.address("b"))
        assert {one.port for one in only(world).listeners} == {80, 81}
        world.kube.put(SERVICES, service_object("c", annotations=note))
        await world.until(lambda: any("is taken by another user" in one for one in world.events()))
        for name in ("a", "b", "c"):
            await world.kube.delete(SERVICES, name, namespace="default")
            await world.until(lambda name=name: not world.exists(name))
    assert not only(world).listeners
    assert only(world).tags == ()


@pytest.mark.parametrize("steps", range(1, 9))
async def test_a_kill_after_any_change_while_it_is_made_doubles_nothing(steps: int) -> None:
    world = World()
    world.die_with_kubernetes()
    world.kube.put(SERVICES, service_object())
    world.mortal.kill_at(steps)
    await run_until_dead(world)
    world.mortal.revive()
    async with world.run():
        await world.until(world.address)
        await world.until(lambda: len(world.store.rules) == 1)
    assert only(world).state is BalancerState.ACTIVE
    assert len(world.store.floating_ips) == 1
    assert world.floating()[0].port_id == only(world).vip_port_id
    assert len(world.store.rules) == 1


@pytest.mark.parametrize("steps", range(1, 7))
async def test_a_kill_after_any_change_while_it_is_removed_leaves_nothing(steps: int) -> None:
    world = World()
    world.die_with_kubernetes()
    world.kube.put(SERVICES, service_object())
    async with world.run():
        await world.until(world.address)
    await world.kube.delete(SERVICES, "web", namespace="default")
    world.mortal.kill_at(steps)
    await run_until_dead(world)
    world.mortal.revive()
    async with world.run():
        await world.until(lambda: not world.exists())
    assert not world.store.balancers
    assert not world.store.floating_ips
    assert not world.store.rules
