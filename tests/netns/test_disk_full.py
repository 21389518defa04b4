"""A disk that is full at any write of ours: one line that names the file, the old content untouched, and the next run finishes.

Each writer runs with room for no further page, then for one, for two, until it is done; then the same with files and folders.
So the disk is full at every single write, whatever the writer does. ``tests/unit/test_writers.py`` finds the writers.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import click
import pytest

from moyai.core.errors import MoyaiError, NoSpace, UsageError
from moyai.core.files import write_private
from moyai.images.cache import Cache
from moyai.lifecycle.kubeconfig import merge_kubeconfig
from moyai.lifecycle.record import Record
from moyai.localcloud import clouds_yaml, secrets
from moyai.localcloud.drivers.octavia import vip_link
from moyai.localcloud.layout import LocalCloudConfig
from moyai.toolchain.component_store import ComponentStore
from moyai.toolchain.pins import Pin
from tests.netns.small_disk import Shortage, SmallDisk, on_small_disk
from tests.unit.lifecycle_world import World, whole

MOYAI = [sys.executable, "-c", "from moyai.cli.main import main; main()"]
SHORTAGES: tuple[Shortage, ...] = get_args(Shortage)
LARGE = "x" * 9000
#: More than any writer here needs.
MOST = 400


def one_line(error: BaseException, disk: SmallDisk) -> None:
    """What a user sees of it."""
    assert isinstance(error, (NoSpace, MoyaiError)), repr(error)
    assert not isinstance(error, UsageError)
    text = str(error)
    assert "\n" not in text
    assert "o space left on" in text, text
    assert str(disk.folder) in text, text
    assert error.exit_code == 1


def every_shortage(
    tmp_path: Path,
    shortage: Shortage,
    *,
    prepare: Callable[[Path], Any],
    act: Callable[[Any], None],
    intact: Callable[[Any], None],
    done: Callable[[Any], None],
    says: Callable[[BaseException, SmallDisk], None] = one_line,
) -> int:
    """Run ``act`` with ever more room, each time in a new folder, until it succeeds; returns how often it failed.

    ``prepare`` makes what was there before. ``intact`` looks after each failure, ``done`` after each success.
    """
    mount = tmp_path / "disk"
    mount.mkdir()
    failed = 0

    def body(disk: SmallDisk) -> None:
        nonlocal failed
        for room in range(MOST):
            folder = mount / str(room)
            folder.mkdir()
            site = prepare(folder)
            disk.leave(room, shortage)
            try:
                act(site)
            except (MoyaiError, OSError) as error:
                says(error, disk)
                disk.make_room()
                intact(site)
                act(site)
                done(site)
                failed += 1
                shutil.rmtree(folder)
            else:
                disk.make_room()
                done(site)
                return
        raise AssertionError(f"not done with room for {MOST} {shortage}")

    on_small_disk(mount, body)
    return failed


def no_rest(folder: Path) -> None:
    """Nothing that was written aside is left."""
    assert not [path for path in folder.rglob(".*") if path.is_file() and not path.name.endswith(".lock")]
    assert not list(folder.rglob("*.new"))


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
        act=lambda store: store.make(pin, fill, on_wait=lambda _: None),
        intact=intact,
        done=done,
    )
    assert failed > 2


def names_the_file(error: BaseException, disk: SmallDisk) -> None:
    """What the log of one of the local cloud's programs says."""
    assert isinstance(error, OSError)
    assert error.errno == errno.ENOSPC
    assert str(error.filename).startswith(str(disk.folder))


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


# ---- whole commands


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state folder of a cluster."""
    world = World(tmp_path / "made", monkeypatch)
    world.up()
    return world.paths.state


def command(*words: str, state: Path, home: Path, output: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "MOYAI_STATE_DIR": str(state), "HOME": str(home), "TMPDIR": str(home)}
    with (output or Path(os.devnull)).open("wb") as stdout:
        return subprocess.run(
            [*MOYAI, *words], env=environment, stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, check=False
        )


def said(done: subprocess.CompletedProcess[bytes], code: int) -> str:
    """The one line of a command."""
    lines = done.stderr.decode().splitlines()
    assert done.returncode == code, lines
    assert len(lines) == 1, lines
    assert lines[0].startswith("moyai: ")
    return lines[0]


def test_commands_on_a_full_disk(tmp_path: Path, cluster: Path) -> None:
    mount = tmp_path / "disk"
    mount.mkdir()

    def body(disk: SmallDisk) -> None:
        home, state = mount / "home", mount / "state"
        home.mkdir()
        shutil.copytree(cluster, state)
        disk.leave(0, "inodes")
        line = said(command("kubeconfig", "--write", state=state, home=home), 1)
        assert f"{home}/.kube" in line
        assert "No space left on device" in line
        disk.make_room()
        output = mount / "output"
        output.touch()
        disk.leave(0, "pages")
        line = said(command("kubeconfig", state=state, home=home, output=output), 1)
        assert "standard output cannot be written: No space left on device" in line
        disk.make_room()
        done = command("kubeconfig", "--write", state=state, home=home, output=output)
        assert done.returncode == 0, done.stderr
        assert (home / ".kube" / "config").exists()

    on_small_disk(mount, body)


def test_an_error_whose_details_cannot_be_kept(tmp_path: Path) -> None:
    """The command fails with an error that nobody foresaw, and the folder for its details cannot be made."""
    mount = tmp_path / "disk"
    mount.mkdir()
    broken = (
        "from moyai.cli import main\n"
        "main.COMMANDS['status'] = ('tests.netns.test_disk_full:unforeseen', 'fails')\n"
        "main.main()\n"
    )

    def body(disk: SmallDisk) -> None:
        state = mount / "state"
        disk.leave(0, "inodes")
        environment = {**os.environ, "MOYAI_STATE_DIR": str(state)}
        done = subprocess.run([sys.executable, "-c", broken, "status"], env=environment, stderr=subprocess.PIPE, check=False)
        line = said(done, 1)
        assert "unforeseen error" in line
        assert "its details cannot be kept" in line
        assert "No space left on device" in line

    on_small_disk(mount, body)


@click.command()
def unforeseen() -> None:
    """A command with a fault."""
    raise ZeroDivisionError("a fault of ours")
