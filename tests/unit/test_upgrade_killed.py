"""An upgrade that is killed before each of its steps, and its way back: the next run finishes it, also when a worker has died
meanwhile; each machine is made once, no kubelet is ever newer than an API server, and the record says where it stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from moyai.cloud.memory import Killed
from moyai.cloud.model import Image, Power, Server
from moyai.core.ids import TEMPLATE_KEY
from moyai.core.kubernetes_version import version_numbers
from moyai.core.progress import Reporter
from moyai.lifecycle import execute
from moyai.lifecycle import up as building
from moyai.lifecycle import upgrade as upgrading
from moyai.lifecycle.record import Record
from moyai.plan.machine_template import made_with
from moyai.plan.versions import Stage, Wish
from tests.unit.lifecycle_world import World
from tests.unit.test_lifecycle_prefixes import Cut, unsafe

pytestmark = pytest.mark.exhaustive

#: One control plane and one worker have all kinds of steps of an upgrade; ``test_rollout_killed`` has more machines.
SPEC = "spec: {controlPlane: {endpoint: vrrp}, nodePools: [{replicas: 1}]}"
#: What is finalized are control planes alone.
PLANES = "spec: {controlPlane: {endpoint: vrrp}, nodePools: []}"
OLD, NEXT = "1.37.1", "1.38.2"
#: The spec; what is asked for after what was done before; the version of all machines in the end, and how many there are.
CASES: dict[str, tuple[str, tuple[Wish, ...], Wish, str, int]] = {
    "there": (SPEC, (), Wish(NEXT), NEXT, 2),
    "back": (SPEC, (Wish(NEXT),), Wish(back=True), OLD, 2),
    "for good": (PLANES, (Wish(NEXT),), Wish(final=True), NEXT, 1),
}


class Skewed:
    """Kubelets that were newer than an API server that ran, or two minor versions older."""

    def __init__(self, world: World) -> None:
        self.world, self.made, self.found = world, 0, list[str]()
        world.store.servers.watch(self._server)

    def _server(self, before: Any, _after: Any) -> None:
        self.made += before is None
        running = [one for one in self.world.store.servers if one.power is Power.RUNNING]
        planes = [made_with(one.metadata[TEMPLATE_KEY]) for one in running if "control-plane" in one.name]
        for one in running:
            version = made_with(one.metadata[TEMPLATE_KEY])
            if "workers" in one.name and any(version_numbers(version) > version_numbers(plane) for plane in planes):
                self.found.append(f"{one.name} {version} beside {planes}")


def run(world: World, wish: Wish) -> None:
    reporter = Reporter(clock=world.clock)
    upgrading.upgrade("quickstart", world.cloud, wish=wish, paths=world.paths, reporter=reporter, clock=world.clock)


def workers(world: World) -> list[Server]:
    return [one for one in world.store.servers if "workers" in one.name]


def prepared(folder: Path, monkeypatch: pytest.MonkeyPatch, *, spec: str, before: tuple[Wish, ...]) -> World:
    world = World(folder, monkeypatch)
    world.store.images.put(Image(NEXT, f"moyai-node-{NEXT}", "ACTIVE"))
    world.up(spec)
    for wish in before:
        run(world, wish)
    return world


@pytest.mark.parametrize("name", CASES)
def test_an_upgrade_that_is_killed_goes_on(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "WORKERS", 1)
    monkeypatch.setattr(building, "new_uid", lambda: "0123456789")
    spec, before, wish, end, machines = CASES[name]
    table, number, killed = execute.table, 0, True
    while killed:
        where = f"cut at step {number}"
        world = prepared(tmp_path / str(number), monkeypatch, spec=spec, before=before)
        skewed = Skewed(world)
        with monkeypatch.context() as patch:
            patch.setattr(execute, "table", Cut(number, after=False).wrapped(table))
            try:
                run(world, wish)
                killed = False
            except Killed:
                # what was begun is on record, and `up` neither carries it further nor takes it back
                record = Record.open(world.paths, "quickstart")
                assert record, where
                assert record.upgrade, where
                assert record.upgrade.stage is not Stage.SOAKING, where
        dies = killed and number % 2 == 1 and bool(workers(world))
        if dies:
            # a second fault in the middle: what is made in its place must not be newer than an API server either
            world.cloud.machines.delete_server(workers(world)[0].id)
            world.store.settle()
        if killed:
            run(world, Wish())
        found = {made_with(one.metadata[TEMPLATE_KEY]) for one in world.store.servers}
        assert (found, len(world.store.servers)) == ({end}, machines), where
        assert skewed.made == machines or dies, where
        assert not skewed.found, where
        assert not unsafe(world), where
        assert not world.up(spec).changed, where
        number += 1
    assert number > 10
