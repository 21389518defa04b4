"""`up` and `down` killed at every single change of the cloud, and finished by the next run."""

from __future__ import annotations

from pathlib import Path

import pytest

from moyai.cloud.capabilities import Capability
from moyai.cloud.memory import Killed
from moyai.lifecycle import execute
from tests.unit.lifecycle_world import World, count_changes, whole, with_disks

pytestmark = pytest.mark.exhaustive


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_up_killed_at_every_change_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    monkeypatch.setattr(execute, "WORKERS", 1)
    changes = count_changes(tmp_path, monkeypatch)
    assert changes > 20
    for number in range(1, changes + 1):
        world = World(tmp_path / f"{number}", monkeypatch)
        world.mortal.kill_at(number, after=after)
        with pytest.raises(Killed):
            world.up()
        world.mortal.revive()
        world.up()
        assert world.names() == whole(), f"killed at change {number}"
        assert not world.up().changed
        world.down()
        assert world.all_names() == [], f"killed at change {number}"


def test_up_killed_at_every_change_is_finished_also_where_nothing_can_be_tagged_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execute, "WORKERS", 1)
    capabilities = frozenset(Capability) - {Capability.TAGS}
    world = World(tmp_path / "count", monkeypatch, capabilities=capabilities)
    world.up()
    for number in range(1, world.mortal.changes + 1):
        world = World(tmp_path / f"{number}", monkeypatch, capabilities=capabilities)
        world.mortal.kill_at(number, after=True)
        with pytest.raises(Killed):
            world.up()
        world.mortal.revive()
        world.up()
        assert world.names() == whole(), f"killed at change {number}"
        world.down()
        assert world.all_names() == [], f"killed at change {number}"


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_down_removes_whatever_a_killed_up_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool) -> None:
    monkeypatch.setattr(execute, "WORKERS", 1)
    changes = count_changes(tmp_path, monkeypatch)
    for number in range(1, changes + 1):
        world = World(tmp_path / f"{number}", monkeypatch)
        world.mortal.kill_at(number, after=after)
        with pytest.raises(Killed):
            world.up()
        world.mortal.revive()
        report = world.down()
        assert world.all_names() == [], f"killed at change {number}"
        assert not report.left


def test_down_killed_at_every_change_is_finished_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "WORKERS", 1)
    world = World(tmp_path / "count", monkeypatch)
    world.up()
    built = world.mortal.changes
    world.down()
    for number in range(1, world.mortal.changes - built + 1):
        world = World(tmp_path / f"{number}", monkeypatch)
        world.up()
        world.mortal.kill_at(number, after=True)
        with pytest.raises(Killed):
            world.down()
        world.mortal.revive()
        assert not world.down().left
        assert world.all_names() == []


def test_many_side_by_side_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3, 30, 4):
        world = World(tmp_path / f"{number}", monkeypatch)
        world.mortal.kill_at(number, after=True)
        with pytest.raises(Killed):
            world.up()
        world.mortal.revive()
        world.up()
        assert world.names() == whole()


@pytest.mark.parametrize("policy", ["Delete", "Retain"])
def test_down_with_volumes_killed_at_every_change_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    monkeypatch.setattr(execute, "WORKERS", 1)
    stay = ["volumes precious"] if policy == "Delete" else ["snapshots snapshot-1", "volumes precious", "volumes pvc-own"]
    world = World(tmp_path / "count", monkeypatch)
    with_disks(world, policy)
    built = world.mortal.changes
    world.down()
    changes = world.mortal.changes - built
    assert changes > 15
    for number in range(1, changes + 1):
        for after in (False, True):
            world = World(tmp_path / f"{number}-{after}", monkeypatch)
            with_disks(world, policy)
            world.mortal.kill_at(number, after=after)
            with pytest.raises(Killed):
                world.down()
            world.mortal.revive()
            assert not world.down().left, f"killed at change {number}"
            assert world.all_names() == stay, f"killed at change {number}"
            assert "precious" not in world.torn
