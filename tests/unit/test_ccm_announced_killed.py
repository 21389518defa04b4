"""The cloud controller manager is killed at any change while it gives or takes announced addresses; the next one finishes."""

from __future__ import annotations

import pytest

from moyai.kube.resources import SERVICES
from moyai.plan.announce.metallb_words import FROM_POOL
from tests.unit.ccm_world import run_until_dead
from tests.unit.test_ccm_announced import Announcing

pytestmark = pytest.mark.virtual_time

NAMES = ("a", "b", "c")


def world_of_three() -> Announcing:
    world = Announcing()
    world.die_with_kubernetes()
    world.pool("main", "192.0.2.0/28")
    for name in NAMES:
        world.put(name)
    return world


@pytest.mark.parametrize("steps", range(1, 15))
async def test_a_kill_after_any_change_gives_no_address_twice_and_no_service_a_second_one(steps: int) -> None:
    world = world_of_three()
    world.mortal.kill_at(steps)
    await run_until_dead(world)
    shown = {name: world.address(name) for name in NAMES if world.address(name)}
    world.mortal.revive()
    async with world.settled():
        addresses = {name: world.address(name) for name in NAMES}
        assert len(set(addresses.values()) - {""}) == len(NAMES)
        assert addresses.items() >= shown.items(), "what was shown is kept"
        assert all(world.service(name)["metadata"]["annotations"][FROM_POOL] == "main" for name in NAMES)
        assert world.rules() == [("tcp", 80, "0.0.0.0/0")]


@pytest.mark.exhaustive
@pytest.mark.parametrize("steps", range(1, 12))
async def test_a_kill_after_any_change_while_services_go_leaves_nothing(steps: int) -> None:
    world = world_of_three()
    async with world.settled():
        assert all(world.address(name) for name in NAMES)
    for name in NAMES:
        await world.kube.delete(SERVICES, name, namespace="default")
    world.mortal.kill_at(steps)
    await run_until_dead(world)
    world.mortal.revive()
    async with world.settled():
        assert not any(world.exists(name) for name in NAMES)
        assert world.rules() == []
        assert world.status("main")["assignedIPv4"] == 0
