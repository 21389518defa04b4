"""Images with the real programs around them: containerd imports and pulls them, the registry takes them, a node holds them."""

from __future__ import annotations

import json
import tarfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from moyai.core.errors import Retriable, Terminal
from moyai.core.paths import default_paths
from moyai.core.progress import Reporter
from moyai.images import containerd_store, node_image, recipes, references
from moyai.images.cache import Cache
from moyai.images.oci import Entry, ImageConfig, folder, write_archive, write_layer
from moyai.images.python_image import moyai_image
from moyai.images.reference import ImageReference
from moyai.images.registry import Registry
from moyai.linux import netns
from moyai.linux.background import background
from moyai.linux.process import run
from moyai.toolchain import Component, Toolchain

NAMESPACE = "moyai-test-images"
REGISTRY = """version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: %s}, delete: {enabled: true}}
http: {addr: 127.0.0.1:5001}
"""


@pytest.fixture(scope="module")
def components() -> dict[str, Component]:
    return Toolchain(default_paths(), Reporter()).ensure(["containerd", "registry"])


@contextmanager
def quiet_network() -> Generator[None]:
    """A namespace with a loopback and nothing else: nothing can leave."""
    netns.remove(NAMESPACE)
    netns.add(NAMESPACE)
    try:
        run(["ip", "-n", NAMESPACE, "link", "set", "lo", "up"])
        with netns.inside(NAMESPACE):
            yield
    finally:
        netns.remove(NAMESPACE)


def _archive(folder_: Path, tag: str, *, layers: int = 2) -> Path:
    made = [
        write_layer([folder("data"), Entry(f"data/{number}", content=tag.encode() * 1000)], folder_ / f"layer{number}")
        for number in range(layers)
    ]
    write_archive(folder_ / "image.tar", tags=[tag], layers=made, config=ImageConfig(cmd=["/none"]))
    return folder_ / "image.tar"


def test_the_store_holds_unpacked_pinned_images_and_no_packed_layers(tmp_path: Path, components: dict[str, Component]) -> None:
    root = tmp_path / "store"
    containerd_store.import_images(components["containerd"], root, archives=[_archive(tmp_path, "example.org/a:1")])
    blobs = list((root / "io.containerd.content.v1.content/blobs/sha256").iterdir())
    assert sorted("schemaVersion" in path.read_text() for path in blobs) == [False, True]  # configuration and manifest are left
    unpacked = [path for path in root.glob("io.containerd.snapshotter.v1.overlayfs/snapshots/*/fs/data/*") if path.is_file()]
    assert sorted(path.name for path in unpacked) == ["0", "1"]
    assert not list(root.glob("*introspection*"))


def test_a_store_can_be_added_to(tmp_path: Path, components: dict[str, Component]) -> None:
    root = tmp_path / "store"
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        containerd_store.import_images(
            components["containerd"], root, archives=[_archive(tmp_path / str(number), f"example.org/a:{number}")]
        )
    assert len(list(root.glob("io.containerd.snapshotter.v1.overlayfs/snapshots/*/fs/data/*"))) == 4


def test_what_containerd_refuses_is_told_in_its_words(tmp_path: Path, components: dict[str, Component]) -> None:
    (tmp_path / "broken.tar").write_bytes(b"x" * 2048)
    with pytest.raises(Terminal, match="ctr") as caught:
        containerd_store.import_images(components["containerd"], tmp_path / "store", archives=[tmp_path / "broken.tar"])
    assert "\n" not in str(caught.value)


def test_what_is_pushed_can_be_pulled(tmp_path: Path, components: dict[str, Component]) -> None:
    (tmp_path / "registry.yml").write_text(REGISTRY % (tmp_path / "registry"))
    program = [str(components["registry"].files["registry"]), "serve", str(tmp_path / "registry.yml")]
    with quiet_network(), background(program, tmp_path / "log") as daemon:
        registry = Registry("http://127.0.0.1:5001", timeout=5)
        _wait(registry, daemon.check)
        archive = _archive(tmp_path, "example.org/team/app:1")
        assert [item.sent > 0 for item in registry.push(archive)] == [True]
        assert [item.sent for item in registry.push(archive)] == [0]
        assert [(item.path, item.tag) for item in registry.list()] == [("team/app", "1")]
        pulled = _pull(components["containerd"], tmp_path, name="127.0.0.1:5001/team/app:1")
        assert json.loads(pulled)["config"]["Cmd"] == ["/none"]
        registry.delete(ImageReference.parse("example.org/team/app:1"))
        assert registry.list() == []


