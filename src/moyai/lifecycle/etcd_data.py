"""etcd's data out of a snapshot, for the first member of a cluster that is restored, as one packed file.

etcdutl makes them on this machine: so a node image needs no such tool, and a snapshot that cannot be restored is refused before
anything is made. Always holds: the file is there whole or not at all.

A client that watched the earlier etcd must notice the change: the revisions begin far above the snapshot's, and the old
ones count as compacted. Source: https://etcd.io/docs/latest/op-guide/recovery/.
"""

from __future__ import annotations

import hashlib
import secrets
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from moyai.core.errors import UsageError
from moyai.core.files import naming, writing_private
from moyai.linux.process import ProcessError, run

#: More than a cluster writes between a snapshot and its restore.
BUMP = 1_000_000_000
PEER_PORT = 2380


@dataclass(frozen=True)
class EtcdData:
    """``sha256``: of the file, hexadecimal."""

    file: Path
    size: int
    sha256: str


#: Makes the data for the member of this name and address.
MakeData = Callable[[str, str], EtcdData]


def make_etcd_data(snapshot: Path, file: Path, *, etcdutl: Path, name: str, address: str) -> EtcdData:
    """``name``, ``address``: of the member. UsageError for a snapshot that etcd does not take."""
    folder = file.with_name("etcd")
    shutil.rmtree(folder, ignore_errors=True)
    peer = f"https://{address}:{PEER_PORT}"
    words = [
        *(etcdutl, "snapshot", "restore", snapshot, "--data-dir", folder, "--name", name),
        *("--initial-cluster", f"{name}={peer}", "--initial-advertise-peer-urls", peer),
        # another cluster than the one before: members of that one must not find this one's
        *("--initial-cluster-token", secrets.token_hex(8), "--bump-revision", str(BUMP), "--mark-compacted"),
    ]
    try:
        with naming(folder):
            run(words)
        with (
            writing_private(file, replaces=True) as stream,
            tarfile.open(fileobj=stream, mode="w:gz", compresslevel=1) as packed,
        ):
            packed.add(folder / "member", "member")
    except ProcessError as error:
        raise UsageError(f"etcd does not take the snapshot: {error}") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return EtcdData(file, file.stat().st_size, digest)
