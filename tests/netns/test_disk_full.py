"""A disk that is full at any write of ours: one line that names the file, the old content untouched, and the next run finishes.

Each writer runs with room for no further page, then for one, for two, until it is done; then the same with files and folders.
So the disk is full at every single write, whatever the writer does. ``tests/unit/test_writers.py`` finds the writers.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import get_args

import pytest

from moyai.core.files import write_private
from moyai.images.cache import Cache
from moyai.lifecycle.kubeconfig import merge_kubeconfig
from moyai.lifecycle.record import Record
from moyai.localcloud import clouds_yaml, secrets
from moyai.localcloud.drivers.octavia import vip_link
from moyai.localcloud.layout import LocalCloudConfig
from moyai.toolchain.component_store import ComponentStore
from moyai.toolchain.pins import Pin
from tests.netns.small_disk import Shortage, every_shortage, names_the_file, no_rest
from tests.unit.lifecycle_world import World, whole

MOYAI = [sys.executable, "-c", "from moyai.cli.main import main; main()"]
SHORTAGES: tuple[Shortage, ...] = get_args(Shortage)
LARGE = "x" * 9000


@pytest.mark.parametrize("shortage", SHORTAGES)
@pytest.mark.parametrize("before", [None, "old" * 3000])
def test_a_private_file(tmp_path: Path, shortage: Shortage, before: str | None) -> None:
    def prepare(folder: Path) -> Path:
        file = folder / "a" / "b"
        if before is not None:
            write_private(file, before)
        return file

    def intact(file: Path) -> None:
        assert (file.read_text() if file.exists() else None) == before
        no_rest(file.parent)

    def done(file: Path) -> None:
        assert file.read_text() == LARGE

    failed = every_shortage(
        tmp_path, shortage, prepare=prepare, act=lambda file: write_private(file, LARGE), intact=intact, done=done
    )
    assert failed >= (3 if shortage == "pages" else 1)


CONFIG = LocalCloudConfig("full", "10.1.0.0/24", "10.2.0.0/24")
THEIRS = "clouds: {theirs: {auth: {auth_url: 'http://elsewhere'}}}\n"


@pytest.mark.parametrize("shortage", SHORTAGES)
def test_the_users_clouds_yaml(tmp_path: Path, shortage: Shortage) -> None:
    values = secrets.generate()

    def prepare(folder: Path) -> Path:
        (folder / "clouds.yaml").write_text(THEIRS)
        return folder / "clouds.yaml"

    def intact(file: Path) -> None:
        assert file.read_text() == THEIRS
        no_rest(file.parent)

    def done(file: Path) -> None:
        assert "elsewhere" in file.read_text()
        assert "full-admin" in file.read_text()

    def act(file: Path) -> None:
        clouds_yaml.put(file, CONFIG, secrets=values)

    assert every_shortage(tmp_path, shortage, prepare=prepare, act=act, intact=intact, done=done)


@pytest.mark.parametrize("shortage", SHORTAGES)
def test_the_users_kubeconfig(tmp_path: Path, shortage: Shortage, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path / "made", monkeypatch)
    world.up()
    text = (world.paths.clusters / "quickstart" / "kubeconfig").read_text()
    before = "clusters: []\ncontexts: []\nusers: []\n"

    def prepare(folder: Path) -> Path:
        (folder / "config").write_text(before)
        return folder / "config"

    def intact(file: Path) -> None:
        assert file.read_text() == before
        no_rest(file.parent)

    assert every_shortage(
        tmp_path,
        shortage,
        prepare=prepare,
        act=lambda file: merge_kubeconfig(text, file),
        intact=intact,
        done=lambda file: merge_kubeconfig(text, file),
    )


class Cut:
    """A cluster in memory whose state folder is on the disk."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = World(folder, monkeypatch)

    def readable(self) -> None:
        """Whatever is on the disk is whole."""
        record = Record.open(self.world.paths, "quickstart")
        if record is not None:
            record.secrets()
        for file in self.world.paths.state.rglob("*"):
            assert not file.is_file() or file.name.endswith(".lock") or file.stat().st_size, file
        no_rest(self.world.paths.state)

    def built(self) -> None:
        assert self.world.names() == whole()
        assert not self.world.up().changed


