"""The images of Kubernetes' own tests: their names, their layers, and what upstream's Dockerfiles put into them."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from moyai.core.errors import Terminal
from moyai.images import e2e_images, recipes
from moyai.images.cache import Cache
from moyai.images.reference import ImageReference
from moyai.toolchain import Component

FILES = {
    "e2e": ("e2e.test", "agnhost", "nnp", "regression-issue-74839", "sample-apiserver", "localhost.crt", "localhost.key",
            "kitten.jpg", "kitten.json", "nautilus.jpg", "nautilus.json"),
    "coredns": ("coredns",),
    "etcd": ("etcd", "etcdctl"),
    "pause": ("pause",),
}  # fmt: skip


@pytest.fixture
def components(tmp_path: Path) -> dict[str, Component]:
    made: dict[str, Component] = {}
    for name, files in FILES.items():
        folder = tmp_path / name / "1.0-key"
        folder.mkdir(parents=True)
        for file in files:
            (folder / file).write_text(f"#!/bin/sh\necho {file}\n")
        made[name] = Component(name, "1.0", "built", {file: folder / file for file in files})
    listed = sorted({name for names in e2e_images.NAMES.values() for name in names} - e2e_images.IN_MANIFESTS)
    tests = made["e2e"].files["e2e.test"]
    tests.write_text("#!/bin/sh\n" + "".join(f"echo {name}\n" for name in [*listed, "registry.k8s.io/other:1"]))
    tests.chmod(0o755)
    return made


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """A cache whose Debian trees are a few files each."""

    def tree(cache: Cache, name: str, **_: object) -> Path:
        root = tmp_path / f"debian-{name}"
        (root / "bin").mkdir(parents=True, exist_ok=True)
        (root / "bin/busybox").write_text("#!/bin/sh\necho ash\necho cat\necho sh\n")
        (root / "bin/busybox").chmod(0o755)
        (root / "bin/bash-static").write_text("bash")
        return root

    monkeypatch.setattr(recipes, "debian_tree", tree)
    return Cache(tmp_path / "images")


def _images(archive: Path) -> dict[str, tuple[dict[str, tarfile.TarInfo], dict[str, Any]]]:
    """Name → entries of all layers, the higher ones last, and how the image runs."""
    found: dict[str, tuple[dict[str, tarfile.TarInfo], dict[str, Any]]] = {}
    with tarfile.open(archive) as tar:
        for item in json.loads(_content(tar, "manifest.json")):
            entries: dict[str, tarfile.TarInfo] = {}
            for layer in item["Layers"]:
                with tarfile.open(fileobj=tar.extractfile(layer)) as inner:
                    entries |= {member.name: member for member in inner}
            found[item["RepoTags"][0]] = (entries, json.loads(_content(tar, item["Config"]))["config"])
    return found


def _content(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    assert file is not None
    return file.read()


def test_every_image_has_what_its_tests_start(cache: Cache, components: dict[str, Component]) -> None:
    images = _images(e2e_images.archive(cache, components, on_line=lambda _: None))
    assert set(images) == {names[0] for names in e2e_images.NAMES.values()}
    by_name = {ImageReference.parse(name).path.rpartition("/")[2]: image for name, image in images.items()}
    for name, (entries, config) in by_name.items():
        if name != "nginx":
            assert {program.lstrip("/") for program in config.get("Entrypoint", [])} <= set(entries)
    agnhost, how = by_name["agnhost"]
    assert {"agnhost", "agnhost-2", "coredns", "localhost.crt", "localhost.key", "uploads", "etc/wgetrc"} <= set(agnhost)
    assert (how["Entrypoint"], how["Cmd"]) == (["/agnhost"], ["pause"])
    assert {"kitten.jpg", "data.json", "agnhost"} <= set(by_name["kitten"][0])
    assert oct(by_name["nonewprivs"][0]["usr/local/bin/nnp"].mode) == "0o6755"
    assert by_name["nonroot"][1]["User"] == "1234"
    busybox = by_name["busybox"][0]
    # busybox' own shell drops variables whose names have a dash
    assert [busybox[f"bin/{name}"].linkname for name in ("sh", "ash", "cat")] == ["bash", "busybox", "busybox"]


def test_the_archive_is_made_once(cache: Cache, components: dict[str, Component]) -> None:
    first = e2e_images.archive(cache, components, on_line=lambda _: None)
    made = first.stat().st_ino
    assert e2e_images.archive(cache, components, on_line=lambda _: None) == first
    assert first.stat().st_ino == made
    assert [path.name for path in cache.folder.iterdir() if not path.name.startswith(".lock")] == [first.name]


def test_a_name_that_the_tests_do_not_ask_for_is_refused() -> None:
    listed = "\n".join(name for names in e2e_images.NAMES.values() for name in names)
    e2e_images.check_names(listed)
    with pytest.raises(Terminal, match=r"do not ask for registry.k8s.io/e2e-test-images/agnhost:2.66.1"):
        e2e_images.check_names(listed.replace("agnhost:2.66.1", "agnhost:2.67"))
