"""`up` meets a cloud that fails for a moment: it looks again by itself within a bound, and says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from moyai.core.errors import Retriable, Terminal
from moyai.core.progress import Event, Reporter
from moyai.lifecycle import up as building
from moyai.lifecycle.patience import TRIES
from moyai.spec.load import parse
from tests.unit.lifecycle_world import World, whole

CALLS = ("networks.create_network", "machines.create_server", "firewall.create_security_group", "addresses.create_floating_ip")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def up(world: World, spec: str = "", *, replaced: str = "") -> list[str]:
    """The notes of an `up`."""
    notes: list[str] = []

    def sink(event: Event) -> None:
        if event.kind == "note":
            notes.append(event.detail or event.step)

    reporter = Reporter(sink, clock=world.clock)
    building.up(parse(spec), world.cloud, paths=world.paths, reporter=reporter, clock=world.clock, replaced=replaced)
    return notes


def fail(world: World, call: str, *, times: int = 1, after: bool = False) -> None:
    world.cloud.faults.fail_next(call, Retriable(f"{call}: the cloud answered 500"), times=times, after=after)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", CALLS)
def test_a_call_that_fails_once_is_made_good(world: World, call: str, after: bool) -> None:
    fail(world, call, after=after)
    notes = up(world)
    assert f"{call}: the cloud answered 500: looking again in 2 s (1 of {TRIES})" in notes
    assert world.names() == whole()
    assert not world.up().changed


def test_a_list_that_fails_is_read_again(world: World) -> None:
    fail(world, "machines.servers", times=2)
    assert len([note for note in up(world) if "looking again" in note]) == 2
    assert world.names() == whole()


def test_a_cloud_that_fails_on_and_on_ends_it(world: World) -> None:
    fail(world, "machines.create_server", times=100)
    with pytest.raises(Retriable, match="the cloud answered 500"):
        up(world)
    assert world.cloud.faults.failure("machines.create_server"), "it did not try for ever"


def test_what_no_further_try_mends_ends_it_at_once(world: World) -> None:
    world.cloud.faults.fail_next("machines.create_server", Terminal("quota exceeded"))
    with pytest.raises(Terminal, match="quota exceeded"):
        up(world)


def test_a_replacement_that_fails_in_the_middle_is_still_one(world: World) -> None:
    spec = "spec: {controlPlane: {replicas: 3}, nodePools: []}"
    world.up(spec)
    fail(world, "networks.create_port")
    notes = up(world, spec, replaced="quickstart-control-plane-0")
    assert any("looking again" in note for note in notes)
    names = {one.name for one in world.store.servers}
    assert names == {f"quickstart-control-plane-{number}" for number in (1, 2, 3)}
    assert not world.kube().etcd.broken
