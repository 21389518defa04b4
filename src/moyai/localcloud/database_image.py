"""Snapshots of a cloud that nobody has used yet: its databases, keys and passwords. The next cloud needs no setup.

A snapshot is taken from the running cloud. MariaDB is suspended while its files are copied, so the copy is in the state that a
crash would leave. A second MariaDB then recovers the copy and shuts it down, so the snapshot contains a cleanly closed
database. The snapshot's key covers everything that its content depends on. Only root can read a snapshot, because it contains
passwords.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import replace
from pathlib import Path

from moyai.core.files import rename_durably
from moyai.core.paths import Paths
from moyai.linux import daemons, proc
from moyai.linux.process import run
from moyai.localcloud import database, secrets
from moyai.localcloud.env import OpenStackEnv
from moyai.localcloud.layout import FLAVORS, CloudPaths, LocalCloudConfig
from moyai.localcloud.services import files
from moyai.localcloud.services.infra import DATABASES
from moyai.localcloud.services.rendering import ServiceContext

#: Changes with what ``setup`` puts into a new cloud.
SCHEMA = 3
_SECRETS = secrets.CloudSecrets("", "", dict.fromkeys(secrets.SERVICE_USERS, ""), "", "", "")


def key(config: LocalCloudConfig, env: OpenStackEnv, *, paths: CloudPaths) -> str:
    """Names a snapshot by everything its content follows from: environment, configuration files, folders, set-up."""
    # the way out is the host's affair, no database knows of it
    config = replace(config, outbound=False)
    context = ServiceContext(config, paths, env, _SECRETS, "")
    digest = hashlib.sha256(f"{SCHEMA}\n{config.to_json()}\n{FLAVORS}\n{DATABASES}".encode())
    for name, text in sorted(files(context).items()):
        digest.update(f"{name}\n{text}\n".encode())
    return digest.hexdigest()[:16]


class DatabaseImages:
    """The store of snapshots, in the cache. A deleted snapshot is recreated."""

    def __init__(self, paths: Paths) -> None:
        self._folder = paths.cache / "clouds"

    def _file(self, key: str) -> Path:
        return self._folder / f"{key}.tar.zst"

    def exists(self, key: str) -> bool:
        return self._file(key).exists()

    def take(self, key: str, paths: CloudPaths) -> None:
        """Copy, recover, pack. The cloud goes on running; its database pauses for less than a second.

        Raises OSError, NoSpace and ProcessError for what the disk refuses; nothing half made then stays.
        """
        copy, fresh = paths.root / "snapshot", self._folder / f".{key}.{os.getpid()}"
        for left in self._folder.glob(f".{key}.*"):  # of a process that was killed: the cloud's lock lets one at a time in
            left.unlink()
        try:
            self._take(copy, fresh, paths=paths)
            rename_durably(fresh, self._file(key))
        finally:
            fresh.unlink(missing_ok=True)
            shutil.rmtree(copy, ignore_errors=True)

    def _take(self, copy: Path, fresh: Path, *, paths: CloudPaths) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        shutil.rmtree(copy, ignore_errors=True)
        (copy / "state").mkdir(parents=True, mode=0o700)
        (copy / "scratch").mkdir()
        server = _mariadb(paths)
        # recovery would also find changes that are not on disk yet, but it would take longer
        database.sql(paths, "SET GLOBAL innodb_max_dirty_pages_pct=0; FLUSH TABLES;")
        with daemons.suspended(server):
            run(["cp", "-a", "--reflink=auto", paths.state / "mysql", copy / "state" / "mysql"])
        database.sql(paths, "SET GLOBAL innodb_max_dirty_pages_pct=90;")
        database.recover(copy / "state" / "mysql", copy / "scratch")
        for entry in paths.state.iterdir():
            if entry.name == "keystone":
                shutil.copytree(entry, copy / "state" / entry.name)
            elif entry.name.startswith("nova-") and (entry / "compute_id").exists():
                (copy / "state" / entry.name).mkdir(mode=0o700)
                shutil.copy2(entry / "compute_id", copy / "state" / entry.name / "compute_id")
        shutil.copy2(paths.secrets, copy / "secrets.json")
        fresh.touch(mode=0o600)
        run(["tar", "--zstd", "--sparse", "-cf", fresh, "-C", copy, "state", "secrets.json"], timeout=120)

    def restore(self, key: str, paths: CloudPaths) -> None:
        """Unpack into a cloud's empty folder."""
        run(["tar", "--zstd", "-xpf", self._file(key), "-C", paths.root], timeout=120)

    def remove(self, key: str) -> None:
        self._file(key).unlink(missing_ok=True)


def _mariadb(paths: CloudPaths) -> int:
    """The server's pid as the host sees it."""
    inner = int((paths.run / "mysql.pid").read_text())
    record = proc.ProcessRecord.load(paths.init_record)
    assert record is not None
    return proc.members(record.pid)[inner]
