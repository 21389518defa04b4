"""A restore is rehearsed beside the living cluster: what the throw-away machine gets, what is read, and that nothing stays."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moyai.cloud.memory import Killed
from moyai.core.errors import MoyaiError, Retriable, Terminal, UsageError
from moyai.core.progress import Reporter
from moyai.kube.resources import CONFIG_MAPS, NAMESPACES, SECRETS
from moyai.lifecycle import rehearse as rehearsing
from moyai.lifecycle.backup.schedule import backup_status
from moyai.lifecycle.rehearse import Rehearsal
from tests.fakes.cluster_api import ClusterApi
from tests.unit.lifecycle_world import World
from tests.unit.test_backup import BY_KEY
from tests.unit.test_restore import back_up, record, world_at

SPEC = "spec: {controlPlane: {replicas: 3}, nodePools: [{replicas: 2}]}"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = world_at(tmp_path / "world", monkeypatch)

    def open_api(found: object) -> object:
        api = made.open_api(found)  # type: ignore[arg-type]
        if isinstance(api, ClusterApi) and not api.names(NAMESPACES):
            # as the backup's etcd has them
            api.store.put(NAMESPACES, {"metadata": {"name": "default"}})
        return api

    monkeypatch.setattr(rehearsing, "open_api", open_api)
    made.up(SPEC)
    back_up(made)
    return made


def rehearse(world: World) -> Rehearsal:
    return rehearsing.rehearse(
        world.paths.state.parent / "b",
        BY_KEY,
        cloud_name="",
        connect=lambda _: world.cloud,
        paths=world.paths,
        reporter=Reporter(clock=world.clock),
        clock=world.clock,
        etcdutl=lambda: Path("etcdutl"),
    )


def test_one_machine_of_its_own_is_made_and_nothing_stays(world: World) -> None:
    before, made = world.all_names(), list[str]()
    uid = record(world).uid
    data: list[str] = []
    world.store.servers.watch(lambda was, now: made.append(now.name) if was is None and now else None)
    create = world.cloud.machines.create_server

    def kept(**words: object) -> object:
        data.append(str(words["user_data"]))
        assert uid not in json.dumps(words["metadata"]), "nothing of the cloud is taken for the living cluster's"
        return create(**words)  # type: ignore[arg-type]

    world.cloud.machines.create_server = kept  # type: ignore[method-assign,assignment]
    found = rehearse(world)
    assert dict(found.found)["namespaces"] == 1
    (name,) = made
    assert name.startswith("rehearsal-")
    assert world.all_names() == before
    assert not list((world.paths.state / "rehearsals/clusters").glob("[!.]*"))
    assert not world.up(SPEC).changed, "the living cluster is as it was"


def test_no_credential_is_made_for_it(world: World) -> None:
    issued = dict(world.store.credentials)
    calls: list[str] = []
    create = world.cloud.credentials.create_credential
    world.cloud.credentials.create_credential = lambda **words: calls.append("made") or create(**words)  # type: ignore[method-assign,assignment]
    rehearse(world)
    assert calls == []
    assert dict(world.store.credentials) == issued


def test_its_success_is_in_the_status(world: World) -> None:
    assert backup_status(record(world), now=world.clock.now()) is None
    rehearse(world)
    found = backup_status(record(world), now=world.clock.now())
    assert found
    assert (found.rehearsed[:4], found.rehearsed_file, found.problems) == ("2026", "b", ())


@pytest.mark.parametrize("kind", [SECRETS, CONFIG_MAPS])
def test_what_cannot_be_read_is_said_and_nothing_stays(world: World, kind: object, monkeypatch: pytest.MonkeyPatch) -> None:
    before = world.all_names()
    listed = ClusterApi.list

    def unreadable(self: ClusterApi, resource: object, **words: object) -> object:
        if resource == kind and self is not world.kube():
            raise Retriable("Kubernetes answered 500: no matching key was found for the provided Secretbox transformer")
        return listed(self, resource, **words)  # type: ignore[arg-type]

    monkeypatch.setattr(ClusterApi, "list", unreadable)
    with pytest.raises(Terminal, match=r"the backup was restored, but its .* cannot be read: .*no matching key"):
        rehearse(world)
    assert world.all_names() == before
    assert backup_status(record(world), now=world.clock.now()) is None


def test_a_file_that_is_none_makes_nothing(world: World) -> None:
    (world.paths.state.parent / "b").write_bytes(b"age-encryption.org/v1\nnonsense")
    before = world.mortal.changes
    with pytest.raises(UsageError, match="cannot be read"):
        rehearse(world)
    assert world.mortal.changes == before


def test_a_cloud_that_fails_leaves_nothing(world: World) -> None:
    before = world.all_names()
    world.cloud.faults.fail_next("machines.create_server", Terminal("quota exceeded"))
    with pytest.raises(MoyaiError, match="quota exceeded"):
        rehearse(world)
    assert world.all_names() == before


@pytest.mark.exhaustive
def test_what_a_killed_rehearsal_left_goes_with_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    before, number, killed = world.all_names(), 1, True
    while killed:
        killed = False
        world.mortal.kill_at(number, after=True)
        try:
            rehearse(world)
        except Killed:
            killed = True
        world.mortal.revive()
        world.store.settle()
        if killed:
            rehearse(world)
        assert world.all_names() == before, f"killed at change {number}"
        number += 1
    assert number > 15
