"""A cluster is made again from a backup: on what conditions, with what, and what it never takes away."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from moyai.cloud.load_balancers import LoadBalancer
from moyai.cloud.model import DiskState, Volume
from moyai.core.errors import MoyaiError, UsageError
from moyai.core.ids import CLUSTER_TAG, cluster_tag
from moyai.core.progress import Reporter
from moyai.kube.resources import SERVICES, VOLUMES
from moyai.lifecycle import backup as backups
from moyai.lifecycle import restore_cluster as restoring
from moyai.lifecycle.etcd_data import EtcdData
from moyai.lifecycle.record import Record
from moyai.lifecycle.restore_cluster import RestoreResult, RestoreWish
from moyai.plan import text
from moyai.plan.graph import Plan
from moyai.plan.steps import CreateServer
from moyai.spec.load import parse
from tests.unit.lifecycle_world import World, whole
from tests.unit.test_backup import BY_KEY, FOR_KEY, use_apis
from tests.unit.test_plan_control_planes import THREE

PLANE = "quickstart-control-plane-0"
MADE: list[tuple[str, str]] = []


def world_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(folder, monkeypatch)
    use_apis(world, monkeypatch)
    monkeypatch.setattr(restoring, "open_api", world.open_api)
    monkeypatch.setattr(restoring, "make_etcd_data", etcd_data)
    return world


def etcd_data(snapshot: Path, file: Path, *, etcdutl: Path, name: str, address: str) -> EtcdData:
    """As etcdutl makes it: of the snapshot, for one member."""
    content = snapshot.read_bytes()
    assert hashlib.sha256(content[:-32]).digest() == content[-32:]
    data = f"{name} {address} ".encode() + content[:-32]
    file.write_bytes(data)
    return EtcdData(file, len(data), hashlib.sha256(data).hexdigest())


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = world_at(tmp_path / "world", monkeypatch)
    made.up()
    back_up(made)
    return made


def back_up(world: World, name: str = "b") -> Path:
    file = world.paths.state.parent / name
    backups.take(
        "quickstart", file, recipients=FOR_KEY, replaces=False, paths=world.paths, reporter=Reporter(), clock=world.clock
    )
    return file


def restore(world: World, wanted: RestoreWish = RestoreWish(), *, file: Path | None = None) -> RestoreResult:  # noqa: B008
    return restoring.restore(
        file or world.paths.state.parent / "b",
        BY_KEY,
        wanted=wanted,
        connect=lambda _: world.cloud,
        paths=world.paths,
        reporter=Reporter(clock=world.clock),
        clock=world.clock,
        etcdutl=lambda: Path("etcdutl"),
    )


def preview(world: World, wanted: RestoreWish = RestoreWish()) -> Plan:  # noqa: B008
    return restoring.preview(
        world.paths.state.parent / "b", BY_KEY, wanted=wanted, connect=lambda _: world.cloud, paths=world.paths,
        clock=world.clock,
    )  # fmt: skip


def lose(world: World, *words: str) -> None:
    """Machines whose names have one of the words are deleted in the cloud, and what ran on them is gone."""
    for server in list(world.store.servers):
        if any(word in server.name for word in words):
            world.cloud.machines.delete_server(server.id)
    world.store.settle()
    if "control-plane" in words:
        world.kubes.clear()


def record(world: World) -> Record:
    found = Record.open(world.paths, "quickstart", clock=world.clock)
    assert found is not None
    return found


def test_the_plan_begins_with_the_data(world: World) -> None:
    lose(world, "control-plane", "workers")
    lines = text.lines(preview(world))
    sent = next(line for line in lines if "send etcd's data from the backup to server quickstart-control-plane-0" in line)
    waits = next(line for line in lines if "wait until the Kubernetes API answers" in line)
    assert f"{int(sent.split()[0])}" in waits.partition("after ")[2].rstrip(")").split(", ")
    (founder,) = [one for one in preview(world).steps if isinstance(one, CreateServer) and one.first]
    assert (founder.node.name, founder.living, bool(founder.restores)) == (PLANE, (), True)


def test_a_cluster_whose_machines_are_gone_is_made_again(world: World) -> None:
    before = record(world)
    lose(world, "control-plane", "workers")
    done = restore(world)
    after = record(world)
    assert world.names() == whole()
    assert (after.uid, after.allocations, after.restores, done.unknown) == (before.uid, before.allocations, "", ())
    assert world.kube().sent == b"quickstart-control-plane-0 10.8.0.10 etcd's database"
    assert not (after.folder / "restore").exists()
    assert not world.up().changed
    kept = ("encryption-key",)
    assert {name: after.secret(name) for name in kept} == {name: before.secret(name) for name in kept}
    assert (after.folder / "pki/ca.key").read_bytes() == (
        world.paths.state / "restores/quickstart.before/pki/ca.key"
    ).read_bytes()


def test_down_removes_the_keys_of_the_record_that_was_replaced(world: World) -> None:
    lose(world, "control-plane", "workers")
    restore(world)
    world.down()
    assert list(world.paths.state.rglob("*.key")) == []


def test_workers_that_run_go_on(world: World) -> None:
    lose(world, "control-plane")
    workers = {one.name: one.id for one in world.store.servers}
    (founder,) = [one for one in preview(world).steps if isinstance(one, CreateServer)]
    assert founder.living == ("quickstart-workers-0", "quickstart-workers-1")
    restore(world)
    assert {one.name: one.id for one in world.store.servers if "workers" in one.name} == workers


def test_it_is_made_in_another_cloud_from_nothing(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = world_at(tmp_path / "other", monkeypatch)
    restore(other, RestoreWish(cloud="second"), file=world.paths.state.parent / "b")
    assert other.names() == whole()
    assert record(other).cloud == "second"
    assert record(other).uid == next(iter(world.kubes))


def test_several_control_planes_come_back_from_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = world_at(tmp_path, monkeypatch)
    world.up(THREE)
    back_up(world)
    lose(world, "control-plane")
    restore(world)
    assert sorted(world.kube().etcd.members) == [f"quickstart-control-plane-{number}" for number in range(3)]
    assert world.kube().etcd.broken == []


# ---- what is refused


def state(world: World) -> object:
    files = {one: one.read_bytes() for one in sorted(world.paths.clusters.rglob("*")) if one.is_file()}
    left = sorted(one.name for one in (world.paths.state / "restores").iterdir() if one.name != ".lock")
    return files, world.all_names(), left


def living(world: World) -> str:
    return "cluster quickstart lives: its API at .* answers: a backup replaces no living cluster"


def silent(world: World) -> str:
    world.kube().mute = True
    return "cluster quickstart has machines of its control plane: quickstart-control-plane-0: mend them"


def another(world: World) -> str:
    lose(world, "control-plane", "workers")
    file = world.paths.clusters / "quickstart" / "record.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "uid": "other"}))
    return r"this machine knows another cluster quickstart \(other\) than that of the backup"


def cut_off(world: World) -> str:
    lose(world, "control-plane", "workers")
    file = world.paths.state.parent / "b"
    file.write_bytes(file.read_bytes()[:-1])
    return "cannot be read: it is cut off or was changed"


def without_room(world: World) -> str:
    lose(world, "control-plane", "workers")
    world.store.images.drop("img")
    return "image"


@pytest.mark.parametrize("case", [living, silent, another, cut_off, without_room])
def test_what_cannot_be_is_refused_and_nothing_is_changed(world: World, case: Callable[[World], str]) -> None:
    (world.paths.state / "restores").mkdir()
    why = case(world)
    before = state(world)
    for attempt in (restore, preview):
        with pytest.raises(MoyaiError, match=why):
            attempt(world)
        assert state(world) == before


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ("metadata: {name: other}", "metadata.name: 'other', should be 'quickstart', whose backup this is"),
        (
            "spec: {network: {serviceCIDR: 10.112.0.0/16}}",
            "spec.network.serviceCIDR: '10.112.0.0/16', should be '.*' as in the",
        ),
    ],
)
def test_a_spec_that_the_backup_cannot_become_is_refused(world: World, spec: str, why: str) -> None:
    lose(world, "control-plane", "workers")
    with pytest.raises(UsageError, match=why):
        restore(world, RestoreWish(spec=parse(spec)))
    assert record(world).restores == ""


def test_a_changed_spec_may_have_other_machines(world: World) -> None:
    lose(world, "control-plane", "workers")
    restore(world, RestoreWish(spec=parse("spec: {nodePools: [{replicas: 1}]}")))
    assert sorted(one.name for one in world.store.servers) == [PLANE, "quickstart-workers-0"]


def test_a_snapshot_that_etcd_does_not_take_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> EtcdData:
        raise UsageError("etcd does not take the snapshot")

    monkeypatch.setattr(restoring, "make_etcd_data", refuse)
    lose(world, "control-plane", "workers")
    (world.paths.state / "restores").mkdir()
    before = state(world)
    with pytest.raises(UsageError, match="etcd does not take the snapshot"):
        restore(world)
    assert state(world) == before


# ---- what the backup does not know


def test_what_the_backup_does_not_know_is_reported_and_stays(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.up("spec: {nodePools: [{replicas: 3}]}")
    uid = record(world).uid
    tag = cluster_tag(uid)
    subnet = next(one.id for one in world.store.subnets if tag in one.tags)
    for name in ("web", "new"):
        world.cloud.load_balancers.create(
            LoadBalancer(name=f"kube_service_quickstart_default_{name}", vip_subnet_id=subnet, tags=(tag,))
        )
    for name in ("known", "young"):
        world.store.volumes.put(
            Volume(name, f"pvc-{name}", "available", 1, metadata={CLUSTER_TAG: uid}, state=DiskState.AVAILABLE)
        )
    world.store.settle()
    lose(world, "control-plane")
    opened = world.open_api

    def with_objects(found: Record) -> object:
        api = opened(found)
        if api is not None:
            api.store.put(SERVICES, {"metadata": {"namespace": "default", "name": "web"}, "spec": {}})
            source = {"driver": "disks.memory.test", "volumeHandle": "known"}
            api.store.put(VOLUMES, {"metadata": {"name": "pv"}, "spec": {"csi": source}})
        return api

    monkeypatch.setattr(restoring, "open_api", with_objects)
    before = [line for line in world.all_names() if not line.startswith(("credential", "keypair"))]
    done = restore(world)
    assert set(before) <= set(world.all_names()), "nothing went"
    assert [line.partition(" (")[0] for line in done.unknown] == [
        "load balancer kube_service_quickstart_default_new",
        "volume pvc-young",
    ]
    (note,) = [one for one in done.up.notes if "workers-2" in one]
    assert note.startswith("node quickstart-workers-2 is in the cloud, and the backup does not know it: it stays")
