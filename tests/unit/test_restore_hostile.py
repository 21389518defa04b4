"""Backups that somebody else has made: whoever has the public key of a backup's owner can make a file that opens. Each is
refused in one line, and nothing is on record afterwards.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyrage
import pytest

from moyai.cloud.capabilities import Cloud
from moyai.core.clock import SystemClock
from moyai.core.errors import UsageError
from moyai.core.paths import Paths
from moyai.lifecycle import backup as backups
from moyai.lifecycle import restore_cluster as restoring
from moyai.lifecycle.backup import backup_archive as archive
from moyai.lifecycle.backup.backup_archive import BackupEntry, BackupManifest
from moyai.lifecycle.backup.encryption import Opener, Recipients, encrypt
from moyai.lifecycle.record import Record
from moyai.lifecycle.restore_cluster import RestoreWish
from moyai.spec.load import dump, parse

KEY = pyrage.x25519.Identity.generate()
OPENER = Opener((str(KEY).encode(),))
PLAIN = BackupManifest("2026-11-29T12:00:00+00:00", "1", "demo", "u", "mine", "1.37.1", "3.7.3", 7)
PKI = {f"pki/{name}": b"x" for name in ("ca.crt", "ca.key", "etcd/ca.crt", "sa.key")}


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path / "cache", tmp_path / "state")


@pytest.fixture
def record(tmp_path: Path) -> dict[str, Any]:
    """Of a cluster, as it is on disk."""
    elsewhere = Paths(tmp_path / "cache", tmp_path / "elsewhere")
    made = Record.create(elsewhere, "demo", spec=dump(parse("metadata: {name: demo}\nspec: {cloud: mine}")), uid="u")
    return json.loads((made.folder / "record.json").read_text())


def sealed(file: Path, stream: bytes) -> Path:
    with file.open("wb") as out:
        encrypt(iter([stream]), out, recipients=Recipients((str(KEY.to_public()),)))
    return file


def packed(files: Mapping[str, bytes], **manifest: Any) -> bytes:
    entries = (BackupEntry.of(name, content) for name, content in files.items())
    return b"".join(archive.write(entries, lambda facts: replace(PLAIN, entries=facts, **manifest)))


def refused(file: Path, paths: Paths) -> str:
    def connect(_: str) -> Cloud:
        pytest.fail("a cloud is asked")

    with pytest.raises(UsageError) as caught:
        restoring.preview(file, OPENER, wanted=RestoreWish(), connect=connect, paths=paths, clock=SystemClock())
    assert not list(paths.clusters.glob("*")), "nothing is on record"
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 500
    return line


HOSTILE: dict[str, tuple[dict[str, bytes], str]] = {
    "a kubeconfig that runs a program": ({"kubeconfig": b"x"}, "its entry 'kubeconfig' does not belong there"),
    "known machines": ({"known_hosts": b"x"}, "its entry 'known_hosts' does not belong there"),
    "a hidden file": ({".lock": b""}, "its entry '.lock' does not belong there"),
    "what a restore itself makes": ({"restore/etcd.snapshot": b""}, "does not belong there"),
    "a file and a folder of one name": ({"pki": b"", "pki/ca.crt": b""}, "does not belong there"),
    "a file in a file": ({"pki/ca.crt": b"", "pki/ca.crt/x": b""}, "does not belong there"),
    "secrets that are a list": ({"secrets.json": b"[]"}, "has no record of cluster demo"),
    "secrets that are numbers": ({"secrets.json": b'{"encryption-key": 5}'}, "has no record of cluster demo"),
    "secrets that are nested deep": ({"secrets.json": b"[" * 200_000}, "has no record of cluster demo"),
    "a record that is a list": ({"record.json": b"[]"}, "has no record of cluster demo"),
    "a record that is nested deep": ({"record.json": b"[" * 200_000}, "has no record of cluster demo"),
    "a record of another": ({"record.json": b'{"name": "demo", "uid": "v"}'}, "has no record of cluster demo"),
    "a record without a spec": (
        {"record.json": b'{"name": "demo", "uid": "u", "version": 2}'},
        "has no record of cluster demo",
    ),
    "a record of a later version": ({"record.json": b'{"name": "demo", "uid": "u", "version": 9}'}, "has no record of cluster"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_content_that_is_none_of_a_backup_is_refused(kind: str, record: dict[str, Any], paths: Paths, tmp_path: Path) -> None:
    more, why = HOSTILE[kind]
    files = {**PKI, "record.json": json.dumps(record).encode(), "secrets.json": b"{}", "etcd.snapshot": b"s", **more}
    assert why in refused(sealed(tmp_path / "b", packed(files)), paths)


@pytest.mark.parametrize("spec", [{"spec": {"cloud": 5}}, {"spec": {"cloud": "mine", "nodePools": 5}}, {}])
def test_a_spec_that_is_none_is_refused(spec: Any, record: dict[str, Any], paths: Paths, tmp_path: Path) -> None:
    files = {**PKI, "record.json": json.dumps({**record, "spec": spec}).encode(), "secrets.json": b"{}", "etcd.snapshot": b"s"}
    assert str(tmp_path / "b") in refused(sealed(tmp_path / "b", packed(files)), paths)


def head(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


STREAMS: dict[str, tuple[bytes, str]] = {
    "an entry of less than nothing": (head("record.json", -1) + b"x" * 100_000, "does not belong there"),
    "a manifest that is nested deep": (
        head("manifest.json", 512_000) + b"[" * 512_000 + bytes(1024),
        "its manifest cannot be read",
    ),
    "more than memory should hold": (
        b"".join(head(f"pki/{n}.crt", 1 << 20) + bytes(1 << 20) for n in range(40)) + bytes(1024),
        "its entries are too large",
    ),
}


@pytest.mark.parametrize("kind", STREAMS)
def test_a_stream_that_is_none_is_refused(kind: str, paths: Paths, tmp_path: Path) -> None:
    stream, why = STREAMS[kind]
    assert why in refused(sealed(tmp_path / "b", stream), paths)


def test_a_format_of_many_words_is_a_short_line(paths: Paths, tmp_path: Path) -> None:
    text = json.dumps({"format": "x" * 100_000}).encode()
    stream = head("manifest.json", len(text)) + text + bytes(-len(text) % 512 + 1024)
    assert "its format is 'xxx" in refused(sealed(tmp_path / "b", stream), paths)


def test_a_pipe_is_not_waited_for(paths: Paths, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "b")
    assert refused(tmp_path / "b", paths).endswith("b cannot be read: it is no regular file")
    with pytest.raises(UsageError, match="it is no regular file"):
        backups.read(Path("/dev/zero"), OPENER)
