"""A record in one encrypted file, for a vault: what ``moyai join`` takes a cluster over from when its API is out of reach.

It is a backup without etcd's snapshot. Always holds: the file gets its name when it is whole; nothing of it is on a disk
unencrypted; no machine and no API is asked.
"""

from __future__ import annotations

from pathlib import Path

from moyai import __version__
from moyai.core.clock import Clock
from moyai.core.paths import Paths
from moyai.lifecycle import backup as backups
from moyai.lifecycle import record_files
from moyai.lifecycle.backup import BackupManifest, backup_archive
from moyai.lifecycle.backup.backup_archive import BackupEntry, BackupEntryFacts
from moyai.lifecycle.backup.encryption import Opener, Recipients, encrypt
from moyai.lifecycle.clusters import require
from moyai.lifecycle.joining import JoinSource


def export_record(
    name: str, file: Path, *, recipients: Recipients, replaces: bool, paths: Paths, clock: Clock
) -> BackupManifest:
    """Write the record of cluster ``name`` to ``file``; says what is in it. ``replaces``: whether a file may be there.

    UsageError where there is no such cluster, or a file that is not to be replaced.
    """
    record, made = require(paths, name), list[BackupManifest]()
    spec = record.cluster.spec

    def manifest(entries: tuple[BackupEntryFacts, ...]) -> BackupManifest:
        moment = clock.now().isoformat(timespec="seconds")
        facts = (moment, __version__, record.name, record.uid, spec.cloud, spec.kubernetes_version)
        made.append(BackupManifest(*facts, etcd="", revision=0, entries=entries))
        return made[0]

    entries = (BackupEntry.of(one, data) for one, data in record_files.read(record.folder).items())
    with backups.writing(file, replaces=replaces) as stream:
        encrypt(backup_archive.write(entries, manifest), stream, recipients=recipients)
    return made[0]


def exported(file: Path, opener: Opener) -> JoinSource:
    """The record in the file, or in a backup. UsageError where it cannot be read."""
    content = backups.read(file, opener)
    return JoinSource(record_files.shared(content.files), f"{file} (of {content.manifest.made})")
