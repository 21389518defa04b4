"""Which clusters a cloud holds: by tags alone, with the records of this machine beside them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from moyai.cloud.memory.machines import powered
from moyai.core.paths import Paths
from moyai.lifecycle.cluster_list import ListedCluster, list_clusters
from moyai.spec.model import Cluster
from tests.unit.lifecycle_world import World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_a_colleague_sees_the_cluster_without_a_record(world: World, tmp_path: Path) -> None:
    uid = world.up().uid
    mine = ListedCluster("quickstart", uid, 1, 2, running=3, recorded=True)
    assert list_clusters(world.cloud, world.paths) == [mine]
    elsewhere = Paths(tmp_path / "other-cache", tmp_path / "other")
    assert list_clusters(world.cloud, elsewhere) == [replace(mine, recorded=False)]


def test_machines_that_do_not_run_are_counted(world: World) -> None:
    world.up()
    servers = world.cloud.store.servers
    servers.put(powered(next(iter(servers)), on=False))
    (found,) = list_clusters(world.cloud, world.paths)
    assert (found.control_planes + found.workers, found.running) == (3, 2)


def test_a_record_whose_cluster_is_gone_is_listed(world: World) -> None:
    uid = world.up().uid
    store = world.cloud.store
    world.cloud.name = Cluster().spec.cloud
    for table in (store.servers, store.routers, store.networks):
        for one in list(table):
            table.drop(one.id)
    assert list_clusters(world.cloud, world.paths) == [
        ListedCluster("quickstart", uid, 0, 0, running=0, recorded=True, in_cloud=False)
    ]


def test_a_damaged_record_hides_no_cluster(world: World) -> None:
    uid = world.up().uid
    (world.paths.clusters / "quickstart" / "record.json").write_text("{")
    (found,) = list_clusters(world.cloud, world.paths)
    assert (found.uid, found.recorded) == (uid, False)
