"""Many Services and many nodes: what one costs does not grow with the number of the others, and none holds up another."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from moyai.cloud.memory import Delays, MemoryCloud
from moyai.kube.resources import NODES, SERVICES
from tests.fakes.clock import FakeClock
from tests.unit.ccm_world import World, furnished, node_object, service_object

pytestmark = pytest.mark.virtual_time

#: Calls that answer for all Services together. Each is made once in a while, however many Services ask.
SHARED = ("addresses.floating_ips all", "firewall.security_group_rules", "networks.subnets", "networks.networks")
#: A wait repeats these, so that the number depends on when the clock ticks.
LOOKS = ("load_balancers.head", "load_balancers.load_balancers")
NODE_SELECTOR = "loadbalancer.openstack.org/node-selector"


class Crowd(World):
    """``seconds``: how long the cloud takes for each change of a load balancer. ``counted``: calls since the last look, where
    a list of all floating IPs is told from one of a port's."""

    poll = 0.2
    pause = 0.1

    def __init__(self, *, seconds: float = 1.0, nodes: int = 2) -> None:
        clock = FakeClock()
        super().__init__(nodes=nodes, cloud=furnished(MemoryCloud(clock=clock, delays=Delays(balancer=seconds))))
        self.store.limits.update(dict.fromkeys(self.store.limits, 10_000))
        self.clock = clock
        listed = self.cloud.addresses.floating_ips

        def floating_ips(**query: Any) -> Any:
            self.cloud.calls["addresses.floating_ips all" if query.get("port_ids") is None else "by port"] += 1
            return listed(**query)

        self.cloud.addresses.floating_ips = floating_ips  # pyright: ignore[reportAttributeAccessIssue]

    def names(self, count: int) -> list[str]:
        return [f"s{number}" for number in range(count)]

    def create(self, count: int, **annotations: str) -> None:
        for number, name in enumerate(self.names(count)):
            ports = [{"name": "http", "protocol": "TCP", "port": 80, "nodePort": 30000 + number}]
            self.kube.put(SERVICES, service_object(name, ports=ports, annotations=annotations))

    def counted(self) -> Counter[str]:
        found = Counter(self.cloud.calls)
        self.cloud.calls.clear()
        found.pop("addresses.floating_ips", None)
        return found

    def members(self) -> list[set[str]]:
        pools = [one.listeners[0].pool for one in self.store.balancers]
        return [{member.address for member in pool.members} if pool else set() for pool in pools]


async def cost(count: int) -> dict[str, Counter[str]]:
    """Calls by kind, while so many Services are created, change, follow their nodes, and go."""
    world = Crowd()
    found: dict[str, Counter[str]] = {}

    async def phase(name: str, done: Callable[[], bool]) -> None:
        await world.until(done, 600)
        await asyncio.sleep(30)
        found[name] = world.counted()

    async with world.run():
        await asyncio.sleep(1)
        world.counted()
        names = world.names(count)
        world.create(count)
        await phase("create", lambda: all(map(world.address, names)))
        for name in names:
            world.edit(name, sessionAffinity="ClientIP")
        await phase("change", lambda: all(one.listeners[0].pool.persistence for one in world.store.balancers))  # pyright: ignore[reportOptionalMemberAccess]
        world.add_machine(3)
        world.kube.put(NODES, node_object(3))
        await phase("node", lambda: all(len(one) == 3 for one in world.members()))
        for name in names:
            await world.kube.delete(SERVICES, name, namespace="default")
        await phase("remove", lambda: not any(map(world.exists, names)))
    assert not world.store.balancers
    assert not world.store.floating_ips
    assert not world.store.rules
    return found


@pytest.mark.exhaustive
async def test_calls_per_service_are_the_same_with_five_and_with_fifty() -> None:
    few, many = await cost(5), await cost(50)
    for phase in few:
        assert each(many[phase], 50) == each(few[phase], 5), phase
        assert looks(many[phase], 50) <= looks(few[phase], 5) + 1, phase
        # eight workers and some seconds of one list's life: a list is not read for each Service
        assert all(many[phase][name] <= 5 for name in SHARED), (phase, many[phase])


def each(calls: Counter[str], count: int) -> dict[str, float]:
    """Calls per Service, without those that it shares with others and those that a wait repeats."""
    return {name: number / count for name, number in calls.items() if name not in (*SHARED, *LOOKS)}


def looks(calls: Counter[str], count: int) -> float:
    return sum(calls[one] for one in LOOKS) / count


async def test_a_change_of_nodes_reaches_only_the_services_whose_backends_change() -> None:
    world = Crowd()
    async with world.run() as manager:
        world.create(3)
        world.kube.put(SERVICES, service_object("edge", annotations={NODE_SELECTOR: "pool=edge"}))
        await world.until(lambda: all(map(world.address, [*world.names(3), "edge"])), 60)
        await asyncio.sleep(10)

        def reconciled() -> float:
            return manager.metrics.value("moyai_reconcile_total", controller="service", outcome="success")

        before = reconciled()
        for turn in range(3):
            # no change in this phase affects which members get traffic
            node = node_object(1)
            node["metadata"]["labels"] = {"turn": str(turn)}
            world.kube.put(NODES, node)
            await asyncio.sleep(5)
        assert reconciled() == before
        node = node_object(2)
        node["metadata"]["labels"] = {"pool": "edge"}
        world.kube.put(NODES, node)
        await asyncio.sleep(10)
        assert reconciled() == before + 1
        for number in range(3, 9):
            world.add_machine(number)
            world.kube.put(NODES, node_object(number))
        await asyncio.sleep(30)
        assert reconciled() == before + 1 + 3
        assert sorted(map(len, world.members())) == [1, 8, 8, 8]


async def test_load_balancers_that_stay_pending_hold_no_other_service_up_and_the_user_hears_of_them() -> None:
    world = Crowd()
    async with world.run():
        build = world.store.delays
        world.store.delays = Delays(balancer=1e9)
        world.create(24)
        await world.until(lambda: len(world.store.balancers) == 24, 60)
        world.store.delays = build
        began = world.clock.monotonic()
        world.kube.put(SERVICES, service_object("quick"))
        await world.until(lambda: world.address("quick"), 60)
        # its own load balancer takes a second
        assert world.clock.monotonic() - began < 2
        assert not any("SyncLoadBalancerFailed" in one for one in world.events())
        await asyncio.sleep(60)
        assert any("SyncLoadBalancerFailed" in one and "is still busy" in one for one in world.events())
        assert not any(map(world.address, world.names(24)))


async def test_a_load_balancer_that_takes_long_is_reported_as_made_once_it_is() -> None:
    world = Crowd(seconds=40)
    async with world.run():
        world.create(1)
        await world.until(lambda: world.address("s0"), 60)
        await asyncio.sleep(1)
    assert [one for one in world.events() if one.startswith("EnsuredLoadBalancer")] == [
        f"EnsuredLoadBalancer: Load balancer at {world.address('s0')}: created with 1 ports and 2 nodes"
    ]
    assert world.cloud.calls["load_balancers.create"] == 1
    assert len(world.store.floating_ips) == 1
