"""Hostile archives: whatever somebody packs, the answer is one clear line, nothing is left, and nothing is filled."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moyai.core.errors import UsageError
from moyai.images import archive, unpacking
from tests.unit.image_archives import CONFIG, LAYER, OCI_INDEX, OCI_MANIFEST, docker, layout, pack, sha, write


def entry(name: str, **fields: Any) -> bytes:
    """A tar whose only entry has these fields."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w", format=fields.pop("format", tarfile.PAX_FORMAT)) as tar:
        info = tarfile.TarInfo(name)
        for key, value in fields.items():
            setattr(info, key, value)
        tar.addfile(info)
    return whole.getvalue()


def links(*pairs: tuple[str, str], kind: bytes = tarfile.SYMTYPE) -> bytes:
    """An archive whose layer is the first of these links."""
    whole = io.BytesIO()
    item = {"Config": "config.json", "RepoTags": ["a:1"], "Layers": [pairs[0][0]]}
    with tarfile.open(fileobj=whole, mode="w") as tar:
        for name, content in (("manifest.json", json.dumps([item]).encode()), ("config.json", CONFIG)):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for name, target in pairs:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)
    return whole.getvalue()


def deep(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def index(**fields: Any) -> bytes:
    """An OCI layout whose index has one manifest with these fields, and that manifest."""
    manifest = json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": []}).encode()
    top = {"mediaType": OCI_MANIFEST, "digest": sha(manifest), "size": len(manifest), **fields}
    return pack({f"blobs/sha256/{sha(manifest)[7:]}": manifest, "index.json": json.dumps({"manifests": [top]}).encode()})


def manifest(**fields: Any) -> bytes:
    """An OCI layout of one manifest with these fields."""
    content = json.dumps({"schemaVersion": 2, **fields}).encode()
    top = {"digest": sha(content), "size": len(content), "annotations": {"org.opencontainers.image.ref.name": "a:1"}}
    return pack({f"blobs/sha256/{sha(content)[7:]}": content, "index.json": json.dumps({"manifests": [top]}).encode()})


def nested_indexes(depth: int) -> bytes:
    files: dict[str, bytes] = {}
    content = json.dumps({"mediaType": OCI_MANIFEST, "layers": []}).encode()
    digest = sha(content)
    for _ in range(depth):
        files[f"blobs/sha256/{digest[7:]}"] = content
        content = json.dumps({"mediaType": OCI_INDEX, "manifests": [{"digest": digest}]}).encode()
        digest = sha(content)
    files[f"blobs/sha256/{digest[7:]}"] = content
    return pack({**files, "index.json": json.dumps({"manifests": [{"digest": digest}]}).encode()})


def negative_size() -> bytes:
    """An extended header gives an entry a size that leads back to the entry itself."""
    return entry("manifest.json", pax_headers={"size": "-1024"})


def large_header() -> bytes:
    """An extended header of 20 MiB, which a reader of tars holds in memory."""
    return entry("manifest.json", pax_headers={"comment": "x" * (20 << 20)})


def sparse() -> bytes:
    """1 TiB of nothing in 1 KiB."""
    pax = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.map": f"{1 << 40},0", "GNU.sparse.size": str(1 << 40)}
    return entry("manifest.json", pax_headers=pax)


def item(**fields: Any) -> bytes:
    return docker(manifest=fields)


HOSTILE: dict[str, Callable[[], bytes]] = {
    # no archive behind the first bytes
    "gzip head with junk": lambda: b"\x1f\x8b" + b"x" * 100,
    "bz2 head with junk": lambda: b"BZh9" + b"x" * 100,
    "bz2 that breaks off": lambda: bz2.compress(docker())[:-20],
    "xz head with junk": lambda: b"\xfd7zXZ\x00" + b"x" * 100,
    "xz that breaks off": lambda: lzma.compress(docker())[:-20],
    "gzip of a wrong sum": lambda: gzip.compress(docker())[:-8] + bytes(8),
    "gzip in gzip": lambda: gzip.compress(gzip.compress(docker())),
    "zeros": lambda: bytes(10240),
    "a header of ones": lambda: b"\xff" * 10240,
    "a tar that breaks off": lambda: docker()[:700],
    # entries
    "absolute path": lambda: pack({"/manifest.json": b"[]"}),
    "parent folders": lambda: pack({"../../manifest.json": b"[]"}),
    "a layer by parent folders": lambda: item(Layers=["../../../../etc/passwd"]),
    "a layer by absolute path": lambda: item(Layers=["/etc/passwd"]),
    "a config by absolute path": lambda: item(Config="/etc/passwd"),
    "a link to a host's file": lambda: links(("layer.tar", "/etc/passwd")),
    "a link by parent folders": lambda: links(("layer.tar", "../../../../etc/passwd")),
    "a hard link to a host's file": lambda: links(("layer.tar", "/etc/passwd"), kind=tarfile.LNKTYPE),
    "a link to itself": lambda: links(("layer.tar", "layer.tar")),
    "links in a circle": lambda: links(("a", "b"), ("b", "a")),
    "hard links in a circle": lambda: links(("a", "b"), ("b", "a"), kind=tarfile.LNKTYPE),
    "a long chain of links": lambda: links(*((f"l{n}", f"l{n + 1}") for n in range(2000))),
    "a character device": lambda: entry("manifest.json", type=tarfile.CHRTYPE, devmajor=1, devminor=5),
    "a block device": lambda: entry("manifest.json", type=tarfile.BLKTYPE, devmajor=8, devminor=0),
    "a pipe": lambda: entry("manifest.json", type=tarfile.FIFOTYPE),
    "a folder": lambda: entry("manifest.json", type=tarfile.DIRTYPE),
    "1 TB said, nothing there": lambda: entry("manifest.json", size=1 << 40, format=tarfile.GNU_FORMAT),
    "a negative size": negative_size,
    "a size that is no number": lambda: entry("manifest.json", pax_headers={"size": "many"}),
    "an extended header without end": large_header,
    "holes of 1 TB": sparse,
    "too many entries": lambda: pack({f"e{n}": b"" for n in range(60)}),
    # JSON
    "nested 100,000 deep": lambda: pack({"manifest.json": deep(100_000)}),
    "an index nested 100,000 deep": lambda: pack({"index.json": deep(100_000)}),
    "a config nested 100,000 deep": lambda: docker(files={"config.json": deep(100_000)}),
    "a number without end": lambda: pack({"manifest.json": b"9" * 100_000}),
    "a large manifest.json": lambda: pack({"manifest.json": b" " * (9 << 20)}),
    "manifest.json: a number": lambda: pack({"manifest.json": b"5"}),
    "manifest.json: null": lambda: pack({"manifest.json": b"null"}),
    "manifest.json: numbers": lambda: pack({"manifest.json": b"[1, 2]"}),
    "half a character": lambda: pack({"manifest.json": b'"\xc3'}),
    # what the manifest says
    "layers: a number": lambda: item(Layers=5),
    "layers: an object": lambda: item(Layers={"a": 1}),
    "layers: null": lambda: item(Layers=None),
    "tags: a number": lambda: item(RepoTags=5),
    "tags: numbers": lambda: item(RepoTags=[5.5, None]),
    "a tag with a line break": lambda: item(RepoTags=["a\nb:1"]),
    "a tag of half a character": lambda: item(RepoTags=["\ud800:1"]),
    "a tag with parent folders": lambda: item(RepoTags=["example.org/../../x:1"]),
    "a tag of 1 MB": lambda: item(RepoTags=["a" * (1 << 20)]),
    "a config with a control sequence": lambda: item(Config="\x1b[2J"),
    "diff_ids: a number": lambda: docker(files={"config.json": b'{"rootfs": {"diff_ids": 5}}'}),
    "rootfs: a list": lambda: docker(files={"config.json": b'{"rootfs": []}'}),
    "a false diff_id": lambda: docker(files={"config.json": b'{"rootfs": {"diff_ids": ["sha256:00"]}}'}),
    "a layer of another content": lambda: docker(files={"layer/layer.tar": LAYER + b"x"}),
    "a packed layer of another content": lambda: docker(files={"layer/layer.tar": gzip.compress(LAYER + b"x")}),
    "a packed layer with junk": lambda: docker(files={"layer/layer.tar": b"\x1f\x8b" + b"x" * 100}),
    "a packed layer that is a bomb": lambda: docker(files={"layer/layer.tar": gzip.compress(bytes(4 << 20))}),
    # OCI layouts
    "annotations: a list": lambda: index(annotations=["a"]),
    "annotations: a number": lambda: index(annotations=5),
    "a name with a line break": lambda: index(annotations={"org.opencontainers.image.ref.name": "a/b\n:1"}),
    "a digest by parent folders": lambda: index(digest="../../../../etc/passwd"),
    "a digest of another kind": lambda: index(digest="md5:00"),
    "a digest: a number": lambda: index(digest=5),
    "a false digest": lambda: pack({"blobs/sha256/00": b"{}", "index.json": b'{"manifests": [{"digest": "sha256:00"}]}'}),
    "an index 3000 deep": lambda: nested_indexes(3000),
    "an index 5 deep": lambda: nested_indexes(6),
    "a manifest of an unknown type": lambda: manifest(mediaType="text/html"),
    "a type with a line break": lambda: manifest(mediaType="a\r\nHost: example.org"),
    "a layer that is not there": lambda: manifest(layers=[{"digest": sha(b"nowhere")}]),
    "a config of a false digest": lambda: manifest(config={"digest": "sha256:00"}),
    # a compressed archive that is a bomb
    "a gzip bomb": lambda: gzip.compress(bytes(4 << 20)),
    "a bz2 bomb": lambda: bz2.compress(bytes(4 << 20)),
    "an xz bomb": lambda: lzma.compress(bytes(4 << 20)),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_is_refused_in_one_line(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(unpacking, "_MOST_MEMBERS", 5000 if "3000" in kind or "chain" in kind else 50)
    path = write(tmp_path / "file", HOSTILE[kind]())
    with pytest.raises(UsageError) as caught, archive.read(path, most_unpacked=3 << 20):
        pass
    said = f"{caught.value} {caught.value.hint or ''}"
    assert str(path) in said
    assert said.isprintable()
    assert len(said) < 800
    said.encode()
    assert caught.value.exit_code == 2
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert capfd.readouterr() == ("", "")


def test_the_archives_that_the_hostile_ones_are_made_of_are_taken(tmp_path: Path) -> None:
    for content in (docker(), layout(), item(), nested_indexes(3)):
        with archive.read(write(tmp_path / "file", content)) as images:
            assert len(images) == 1


def test_an_archive_within_its_limit_is_taken(tmp_path: Path) -> None:
    path = write(tmp_path / "file", gzip.compress(docker()))
    with archive.read(path, most_unpacked=len(docker())) as images:
        assert len(images) == 1
    with pytest.raises(UsageError, match="unpacks to more than") as caught, archive.read(path, most_unpacked=len(docker()) - 1):
        pass
    assert "--max-unpacked" in str(caught.value.hint)


def test_unpacking_stops_before_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = os.statvfs(tmp_path)
    free = system.f_bavail * system.f_frsize
    monkeypatch.setattr(unpacking, "_STAYS_FREE", free + (1 << 40))
    with (
        pytest.raises(UsageError, match="would stay free on the disk"),
        archive.read(write(tmp_path / "file", gzip.compress(docker()))),
    ):
        pass
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_disk_that_is_full_all_the_same_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> Any:
        return Path("/dev/full").open("r+b", buffering=0)

    path = write(tmp_path / "file", gzip.compress(docker()))
    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(UsageError, match="cannot be read: No space left on device"), archive.read(path):
        pass


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "nothing"])
def test_what_is_no_file_is_not_even_opened(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    with pytest.raises(UsageError, match="is no file"), archive.read(path):
        pass
