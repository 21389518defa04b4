"""Plans of clusters behind a load balancer, cut off before and after each of their steps, and `up` killed at each change of the
cloud: nothing is lost, and the API server of no control plane ends while the load balancer sends to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from moyai.cloud.load_balancers import BalancerState
from moyai.cloud.memory import Killed
from moyai.lifecycle import execute
from tests.fakes.cloud import named
from tests.unit.lifecycle_world import World
from tests.unit.test_lifecycle_prefixes import Case, cut_everywhere, down_plan, fresh, replaced, unsafe, up_plan

pytestmark = pytest.mark.exhaustive

ONE = "spec: {controlPlane: {endpoint: load-balancer}, nodePools: [{replicas: 1}]}"
THREE = "spec: {controlPlane: {replicas: 3, endpoint: load-balancer}, nodePools: [{replicas: 1}]}"
FEWER_CLIENTS = THREE.replace("spec: {", "spec: {access: {apiCIDRs: [192.0.2.0/24]}, ")


def one(world: World) -> None:
    world.up(ONE)


def three(world: World) -> None:
    world.up(THREE)


def with_a_dead_one(world: World) -> None:
    world.up(THREE)
    world.fail("quickstart-control-plane-0", "its host is gone")


def without_its_balancer(world: World) -> None:
    """Somebody deleted it, so the API does not answer."""
    world.up(THREE)
    world.cloud.load_balancers.delete(named(world.store.balancers, "quickstart-api").id)
    world.store.settle()


def with_a_failed_balancer(world: World) -> None:
    world.up(THREE)
    found = named(world.store.balancers, "quickstart-api")
    world.store.balancers.put(replace(found, state=BalancerState.FAILED, status="ERROR"))


def without_members(world: World) -> None:
    """Somebody took them all out, so the API does not answer."""
    world.up(THREE)
    (listener,) = named(world.store.balancers, "quickstart-api").listeners
    assert listener.pool
    world.cloud.load_balancers.set_members(listener.pool.id, [])
    world.store.settle()


CASES: dict[str, Case] = {
    "three control planes": (fresh, up_plan(THREE), lambda world: world.up(THREE)),
    "from one to three": (one, up_plan(THREE), lambda world: world.up(THREE)),
    "from three to one": (three, up_plan(ONE), lambda world: world.up(ONE)),
    "to the one that works": (with_a_dead_one, up_plan(ONE), lambda world: world.up(ONE)),
    "replace a broken one": (with_a_dead_one, up_plan(THREE), lambda world: world.up(THREE)),
    "replace one that works": (
        three,
        lambda world: world.preview(THREE, replaced=replaced(world)),
        lambda world: world.up(THREE, replaced=replaced(world)),
    ),
    "replace the only one": (
        one,
        lambda world: world.preview(ONE, replaced=replaced(world)),
        lambda world: world.up(ONE, replaced=replaced(world)),
    ),
    "its load balancer is gone": (without_its_balancer, up_plan(THREE), lambda world: world.up(THREE)),
    "its load balancer failed": (with_a_failed_balancer, up_plan(THREE), lambda world: world.up(THREE)),
    "its load balancer is empty": (without_members, up_plan(THREE), lambda world: world.up(THREE)),
    "other clients": (three, up_plan(FEWER_CLIENTS), lambda world: world.up(FEWER_CLIENTS)),
    "down": (three, down_plan, lambda world: world.down()),
}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", CASES)
def test_the_next_plan_is_exactly_the_rest(name: str, after: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut_everywhere(CASES[name], after=after, folder=tmp_path, monkeypatch=monkeypatch)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_up_killed_at_every_change_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    monkeypatch.setattr(execute, "WORKERS", 1)
    counted = World(tmp_path / "count", monkeypatch)
    counted.up(THREE)
    whole, led = counted.names(), sorted(counted.led())
    assert len(led) == 3
    for number in range(1, counted.mortal.changes + 1):
        world = World(tmp_path / str(number), monkeypatch)
        world.mortal.kill_at(number, after=after)
        with pytest.raises(Killed):
            world.up(THREE)
        world.mortal.revive()
        world.up(THREE)
        assert (world.names(), sorted(world.led())) == (whole, led), f"killed at change {number}"
        assert not world.up(THREE).changed
        world.down()
        assert world.all_names() == [], f"killed at change {number}"
        assert not unsafe(world)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_replacement_killed_at_every_change_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    monkeypatch.setattr(execute, "WORKERS", 1)
    counted = World(tmp_path / "count", monkeypatch)
    counted.up(ONE)
    built = counted.mortal.changes
    counted.up(ONE, replaced=replaced(counted))
    for number in range(1, counted.mortal.changes - built + 1):
        world = World(tmp_path / str(number), monkeypatch)
        world.up(ONE)
        world.mortal.kill_at(number, after=after)
        with pytest.raises(Killed):
            world.up(ONE, replaced=replaced(world))
        world.mortal.revive()
        world.up(ONE)
        assert len(world.led()) == 1, f"killed at change {number}"
        assert not unsafe(world), f"killed at change {number}"
