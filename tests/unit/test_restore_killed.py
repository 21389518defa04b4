"""A restore that was interrupted goes on, two do not meet, and a file that somebody else has made does no harm."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from moyai.cloud.memory import Killed
from moyai.core.errors import Terminal, UsageError
from moyai.core.locks import file_lock
from moyai.lifecycle import backup as backups
from moyai.lifecycle import execute
from moyai.lifecycle.backup.backup_archive import BackupEntry, BackupEntryFacts, BackupManifest, write
from moyai.lifecycle.backup.encryption import encrypt
from tests.fakes.cluster_api import ClusterApi
from tests.unit.lifecycle_world import World, whole
from tests.unit.test_backup import BY_KEY, FOR_KEY
from tests.unit.test_restore import back_up, lose, preview, record, restore, world, world_at

__all__ = ["world"]


def test_keys_that_a_killed_run_left_go_with_the_next_run(world: World) -> None:
    left = world.paths.state / "restores/reading/clusters/quickstart/secrets.json"
    left.parent.mkdir(parents=True)
    left.write_text("{}")
    lose(world, "control-plane", "workers")
    preview(world)
    assert [one.name for one in (world.paths.state / "restores").iterdir()] == [".lock"]


def test_two_restores_do_not_read_at_once(world: World) -> None:
    lose(world, "control-plane", "workers")
    folder = world.paths.make_state("restores")
    with file_lock(folder / ".lock", print), pytest.raises(Terminal, match=r"another moyai .* restores a backup"):
        preview(world)


@pytest.mark.parametrize("name", ["../../escaped", "", "a/b", "Quickstart"])
def test_a_file_that_somebody_else_made_writes_nowhere_else(world: World, name: str) -> None:
    """age says that nobody has changed a file, not who has made it."""
    lose(world, "control-plane", "workers")
    found = backups.read(world.paths.state.parent / "b", BY_KEY)

    def manifest(entries: tuple[BackupEntryFacts, ...]) -> BackupManifest:
        return replace(found.manifest, cluster=name, entries=entries)

    file = world.paths.state.parent / "forged"
    record = json.dumps({**json.loads(found.files["record.json"]), "name": name}).encode()
    entries = [BackupEntry.of(one, content) for one, content in {**found.files, "record.json": record}.items()]
    with file.open("wb") as stream:
        encrypt(write([*entries, BackupEntry.of("etcd.snapshot", b"")], manifest), stream, recipients=FOR_KEY)
    with pytest.raises(UsageError, match="which is no cluster's name"):
        restore(world, file=file)
    assert not (world.paths.state.parent / "escaped").exists()


def test_up_does_not_go_on_with_a_restore(world: World) -> None:
    lose(world, "control-plane", "workers")
    world.mortal.kill_at(3, after=True)
    with pytest.raises(Killed):
        restore(world)
    world.mortal.revive()
    with pytest.raises(Terminal, match="cluster quickstart is being restored from a backup: `moyai restore FILE` goes on"):
        world.up()
    restore(world)
    assert not world.up().changed


def test_another_backup_does_not_go_on_with_a_restore(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the same cluster, but younger: its machine may have the data of the first one."""
    world.clock.sleep(60)
    second = back_up(world, "c")
    lose(world, "control-plane", "workers")

    def killed(*_: object, **__: object) -> tuple[int, str]:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(ClusterApi, "send", killed)
        with pytest.raises(Killed):
            restore(world)
    with pytest.raises(UsageError, match="has machines of its control plane"):
        restore(world, file=second)
    restore(world)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("anew", "after"),
    [(False, False), (False, True), (True, True)],
    ids=["machines-before", "machines-after", "everything-after"],
)
def test_a_restore_killed_at_every_change_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, anew: bool, after: bool
) -> None:
    """Where machines alone are lost, and in a cloud that has nothing of the cluster."""
    # nobody looks at machines while this one waits for one of them to take the data
    monkeypatch.setattr(execute, "WORKERS", 1)
    first = world_at(tmp_path / "first", monkeypatch)
    first.up()
    file = back_up(first)
    number, ended = 0, False
    while not ended:
        number += 1
        world = world_at(tmp_path / f"{number}", monkeypatch)
        if not anew:
            world.up()
            file = back_up(world)
            lose(world, "control-plane", "workers")
        world.mortal.kill_at(number, after=after)
        try:
            restore(world, file=file)
            ended = True
        except Killed:
            pass
        world.mortal.revive()
        if not ended:
            restore(world, file=file)
        assert world.names() == whole(), f"killed at change {number}"
        assert record(world).restores == ""
        assert world.kube().sent, f"killed at change {number}"
        assert not world.up().changed
    assert number > (20 if anew else 7)