def _wait(registry: Registry, check: Callable[[], None]) -> None:
    deadline = time.monotonic() + 30
    while True:
        check()
        try:
            registry.list()
        except Retriable:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        else:
            return


def _pull(containerd: Component, work: Path, *, name: str) -> str:
    """Fetch an image with containerd and return its configuration."""
    (work / "state").mkdir()
    config = work / "containerd.toml"
    config.write_text(
        f"version = 3\nroot = '{work}/root'\nstate = '{work}/state'\n"
        "disabled_plugins = ['io.containerd.cri.v1.images', 'io.containerd.cri.v1.runtime', 'io.containerd.internal.v1.opt']\n"
        f"[grpc]\naddress = '{work}/c.sock'\n[ttrpc]\naddress = '{work}/t.sock'\n"
    )
    with background([str(containerd.files["containerd"]), "--config", str(config)], work / "containerd.log") as daemon:
        ctr = [str(containerd.files["ctr"]), "--address", f"{work}/c.sock"]
        while run([*ctr, "version"], check=False).returncode:
            daemon.check()
            time.sleep(0.1)
        run([*ctr, "images", "pull", "--local", "--plain-http", name], timeout=60)
        digests = run([*ctr, "content", "ls", "-q"]).stdout.split()
        texts = [run([*ctr, "content", "get", digest]).stdout for digest in digests]
        return next(text for text in texts if '"diff_ids"' in text)


def test_moyais_own_image_is_the_same_bytes_again(tmp_path: Path) -> None:
    """The small layer is recreated; the big one comes from the cache, so that this needs no network."""
    cache = Cache(default_paths().images)
    first = moyai_image(cache, references.MOYAI, on_line=print)
    content = first.read_bytes()
    first.unlink()
    assert moyai_image(cache, references.MOYAI, on_line=print).read_bytes() == content


def test_the_node_image_is_a_whole_root_file_system() -> None:
    paths, reporter = default_paths(), Reporter()
    image = node_image.ensure(Toolchain(paths, reporter), paths, reporter=reporter)
    listing = run(["bash", "-o", "pipefail", "-c", 'zstd -dc "$1" | tar -tv --numeric-owner', "list", str(image.path)]).stdout
    found: dict[str, list[str]] = {}
    for line in listing.splitlines():
        words = line.split(maxsplit=5)
        found[words[5].partition(" -> ")[0].partition(" link to ")[0].rstrip("/")] = words
    assert found["."][0] == "drwxr-xr-x"
    for program in ("bin/kubelet", "bin/kubeadm", "bin/kubectl", "bin/containerd", "sbin/runc"):
        assert found[f"usr/local/{program}"][:2] == ["-rwxr-xr-x", "0/0"]
    assert found["etc/machine-id"][2] == "0"
    assert found["etc/systemd/system/multi-user.target.wants/kubelet.service"][0].startswith("l")
    assert {"opt/cni/bin/bridge", "opt/cni/bin/host-local", "etc/containerd/certs.d", "usr/bin/cloud-init"} <= set(found)
    assert not [path for path in found if path.startswith(("etc/ssh/ssh_host_", "dev/", "run/", "etc/hostname"))]
    private = [
        path
        for path, words in found.items()
        if path.startswith(("etc/systemd", "usr/lib/moyai", "etc/moyai")) and words[0][7] == "-"
    ]
    assert private == []
    stored = [path for path in found if path.startswith("var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/")]
    for program in ("kube-apiserver", "kube-proxy", "etcd", "coredns", "pause", "moyai"):
        assert any(path.endswith(f"/{program}") for path in stored), program
    assert set(recipes.PROGRAMS) <= set(references.load().images)


def test_an_archive_of_ours_is_read_by_tar(tmp_path: Path) -> None:
    with tarfile.open(_archive(tmp_path, "a:1")) as tar:
        assert len(tar.getnames()) == 4
