"""Scheduled backups: made when the youngest one is too old, and the oldest ones deleted; and what is on record of them.

Always holds: a backup is deleted only after a younger one is whole; nothing is deleted but files that this module has named.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from moyai.core.clock import Clock
from moyai.core.errors import UsageError
from moyai.core.files import write_private
from moyai.core.paths import Paths
from moyai.core.progress import Reporter
from moyai.lifecycle import backup as backups
from moyai.lifecycle.backup.backup_archive import BackupManifest
from moyai.lifecycle.backup.encryption import parse_recipients
from moyai.lifecycle.clusters import require
from moyai.lifecycle.record import Record

#: In the record's folder; in no backup.
FILE = "backups.json"
_STAMP = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True)
class BackupStatus:
    """``last``: when the youngest scheduled backup was made, ``rehearsed``: when a rehearsal succeeded last (ISO 8601), each
    with its file; empty where there was none. ``overdue``: whether the youngest one is older than the spec permits."""

    to: str
    every: str
    last: str = ""
    file: str = ""
    rehearsed: str = ""
    rehearsed_file: str = ""
    overdue: bool = False

    @property
    def problems(self) -> tuple[str, ...]:
        if not self.overdue:
            return ()
        state = f"the youngest backup in {self.to} is of {self.last}" if self.last else f"there is no backup in {self.to} yet"
        return (f"{state}, and spec.backup.every is {self.every}: `moyai backup --scheduled` makes one",)


@dataclass(frozen=True)
class ScheduledBackup:
    """``made``: None where none was due. ``deleted``: names of files."""

    status: BackupStatus
    made: BackupManifest | None = None
    file: Path | None = None
    deleted: tuple[str, ...] = ()


def backup_status(record: Record, *, now: datetime) -> BackupStatus | None:
    """None where the cluster has no scheduled backups and no rehearsal was ever made."""
    wanted, known = record.cluster.spec.backup, _read(record.folder)
    if not wanted.to and not known:
        return None
    last = known.get("last", "")
    # from the cluster's making on, so that a new cluster has time for its first one
    since = datetime.fromisoformat(last) if last else record.created
    return BackupStatus(
        to=wanted.to,
        every=wanted.every,
        last=last,
        file=known.get("file", ""),
        rehearsed=known.get("rehearsed", ""),
        rehearsed_file=known.get("rehearsed file", ""),
        overdue=bool(wanted.to) and now - since > wanted.period,
    )


def take_scheduled(name: str, *, paths: Paths, reporter: Reporter, clock: Clock) -> ScheduledBackup:
    """Make a backup if the youngest one is as old as the spec permits, and delete those that are too many.

    UsageError where the spec has no ``backup.to``, or the folder is not there.
    """
    record = require(paths, name)
    wanted = record.cluster.spec.backup
    if not wanted.to:
        raise UsageError(f"cluster {name} has no scheduled backups", hint="spec.backup.to names their folder; then `moyai up`")
    folder = Path(wanted.to)
    if not folder.is_dir():
        raise UsageError(f"spec.backup.to: there is no folder {folder}", hint="it may be a disk that is not mounted")
    now = clock.now()
    found = backup_status(record, now=now)
    assert found is not None
    there = [one for one in _files(folder, name) if one.name == found.file]
    if there and now - datetime.fromisoformat(found.last) < wanted.period:
        return ScheduledBackup(found)
    file = folder / f"{name}-{now.strftime(_STAMP)}.moyai"
    made = backups.take(
        name,
        file,
        recipients=parse_recipients(wanted.recipients, ""),
        replaces=False,
        paths=paths,
        reporter=reporter,
        clock=clock,
    )
    note(record, last=made.made, file=file.name)
    deleted = tuple(one.name for one in _files(folder, name)[: -wanted.keep])
    for one in deleted:
        (folder / one).unlink(missing_ok=True)
    status = backup_status(record, now=clock.now())
    assert status is not None
    return ScheduledBackup(status, made, file, deleted)


def note(record: Record, **values: str) -> None:
    """Keep these values beside the record."""
    write_private(record.folder / FILE, json.dumps({**_read(record.folder), **values}, indent=1))


def _files(folder: Path, name: str) -> list[Path]:
    """Scheduled backups of this cluster, the oldest first."""
    form = re.compile(rf"{re.escape(name)}-\d{{8}}T\d{{6}}Z\.moyai")
    return sorted(_matching(folder, form))


def _matching(folder: Path, form: re.Pattern[str]) -> Iterator[Path]:
    return (one for one in folder.iterdir() if form.fullmatch(one.name) and one.is_file())


def _read(folder: Path) -> dict[str, str]:
    try:
        found: Any = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(name): str(value) for name, value in cast("dict[str, Any]", found).items()} if isinstance(found, dict) else {}
