"""Image archives of every form are read; what is damaged or none at all is refused in one line."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from moyai.core.errors import UsageError
from moyai.images import archive
from moyai.images.oci import Entry, ImageConfig, write_archive, write_layer
from moyai.images.reference import ImageReference
from tests.unit.image_archives import CONFIG, LAYER, OCI_INDEX, docker, layout, pack, sha, write

APP = ImageReference("example.org", "team/app", "1.0")


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_docker_save_compressed_or_not(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    with archive.read(write(tmp_path / "a", compress(docker()))) as images:
        assert [image.references for image in images] == [[APP]]
        manifest = images[0].manifest
        document = json.loads(manifest.content)
        assert [blob.digest for blob in manifest.blobs] == [sha(CONFIG), sha(LAYER)]
        assert [blob.open().read() for blob in manifest.blobs] == [CONFIG, LAYER]
    assert document["config"]["digest"] == sha(CONFIG)
    assert document["layers"] == [
        {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": sha(LAYER), "size": len(LAYER)}
    ]
    assert not list(tmp_path.glob("tmp*"))


def test_a_layer_may_be_compressed_itself(tmp_path: Path) -> None:
    packed = gzip.compress(LAYER)
    with archive.read(write(tmp_path / "a", docker(files={"layer/layer.tar": packed}))) as images:
        layer = json.loads(images[0].manifest.content)["layers"][0]
    assert layer["mediaType"].endswith("tar+gzip")
    assert layer["digest"] == sha(packed)


def test_an_archive_of_our_own(tmp_path: Path) -> None:
    layer = write_layer([Entry("a", content=b"1")], tmp_path / "layer")
    write_archive(tmp_path / "a", tags=["nginx"], layers=[layer], config=ImageConfig())
    with archive.read(tmp_path / "a") as images:
        assert images[0].references == [ImageReference("docker.io", "library/nginx", "latest")]
        assert images[0].manifest.blobs[1].digest == layer.digest


def test_an_oci_layout(tmp_path: Path) -> None:
    with archive.read(write(tmp_path / "a", layout())) as images:
        assert images[0].references == [APP]
        assert len(images[0].manifest.blobs) == 2
        assert images[0].manifest.digest == sha(images[0].manifest.content)


def test_an_oci_layout_with_a_bare_tag_has_no_name(tmp_path: Path) -> None:
    with archive.read(write(tmp_path / "a", layout("latest"))) as images:
        assert images[0].references == []


def test_an_index_of_several_platforms(tmp_path: Path) -> None:
    with archive.read(write(tmp_path / "a", layout(platforms=2))) as images:
        manifest = images[0].manifest
        assert manifest.media_type == OCI_INDEX
        assert len(manifest.children) == 2


def test_of_an_index_with_holes_the_platform_that_is_there(tmp_path: Path) -> None:
    with archive.read(write(tmp_path / "a", layout(platforms=3, kept=1))) as images:
        assert images[0].manifest.children == ()
        assert len(images[0].manifest.blobs) == 2


BROKEN = {
    "empty": b"",
    "text": b"hello, this is no tar at all" * 100,
    "a tar of something else": pack({"readme": b"x"}),
    "cut": docker()[:2000],
    "cut gzip": gzip.compress(docker())[:-20],
    "no images": pack({"manifest.json": b"[]"}),
    "no JSON": pack({"manifest.json": b"{"}),
    "other JSON": pack({"manifest.json": b'"x"'}),
    "binary JSON": pack({"manifest.json": b"\xff\xfe\x00"}),
    "no config": docker(manifest={"Config": "other.json"}),
    "a missing layer": docker(manifest={"Layers": ["nowhere.tar"]}),
    "layers lacking": docker(manifest={"Layers": []}),
    "a damaged layer": docker(files={"layer/layer.tar": LAYER + b"x"}),
    "a damaged compressed layer": docker(files={"layer/layer.tar": gzip.compress(LAYER + b"x")}),
    "a config without layers": docker(files={"config.json": b"{}"}),
    "no fields": pack({"manifest.json": b"[{}]"}),
    "an index of nothing": layout(platforms=2, kept=0),
    "an odd index": pack({"index.json": b"[]"}),
    "an index of what is not there": pack({"index.json": b'{"manifests": [{"digest": "sha256:00"}]}'}),
    "zstd": b"\x28\xb5\x2f\xfd" + b"x" * 100,
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_used_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "file", BROKEN[name])
    with pytest.raises(UsageError) as caught, archive.read(path):
        pass
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.27", "docker.io/library/nginx:1.27"),
        ("team/app", "docker.io/team/app:latest"),
        ("index.docker.io/library/nginx", "docker.io/library/nginx:latest"),
        ("localhost/app:1", "localhost/app:1"),
        ("localhost:5000/app", "localhost:5000/app:latest"),
        ("quay.io/a/b/c:v1.0-x_y", "quay.io/a/b/c:v1.0-x_y"),
    ],
)
def test_names_are_read_as_docker_reads_them(text: str, expected: str) -> None:
    reference = ImageReference.parse(text)
    assert str(reference) == expected
    assert ImageReference.parse(str(reference)) == reference


@pytest.mark.parametrize(
    "text", ["", ":1", "UPPER", "a b", "a:", "a:b:c", "a/../b", "-x", "a@sha256:00", "x.y/", "a:" + "t" * 129, "a//b"]
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no name of an image"):
        ImageReference.parse(text)
