"""Archives are the same bytes for the same input, and hold what was asked for."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

import pytest

from moyai.images.oci import (
    Entry,
    ImageConfig,
    ImageContent,
    Layer,
    folder,
    from_folder,
    link,
    write_archive,
    write_images,
    write_layer,
)


def _tree(root: Path) -> Path:
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/tool").write_text("#!/bin/sh\n")
    (root / "usr/bin/tool").chmod(0o755)
    (root / "usr/bin/alias").symlink_to("tool")
    (root / "etc").mkdir()
    (root / "etc/secret").write_text("x")
    (root / "etc/secret").chmod(0o600)
    (root / "bin").symlink_to("usr/bin")
    return root


def _image(source: Path, target: Path) -> tuple[bytes, str]:
    target.mkdir()
    layer = write_layer(from_folder(source), target / "layer.tar")
    archive = target / "image.tar"
    image_id = write_archive(
        archive, tags=["example.org/a:1"], layers=[layer], config=ImageConfig(entrypoint=["/usr/bin/tool"])
    )
    return archive.read_bytes(), image_id


def test_two_builds_of_the_same_files_are_the_same_bytes(tmp_path: Path) -> None:
    first, second = _tree(tmp_path / "a"), _tree(tmp_path / "b")
    for number, path in enumerate(sorted(second.rglob("*"))):
        os.utime(path, (number, number), follow_symlinks=False)
    assert _image(first, tmp_path / "x") == _image(second, tmp_path / "y")


def test_the_order_of_entries_does_not_count(tmp_path: Path) -> None:
    entries = [Entry("b/c", content=b"1"), folder("a"), Entry("b/a", 0o755, content=b"2"), link("z", "b/c")]
    one, two = write_layer(entries, tmp_path / "1"), write_layer(reversed(entries), tmp_path / "2")
    assert one.digest == two.digest
    assert one.path.read_bytes() == two.path.read_bytes()


def test_any_change_of_content_mode_or_target_changes_the_digest(tmp_path: Path) -> None:
    variants = [
        Entry("f", content=b"1"),
        Entry("f", content=b"2"),
        Entry("f", 0o755, content=b"1"),
        link("f", "a"),
        link("f", "b"),
    ]
    digests = {write_layer([entry], tmp_path / str(number)).digest for number, entry in enumerate(variants)}
    assert len(digests) == len(variants)


def test_a_layer_has_sorted_entries_without_owner_or_time_and_all_parents(tmp_path: Path) -> None:
    layer = write_layer([Entry("opt/a/b/file", 0o640, content=b"hello"), link("opt/z", "a")], tmp_path / "layer")
    with tarfile.open(layer.path) as tar:
        members = tar.getmembers()
        file = tar.extractfile("opt/a/b/file")
        assert file is not None
        assert file.read() == b"hello"
    assert [member.name for member in members] == ["opt", "opt/a", "opt/a/b", "opt/a/b/file", "opt/z"]
    assert all((member.mtime, member.uid, member.gid, member.uname) == (0, 0, 0, "") for member in members)
    assert [oct(member.mode) for member in members[:4]] == ["0o755", "0o755", "0o755", "0o640"]


def test_folders_are_read_with_modes_and_links_but_without_devices(tmp_path: Path) -> None:
    tree = _tree(tmp_path / "tree")
    os.mkfifo(tree / "pipe")
    found = {entry.path: entry for entry in from_folder(tree, "root", skip=lambda path: path == "etc")}
    assert set(found) == {"root/usr", "root/usr/bin", "root/usr/bin/tool", "root/usr/bin/alias", "root/bin"}
    assert found["root/usr/bin/tool"].mode == 0o755
    assert (found["root/bin"].kind, found["root/bin"].target) == ("link", "usr/bin")


def test_plain_modes_do_not_depend_on_who_made_the_files(tmp_path: Path) -> None:
    tree = _tree(tmp_path / "tree")
    for path, mode in {"usr": 0o700, "usr/bin/tool": 0o700, "etc/secret": 0o600}.items():
        (tree / path).chmod(mode)
    modes = {entry.path: entry.mode for entry in from_folder(tree, plain_modes=True)}
    assert (modes["usr"], modes["usr/bin/tool"], modes["etc/secret"]) == (0o755, 0o755, 0o644)


@pytest.mark.parametrize("path", ["", ".", "../x", "a/../../b"])
def test_a_path_that_leaves_the_layer_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(ValueError, match="no path within a layer"):
        write_layer([Entry(path)], tmp_path / "layer")


def test_the_archive_is_what_docker_save_writes(tmp_path: Path) -> None:
    layers = [write_layer([Entry("a", content=b"1")], tmp_path / "1"), write_layer([Entry("b", content=b"2")], tmp_path / "2")]
    config = ImageConfig(cmd=["run"], env={"A": "1"}, ports=["80/tcp"], user="101", stop_signal="SIGQUIT")
    image_id = write_archive(tmp_path / "image", tags=["a:1", "b:2"], layers=layers, config=config)
    with tarfile.open(tmp_path / "image") as tar:
        manifest = json.loads(_read(tar, "manifest.json"))
        document = json.loads(_read(tar, manifest[0]["Config"]))
        assert [f"sha256:{name.removesuffix('.tar')}" for name in manifest[0]["Layers"]] == [layer.digest for layer in layers]
        assert [_read(tar, name) for name in manifest[0]["Layers"]] == [layer.path.read_bytes() for layer in layers]
    assert image_id == f"sha256:{manifest[0]['Config'].removesuffix('.json')}"
    assert manifest[0]["RepoTags"] == ["a:1", "b:2"]
    assert document["rootfs"]["diff_ids"] == [layer.digest for layer in layers]
    assert document["config"]["Env"][1:] == ["A=1"]
    assert document["config"]["ExposedPorts"] == {"80/tcp": {}}
    assert "Entrypoint" not in document["config"]


def test_the_same_layer_may_stand_twice(tmp_path: Path) -> None:
    layer = write_layer([Entry("a", content=b"1")], tmp_path / "1")
    write_archive(tmp_path / "image", tags=["a:1"], layers=[layer, Layer(layer.path, layer.digest)], config=ImageConfig())
    with tarfile.open(tmp_path / "image") as tar:
        assert len(json.loads(_read(tar, "manifest.json"))[0]["Layers"]) == 2


def test_an_archive_of_several_images_has_a_shared_layer_once(tmp_path: Path) -> None:
    base, top = (write_layer([Entry(name, content=b"1")], tmp_path / name) for name in ("base", "top"))
    one, two = ImageContent(["a:1"], [base, top], ImageConfig()), ImageContent(["b:1", "b:2"], [base], ImageConfig(user="1"))
    ids = write_images(tmp_path / "images", [one, two])
    with tarfile.open(tmp_path / "images") as tar:
        manifest = json.loads(_read(tar, "manifest.json"))
        names = tar.getnames()
    assert [item["RepoTags"] for item in manifest] == [["a:1"], ["b:1", "b:2"]]
    assert manifest[0]["Layers"][0] == manifest[1]["Layers"][0]
    assert len(names) == len(set(names)) == 1 + 2 + 2
    assert ids == [f"sha256:{item['Config'].removesuffix('.json')}" for item in manifest]
    write_archive(tmp_path / "alone", tags=["a:1"], layers=[base, top], config=ImageConfig())
    with tarfile.open(tmp_path / "alone") as tar:
        assert json.loads(_read(tar, "manifest.json")) == manifest[:1]


def _read(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    assert file is not None
    return file.read()