@pytest.mark.parametrize("shortage", SHORTAGES)
def test_up_from_nothing(tmp_path: Path, shortage: Shortage, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = every_shortage(
        tmp_path,
        shortage,
        prepare=lambda folder: Cut(folder, monkeypatch),
        act=lambda cut: cut.world.up(),
        intact=Cut.readable,
        done=Cut.built,
    )
    assert failed > 10


@pytest.mark.parametrize("shortage", SHORTAGES)
def test_a_cluster_that_grows(tmp_path: Path, shortage: Shortage, monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare(folder: Path) -> Cut:
        cut = Cut(folder, monkeypatch)
        cut.world.up("spec: {nodePools: [{replicas: 1}]}")
        return cut

    def intact(cut: Cut) -> None:
        cut.readable()
        assert Record.open(cut.world.paths, "quickstart") is not None

    assert every_shortage(tmp_path, shortage, prepare=prepare, act=lambda cut: cut.world.up(), intact=intact, done=Cut.built)


@pytest.mark.parametrize("shortage", SHORTAGES)
def test_down(tmp_path: Path, shortage: Shortage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Removing needs room as well: the record says what is gone, before the folder goes."""

    def prepare(folder: Path) -> Cut:
        cut = Cut(folder, monkeypatch)
        cut.world.up()
        return cut

    def act(cut: Cut) -> None:
        if Record.open(cut.world.paths, "quickstart") is not None:
            assert cut.world.down().left == ()

    def done(cut: Cut) -> None:
        assert cut.world.all_names() == []
        assert not (cut.world.paths.clusters / "quickstart").exists()

    every_shortage(tmp_path, shortage, prepare=prepare, act=act, intact=Cut.readable, done=done)


def _made(target: Path) -> None:
    target.mkdir()
    for name in ("one", "two", "three"):
        (target / name).write_text(LARGE)


@pytest.mark.parametrize("shortage", SHORTAGES)
def test_the_image_store(tmp_path: Path, shortage: Shortage) -> None:
    def intact(cache: Cache) -> None:
        assert not cache.path("thing", "0123456789abcdef").exists()

    def done(cache: Cache) -> None:
        assert [(one.name, one.read_text()) for one in sorted(cache.path("thing", "0123456789abcdef").iterdir())] == [
            (name, LARGE) for name in ("one", "three", "two")
        ]
        assert not list(cache.folder.glob(".tmp-*"))

    failed = every_shortage(
        tmp_path,
        shortage,
        prepare=lambda folder: Cache(folder / "images"),
        act=lambda cache: cache.get("thing", "0123456789abcdef", make=_made),
        intact=intact,
        done=done,
    )
    assert failed > 3


@pytest.mark.parametrize("shortage", SHORTAGES)
def test_the_toolchains_store(tmp_path: Path, shortage: Shortage) -> None:
    pin = Pin("tool", "1.0", ("tool",), "0123456789abcdef")

    def fill(part: Path) -> str:
        (part / "tool").write_text(LARGE)
        return "a test"

    def intact(store: ComponentStore) -> None:
        assert store.find(pin) is None

    def done(store: ComponentStore) -> None:
        assert store.find(pin) is not None

    failed = every_shortage(
        tmp_path,
        shortage,
        prepare=lambda folder: ComponentStore(folder / "toolchain"),
        act=lambda store: store.make(pin, fill, on_wait=str),
        intact=intact,
        done=done,
    )
    assert failed > 2


PLUG = vip_link.Plug("port", "fa:16:3e:00:00:01", "network", 1500, ())


@pytest.mark.parametrize("shortage", SHORTAGES)
@pytest.mark.parametrize("before", [None, PLUG])
def test_the_files_of_the_load_balancer_daemon(tmp_path: Path, shortage: Shortage, before: vip_link.Plug | None) -> None:
    plug = vip_link.Plug("another", PLUG.mac, "network", 1450, ())

    def prepare(folder: Path) -> Path:
        if before is not None:
            before.save(folder / "plug.json")
        return folder / "plug.json"

    def act(file: Path) -> None:
        plug.save(file)
        vip_link.PortBefore(secured=True, groups=("g",)).save(file.with_name(vip_link.TAKEN))

    def intact(file: Path) -> None:
        assert vip_link.Plug.read(file) in (before, plug)
        assert vip_link.PortBefore.read(file.with_name(vip_link.TAKEN)) is None
        no_rest(file.parent)

    def done(file: Path) -> None:
        assert vip_link.Plug.read(file) == plug
        assert vip_link.PortBefore.read(file.with_name(vip_link.TAKEN)) is not None

    assert every_shortage(tmp_path, shortage, prepare=prepare, act=act, intact=intact, done=done, says=names_the_file)
