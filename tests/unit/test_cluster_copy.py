"""The record's copy in the cluster, through whole commands: what is in it when, and what happens where the API is silent."""

from __future__ import annotations

import base64
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from moyai.bootstrap import pki
from moyai.cloud.model import Server
from moyai.core.errors import Terminal
from moyai.core.ids import CLUSTER_RECORD
from moyai.core.paths import Paths
from moyai.core.progress import Event, Reporter
from moyai.core.yamlread import read_one
from moyai.kube.resources import KUBE_SYSTEM, LEASES, SECRETS
from moyai.lifecycle import record_files
from moyai.lifecycle import up as building
from moyai.lifecycle.cluster_copy import ClusterCopy, parse_copy
from moyai.lifecycle.record import Record
from moyai.lifecycle.record_files import COPY_STATE
from moyai.lifecycle.work import Overtaken, take_newer, working
from moyai.spec.load import parse
from tests.unit.lifecycle_world import World

THREE = "spec: {nodePools: [{replicas: 3}]}"
FOUR = "spec: {nodePools: [{replicas: 4}]}"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def _copy(world: World) -> ClusterCopy:
    return parse_copy(world.kube().store.find(SECRETS, CLUSTER_RECORD, namespace=KUBE_SYSTEM))


def _here(world: World) -> dict[str, bytes]:
    return record_files.read(world.paths.clusters / "quickstart")


def _colleague(world: World, tmp_path: Path) -> Paths:
    """Another machine with a copy of the record."""
    other = Paths(tmp_path / "cache", tmp_path / "colleague")
    other.make_state("clusters")
    shutil.copytree(world.paths.clusters / "quickstart", other.clusters / "quickstart")
    (other.clusters / "quickstart" / COPY_STATE).unlink()
    return other


def _up(world: World, paths: Paths, *, spec: str) -> list[str]:
    """On this machine; what people are told."""
    told: list[str] = []

    def sink(event: Event) -> None:
        if event.kind == "note":
            told.append(event.detail)

    cluster, reporter = parse(spec), Reporter(sink, clock=world.clock)
    building.up(cluster, world.cloud, paths=paths, reporter=reporter, clock=world.clock)
    return told


