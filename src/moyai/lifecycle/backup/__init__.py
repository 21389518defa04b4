"""A backup of a cluster: etcd's snapshot and all that is on record of the cluster, encrypted, in one file.

Always holds: the file gets its name when it is whole; nobody but its owner may read it; nothing of it is on a disk unencrypted;
the cluster is not changed. A file is read to its end before anything in it is believed.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from moyai import __version__
from moyai.core.clock import Clock
from moyai.core.errors import Terminal, UsageError
from moyai.core.files import writing_private
from moyai.core.paths import Paths
from moyai.core.progress import Reporter
from moyai.lifecycle.backup import backup_archive
from moyai.lifecycle.backup.backup_archive import BackupEntry, BackupEntryFacts, BackupManifest, Damaged
from moyai.lifecycle.backup.encryption import CannotOpen, Opener, Recipients, decrypt, encrypt
from moyai.lifecycle.backup.snapshot import EtcdSnapshot, etcd_snapshot
from moyai.lifecycle.clusters import require, require_api
from moyai.lifecycle.record import Record
from moyai.lifecycle.record_files import belongs
from moyai.lifecycle.work import working

__all__ = ["SNAPSHOT", "BackupManifest", "Content", "read", "take", "writing"]

SNAPSHOT = "etcd.snapshot"
#: What the kernel says of a name that no file can have, or of a place where none can be.
_NAMES = frozenset({errno.ENAMETOOLONG, errno.ELOOP, errno.EROFS})

Into = Callable[[str], "BinaryIO | None"]


@dataclass(frozen=True)
class Content:
    """``files``: name → content, without the snapshot."""

    manifest: BackupManifest
    files: dict[str, bytes]


def take(
    name: str, file: Path, *, recipients: Recipients, replaces: bool, paths: Paths, reporter: Reporter, clock: Clock
) -> BackupManifest:
    """Write a backup of cluster ``name`` to ``file``; says what is in it. ``replaces``: whether a file may be there.

    UsageError where there is no such cluster, or a file that is not to be replaced; Terminal where no etcd gives a snapshot.
    """
    with working(paths, name, command="moyai backup", clock=clock, tell=reporter.note):
        record = require(paths, name)
        if not record.ready:
            raise Terminal(f"cluster {name} has never answered, so there is nothing to back up", hint="`moyai up` goes on")
        api, made = require_api(record), list[BackupManifest]()
        with (
            writing(file, replaces=replaces) as stream,
            reporter.step("snapshot of etcd") as progress,
            etcd_snapshot(api, clock=clock, progress=progress) as snapshot,
        ):

            def manifest(entries: tuple[BackupEntryFacts, ...]) -> BackupManifest:
                made.append(_manifest(record, snapshot, entries=entries, clock=clock))
                return made[0]

            encrypt(backup_archive.write(_entries(record.folder, snapshot), manifest), stream, recipients=recipients)
    return made[0]


def _manifest(record: Record, snapshot: EtcdSnapshot, *, entries: tuple[BackupEntryFacts, ...], clock: Clock) -> BackupManifest:
    spec = record.cluster.spec
    return BackupManifest(
        made=clock.now().isoformat(timespec="seconds"),
        moyai=__version__,
        cluster=record.name,
        uid=record.uid,
        cloud=spec.cloud,
        kubernetes=spec.kubernetes_version,
        etcd=snapshot.version,
        revision=snapshot.revision,
        entries=entries,
    )


def read(file: Path, opener: Opener, *, into: Into = lambda _: None) -> Content:
    """What is in a backup, checked to its end. UsageError where it is none, is not whole, or is for another key.

    ``into``: where an entry of this name goes instead of into memory; the snapshot goes nowhere without it.
    """
    reader = backup_archive.Reader(lambda name: into(name) or (_NOWHERE if name == SNAPSHOT else None), belongs=belongs)
    try:
        # a pipe is opened whether somebody writes to it or not
        with os.fdopen(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as source:
            if not stat.S_ISREG(os.fstat(source.fileno()).st_mode):
                raise CannotOpen("it is no regular file")
            decrypt(source, cast("BinaryIO", reader), opener=opener)
        manifest = reader.finish()
    except (CannotOpen, Damaged) as error:
        raise UsageError(f"backup {file} cannot be read: {error}") from None
    except OSError as error:
        raise UsageError(f"backup {file} cannot be read: {error.strerror or error}") from None
    return Content(manifest, {name: bytes(content) for name, content in reader.files.items()})


def _entries(folder: Path, snapshot: EtcdSnapshot) -> Iterator[BackupEntry]:
    for one in sorted(folder.rglob("*")):
        name = one.relative_to(folder).as_posix()
        if one.is_file() and belongs(name) and not one.name.startswith("."):
            yield BackupEntry.of(name, one.read_bytes())
    yield BackupEntry(SNAPSHOT, snapshot.size, snapshot.pieces)


@contextmanager
def writing(file: Path, *, replaces: bool) -> Generator[BinaryIO]:
    """A stream for the file, which is there when the block has ended without an error. UsageError for a place that no file can
    have, and for one that is not to be replaced."""
    # what a link leads to is replaced, not the link; and nothing but a file
    target = file.resolve() if replaces else file
    if not target.name:
        raise UsageError(f"{file} cannot be written: no file can have this name")
    if replaces and target.exists() and not target.is_file() and not target.is_dir():
        raise UsageError(f"{file} cannot be written: it is no regular file")
    try:
        with writing_private(target, replaces=replaces) as stream:
            yield stream
    except FileExistsError:
        raise UsageError(f"{file} is there already", hint="another name, or --force") from None
    except OSError as error:
        if (
            isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError | PermissionError)
            or error.errno in _NAMES
        ):
            raise UsageError(f"{file} cannot be written: {error.strerror}") from None
        raise


class _Nowhere(io.RawIOBase):
    def writable(self) -> bool:
        return True

    def write(self, data: object, /) -> int:
        return len(memoryview(data))  # type: ignore[arg-type]


_NOWHERE = cast("BinaryIO", _Nowhere())
