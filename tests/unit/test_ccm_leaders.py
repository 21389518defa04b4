"""Two leaders in one moment: a call of the one that lost its lease ends late, and the next one finds what it made."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import pytest

from moyai.ccm.octavia.annotations import LOAD_BALANCER_ID
from moyai.cloud.load_balancers import BalancerState
from moyai.cloud.memory import Delays
from moyai.kube.leader import LeaderElection, LeaseTimes
from moyai.kube.resources import LEASES, SERVICES
from moyai.runtime.calls import CloudCalls
from moyai.runtime.controllers import ControllerSet, Part
from moyai.runtime.metrics import Metrics
from moyai.runtime.reconciler import DONE, Result
from tests.unit.ccm_world import World, service_object


@pytest.mark.virtual_time
async def test_a_load_balancer_that_is_still_being_built_is_adopted_and_waited_for() -> None:
    world = World()
    world.kube.put(SERVICES, service_object())
    async with world.run():
        world.store.delays = Delays(balancer=1e9)
        await world.until(lambda: len(world.store.balancers) == 1)
        (made,) = world.store.balancers
        # by whoever leads next: it knows nothing of the first
        async with world.run():
            await world.clock.asleep(30)
            assert world.cloud.calls["load_balancers.create"] == 1
            assert not world.address()
            world.store.delays = Delays()
            world.store.balancers.put(replace(made, state=BalancerState.ACTIVE))
            await world.until(world.address, 10)
    assert [one.id for one in world.store.balancers] == [made.id]
    assert len(world.floating()) == 1


@pytest.mark.virtual_time
@pytest.mark.parametrize("answers", ["first", "second"])
async def test_of_two_load_balancers_the_one_that_answers_stays_and_the_other_goes_while_the_service_answers(
    answers: str,
) -> None:
    """The call of the former leader takes effect after the next leader has looked."""
    world = World()
    ids = {"first": "00000000-0000-4000-8000-000000000001", "second": "ffffffff-ffff-4fff-8fff-ffffffffffff"}
    world.kube.put(SERVICES, service_object())
    async with world.run():
        await world.until(world.address)
        (own,) = world.store.balancers
        double = replace(own, id=ids[answers], vip_port_id="", state=BalancerState.BUSY, status="busy")
        world.store.balancers.put(double)
        address = world.address()
        world.edit(sessionAffinity="ClientIP")
        await world.until(lambda: any(one.listeners[0].pool.persistence for one in world.store.balancers))  # pyright: ignore[reportOptionalMemberAccess]
        await world.clock.asleep(10)
        assert own.id in world.store.balancers
        assert world.address() == address
        world.store.balancers.put(replace(double, state=BalancerState.ACTIVE))
        # not at the next resync, which is a quarter of an hour away
        await world.until(lambda: [one.id for one in world.store.balancers] == [own.id], 30)
        assert world.address() == address
        assert world.service()["metadata"]["annotations"][LOAD_BALANCER_ID] == own.id
        assert [one.address for one in world.floating()] == [address]


async def test_a_lease_is_not_handed_over_while_a_call_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """In real time, for the call hangs in a thread."""
    monkeypatch.setattr("moyai.runtime.manager._GRACE_SECONDS", 0.2)
    world = World()
    entered, release = threading.Event(), threading.Event()

    def hang() -> None:
        entered.set()
        release.wait(10)

    async def reconcile(_key: str) -> Result:
        await calls.call(hang)
        return DONE

    calls = CloudCalls(world.cloud, Metrics())
    times = LeaseTimes(duration=15, deadline=10, retry=0.05)
    election = LeaderElection(world.kube, name="l", namespace="kube-system", identity="first", times=times)
    part = Part("hanging", reconcile, lambda queue: queue.add("x"))
    leader = ControllerSet(metrics=Metrics(), parts=[part], election=election)
    stop = asyncio.Event()
    task = asyncio.create_task(leader.run(stop))
    try:
        await asyncio.to_thread(entered.wait, 5)
        stop.set()
        assert await asyncio.wait_for(task, 5)
        assert world.kube.find(LEASES, "l", namespace="kube-system")["spec"]["holderIdentity"] == "first"
    finally:
        release.set()
