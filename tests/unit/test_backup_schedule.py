"""Scheduled backups: made when one is due, the oldest ones deleted, an overdue one reported."""

from __future__ import annotations

from pathlib import Path

import pytest

from moyai.core.errors import MoyaiError, UsageError
from moyai.core.progress import Reporter
from moyai.lifecycle import backup as backups
from moyai.lifecycle.backup.schedule import ScheduledBackup, backup_status, take_scheduled
from moyai.spec.load import parse
from tests.unit.lifecycle_world import World
from tests.unit.test_backup import BY_KEY, KEY, use_apis
from tests.unit.test_restore import record

DAY = 86400.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "backups"
    made.mkdir()
    return made


@pytest.fixture
def world(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path / "world", monkeypatch)
    use_apis(made, monkeypatch)
    made.up(spec(folder))
    return made


def spec(folder: Path) -> str:
    return f"spec: {{backup: {{every: 1d, keep: 2, to: {folder}, recipients: [{KEY.to_public()}]}}}}"


def take(world: World) -> ScheduledBackup:
    return take_scheduled("quickstart", paths=world.paths, reporter=Reporter(clock=world.clock), clock=world.clock)


def test_one_is_made_when_it_is_due_and_the_oldest_go(world: World, folder: Path) -> None:
    (folder / "quickstart-mine.moyai").touch()
    (folder / "quickstart-2-20260101T000000Z.moyai").touch()
    first = take(world)
    assert first.file
    assert backups.read(first.file, BY_KEY).manifest == first.made
    assert take(world).made is None, "it is not due"
    files, done = [first.file.name], first
    for _ in range(3):
        world.clock.sleep(DAY)
        done = take(world)
        assert done.file
        files.append(done.file.name)
    names = sorted(one.name for one in folder.iterdir())
    assert names == sorted(["quickstart-2-20260101T000000Z.moyai", *files[2:], "quickstart-mine.moyai"])
    assert done.deleted == (files[1],)


def test_a_backup_that_somebody_deleted_is_made_again(world: World) -> None:
    first = take(world)
    assert first.file
    first.file.unlink()
    world.clock.sleep(60)
    assert take(world).made


def test_a_failure_deletes_nothing(world: World, folder: Path) -> None:
    for _ in range(2):
        take(world)
        world.clock.sleep(DAY)
    before = sorted(folder.iterdir())
    world.kube().etcd.hurt = lambda printed: printed[:-1]
    with pytest.raises(MoyaiError):
        take(world)
    assert sorted(folder.iterdir()) == before


def test_one_that_is_overdue_is_a_problem(world: World, folder: Path) -> None:
    world.clock.sleep(DAY + 1)
    found = backup_status(record(world), now=world.clock.now())
    assert found
    assert found.problems == (
        f"there is no backup in {folder} yet, and spec.backup.every is 1d: `moyai backup --scheduled` makes one",
    )
    take(world)
    assert (backup_status(record(world), now=world.clock.now()) or found).problems == ()
    world.clock.sleep(DAY + 1)
    (problem,) = (backup_status(record(world), now=world.clock.now()) or found).problems
    assert problem.startswith(f"the youngest backup in {folder} is of 2026-01-02T")


def test_a_folder_that_is_not_there_is_one_line(world: World, folder: Path) -> None:
    folder.rmdir()
    with pytest.raises(UsageError, match=f"there is no folder {folder}: it may be a disk that is not mounted"):
        take(world)


def test_a_cluster_without_a_schedule_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, monkeypatch)
    world.up()
    assert backup_status(record(world), now=world.clock.now()) is None
    with pytest.raises(UsageError, match=r"cluster quickstart has no scheduled backups: spec\.backup\.to names their folder"):
        take(world)


def test_a_schedule_is_no_reason_to_touch_a_cluster(world: World, folder: Path) -> None:
    assert not world.up(spec(folder).replace("keep: 2", "keep: 3")).changed
    assert record(world).cluster.spec.backup.keep == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{every: 5m}", "spec.backup.every: '5m', should be hours or days such as 6h or 1d"),
        ("{to: backups}", "spec.backup.to: 'backups', should be an absolute path such as /backups"),
        ("{to: /backups}", "spec.backup.recipients: .*should be at least one public key: nobody could open the backups"),
        ("{keep: 0}", "spec.backup.keep"),
        (
            "{recipients: [AGE-SECRET-KEY-1]}",
            r"spec.backup.recipients: a list, should be public keys of age .*: number 1 is none",
        ),
    ],
)
def test_a_wrong_schedule_is_one_line(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        parse(f"spec: {{backup: {text}}}")
    assert "SECRET" not in str(caught.value), "a private key is not repeated"