def test_the_copy_is_the_record_and_the_lease_is_handed_back(world: World) -> None:
    world.up()
    found = _copy(world)
    assert found.files == _here(world)
    assert {"record.json", "secrets.json", "pki/ca.key", "pki/etcd/ca.key"} <= set(found.files)
    assert "kubeconfig" not in found.files
    assert found.uid == next(iter(world.kubes))
    secret = world.kube().store.find(SECRETS, CLUSTER_RECORD, namespace=KUBE_SYSTEM)
    assert secret["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "moyai"
    assert world.kube().store.find(LEASES, CLUSTER_RECORD, namespace=KUBE_SYSTEM)["spec"]["holderIdentity"] == ""


def test_a_change_is_in_the_cluster_before_the_cloud_is_asked(world: World) -> None:
    world.up()
    seen: list[str] = []

    def watch(before: Server | None, after: Server | None) -> None:
        if before is None and after is not None:
            found = _copy(world)
            assert found.files == _here(world)
            assert after.name in found.files["record.json"].decode()
            seen.append(after.name)

    world.store.servers.watch(watch)
    world.up(THREE)
    assert seen == ["quickstart-workers-2"]


def test_a_change_of_the_record_is_one_request_at_most(world: World) -> None:
    world.up()
    record = Record.open(world.paths, "quickstart")
    assert record is not None
    calls = world.kube().store.calls
    before, writes = calls.copy(), record_files.serial(_here(world))
    world.up(FOUR)
    assert 0 < calls["replace secrets"] - before["replace secrets"] <= record_files.serial(_here(world)) - writes
    assert calls["get secrets"] - before["get secrets"] == 1
    before = calls.copy()
    assert not world.up(FOUR).changed
    assert calls["replace secrets"] == before["replace secrets"]


def test_nothing_is_asked_before_the_api_has_answered(world: World) -> None:
    opened: list[bool] = []
    real = world.open_api

    def open_api(record: Record) -> object:
        opened.append(record.ready)
        return real(record)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("moyai.lifecycle.work.open_api", open_api)
        world.up()
    assert opened
    assert all(opened)


def test_a_cluster_without_a_copy_gets_one(world: World) -> None:
    world.up()
    world.kube().store.vanish(SECRETS, CLUSTER_RECORD, namespace=KUBE_SYSTEM)
    (world.paths.clusters / "quickstart" / COPY_STATE).unlink()
    assert not world.up().changed
    assert _copy(world).files == _here(world)


def test_a_copy_that_is_deleted_in_the_middle_is_made_again(world: World) -> None:
    world.up()
    with working(world.paths, "quickstart", command="test", clock=world.clock) as work:
        world.kube().store.vanish(SECRETS, CLUSTER_RECORD, namespace=KUBE_SYSTEM)
        record = Record.open(world.paths, "quickstart", mirror=work)
        assert record is not None
        record.publish()
        assert _copy(world).files == _here(world)


def test_while_the_api_is_silent_the_record_goes_on_and_the_copy_catches_up(world: World) -> None:
    world.up()
    told: list[str] = []
    with working(world.paths, "quickstart", command="test", clock=world.clock, tell=told.append) as work:
        record = Record.open(world.paths, "quickstart", mirror=work)
        assert record is not None
        world.kube().mute = True
        record.keep_secret("a", "1")
        assert _copy_is_behind(world)
        # asked again only after a while
        world.kube().mute = False
        record.keep_secret("a", "2")
        assert _copy_is_behind(world)
        world.clock.sleep(60)
        record.keep_secret("a", "3")
        assert _copy(world).files == _here(world)
        world.kube().mute = True
        record.keep_secret("a", "4")
    assert told == [
        "the record's copy in the cluster may be behind this machine's: the API at https://192.0.2.1:6443 does not answer"
    ]
    world.kube().mute = False
    world.up()
    assert _copy(world).files == _here(world)


def _copy_is_behind(world: World) -> bool:
    return _copy(world).facts.serial < record_files.serial(_here(world))


def test_a_command_that_began_in_silence_takes_the_lease_later(world: World) -> None:
    world.up()
    world.kube().mute = True
    with working(world.paths, "quickstart", command="test", clock=world.clock) as work:
        record = Record.open(world.paths, "quickstart", mirror=work)
        assert record is not None
        world.kube().mute = False
        world.clock.sleep(60)
        record.publish()
        lease = world.kube().store.find(LEASES, CLUSTER_RECORD, namespace=KUBE_SYSTEM)
        assert lease["metadata"]["annotations"]["moyai.dev/command"] == "test"


def test_a_colleagues_work_is_taken_over_by_the_next_command(world: World, tmp_path: Path) -> None:
    world.up()
    other = _colleague(world, tmp_path)
    _up(world, other, spec=THREE)
    told: list[str] = []
    take_newer(world.paths, "quickstart", tell=told.append, clock=world.clock)
    assert len(told) == 1
    assert "is older than the cluster's (write" in told[0]
    assert "which takes its place" in told[0]
    assert _here(world) == record_files.read(other.clusters / "quickstart")
    take_newer(world.paths, "quickstart", tell=told.append, clock=world.clock)
    assert len(told) == 1
    _up(world, world.paths, spec=FOUR)
    assert any("is older than the cluster's" in line for line in _up(world, other, spec=FOUR))
    assert record_files.read(other.clusters / "quickstart") == _here(world)


def test_whoever_is_overtaken_does_nothing_more(world: World, tmp_path: Path) -> None:
    world.up()
    other = _colleague(world, tmp_path)
    with working(world.paths, "quickstart", command="test", clock=world.clock) as work:
        record = Record.open(world.paths, "quickstart", mirror=work)
        assert record is not None
        # the way to the API was cut so long that a colleague took over
        lease = world.kube().store.find(LEASES, CLUSTER_RECORD, namespace=KUBE_SYSTEM)
        world.kube().store.put(LEASES, {**lease, "spec": {**lease["spec"], "holderIdentity": ""}})
        _up(world, other, spec=THREE)
        with pytest.raises(Overtaken, match=r"the record was changed \(write \d+, by .* on cluster quickstart meanwhile"):
            record.publish()
    # what only this machine has begun is not forgotten, and all else is the colleague's
    assert any("only this machine has begun" in line for line in _up(world, world.paths, spec=THREE))


def test_the_cluster_of_another_record_is_left_alone(world: World) -> None:
    world.up()
    store = world.kube().store
    found = store.find(SECRETS, CLUSTER_RECORD, namespace=KUBE_SYSTEM)
    notes = {**found["metadata"]["annotations"], "moyai.dev/cluster-uid": "another"}
    store.put(SECRETS, {**found, "metadata": {**found["metadata"], "annotations": notes}})
    told = _up(world, world.paths, spec="")
    assert any("is that of another cluster (another instead of" in line for line in told)
    assert _copy(world).uid == "another"


def test_a_damaged_copy_is_left_alone_and_said(world: World) -> None:
    world.up()
    store = world.kube().store
    found = store.find(SECRETS, CLUSTER_RECORD, namespace=KUBE_SYSTEM)
    store.put(SECRETS, {**found, "data": {"record": "bm90aGluZw=="}})
    told = _up(world, world.paths, spec="")
    assert any("Secret kube-system/moyai-record cannot be read: it is damaged" in line for line in told)
    with pytest.raises(Terminal, match="delete the Secret"):
        parse_copy(store.find(SECRETS, CLUSTER_RECORD, namespace=KUBE_SYSTEM))


def test_a_cluster_goes_also_where_its_api_does(world: World) -> None:
    world.up()
    world.kube().mute = True
    assert not world.down().left
    assert Record.open(world.paths, "quickstart") is None


def test_somebody_elses_label_is_no_change(world: World) -> None:
    world.up()
    with working(world.paths, "quickstart", command="test", clock=world.clock) as work:
        record = Record.open(world.paths, "quickstart", mirror=work)
        assert record is not None
        store = world.kube().store
        found = store.find(SECRETS, CLUSTER_RECORD, namespace=KUBE_SYSTEM)
        store.put(SECRETS, {**found, "metadata": {**found["metadata"], "labels": {"a": "b"}}})
        record.publish()
    assert _copy(world).files == _here(world)
    assert replace(_copy(world).facts, identity="").serial == record_files.serial(_here(world))


def test_a_look_keeps_no_command_from_its_work(world: World) -> None:
    world.up()
    store, began = world.kube().store, list[bool]()

    def call(name: str, after: bool) -> None:
        if name == "get secrets" and not after and not began:
            began.append(True)
            with working(world.paths, "quickstart", command="test", clock=world.clock):
                began.append(True)

    store.on_call = call
    take_newer(world.paths, "quickstart", tell=lambda _: None, clock=world.clock)
    assert began == [True, True]


def test_a_colleagues_new_authority_gives_this_machine_a_new_kubeconfig(world: World, tmp_path: Path) -> None:
    world.up()
    other = _colleague(world, tmp_path)
    with working(other, "quickstart", command="test", clock=world.clock) as work:
        record = Record.open(other, "quickstart", mirror=work)
        assert record is not None
        for name in ("ca.crt", "ca.key"):
            (record.folder / "pki" / name).unlink()
        pki.ensure(record.folder / "pki", world.clock)
        record.publish()
    old = (world.paths.clusters / "quickstart" / "kubeconfig").read_text()
    take_newer(world.paths, "quickstart", tell=lambda _: None, clock=world.clock)
    new = read_one((world.paths.clusters / "quickstart" / "kubeconfig").read_text())
    authority = base64.b64decode(new["clusters"][0]["cluster"]["certificate-authority-data"])
    assert authority == (record.folder / "pki" / "ca.crt").read_bytes()
    assert read_one(old) != new
