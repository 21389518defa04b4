"""A backup of a cluster: what is in the file, when there is none, and what a user reads."""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pyrage
import pytest

from moyai.cli import cluster as commands
from moyai.cli.main import run
from moyai.core.errors import MoyaiError, NoSpace, Retriable, Terminal, UsageError
from moyai.core.progress import Reporter
from moyai.kube.resources import NODES, PODS
from moyai.lifecycle import backup as backups
from moyai.lifecycle.backup import SNAPSHOT, BackupManifest
from moyai.lifecycle.backup import encryption as enc
from moyai.lifecycle.record import Record
from moyai.lifecycle.work import locked
from tests.fakes.cluster_api import ClusterApi
from tests.unit.lifecycle_world import World
from tests.unit.test_plan_control_planes import THREE

KEY = pyrage.x25519.Identity.generate()
FOR_KEY, BY_KEY = enc.Recipients((str(KEY.to_public()),)), enc.Opener((str(KEY).encode(),))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path, monkeypatch)
    use_apis(made, monkeypatch)
    made.up()
    return made


def use_apis(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def require_api(record: Record) -> ClusterApi:
        return world.kubes[record.uid]

    monkeypatch.setattr(backups, "require_api", require_api)


def take(world: World, file: Path, *, replaces: bool = False, name: str = "quickstart") -> BackupManifest:
    return backups.take(
        name, file, recipients=FOR_KEY, replaces=replaces, paths=world.paths, reporter=Reporter(), clock=world.clock
    )


def nothing_left(folder: Path) -> bool:
    return [one.name for one in folder.iterdir() if one.name not in ("cache", "state")] == []


def test_a_backup_has_all_that_a_cluster_can_be_restored_from(world: World, tmp_path: Path) -> None:
    file, database = tmp_path / "b.moyai", io.BytesIO()
    made = take(world, file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    found = backups.read(file, BY_KEY, into=lambda name: database if name == SNAPSHOT else None)
    assert found.manifest == made
    record = Record.open(world.paths, "quickstart")
    assert record is not None
    assert (made.cluster, made.uid, made.cloud, made.etcd, made.revision) == ("quickstart", record.uid, "moyai", "3.7.3", 7)
    etcds = world.kube().etcd.database
    assert database.getvalue() == etcds + hashlib.sha256(etcds).digest()
    authorities = ["ca", "etcd/ca", "front-proxy-ca"]
    pki = [f"pki/{name}.{kind}" for name in authorities for kind in ("crt", "key")] + ["pki/sa.key", "pki/sa.pub"]
    assert sorted(found.files) == sorted([*pki, "record.json", "secrets.json", "id_ed25519", "id_ed25519.pub"])
    for name, content in found.files.items():
        assert content == (record.folder / name).read_bytes()
    assert "encryption-key" in json.loads(found.files["secrets.json"])
    # without a place for it the snapshot is checked, and goes nowhere
    assert backups.read(file, BY_KEY).files == found.files


def test_nothing_of_it_can_be_read_in_the_file(world: World, tmp_path: Path) -> None:
    file = tmp_path / "b.moyai"
    take(world, file)
    content = file.read_bytes()
    assert not [word for word in (b"etcd's database", b"quickstart", b"PRIVATE KEY", b"ustar") if word in content]


def test_the_cluster_is_as_before(world: World, tmp_path: Path) -> None:
    before = (world.all_names(), world.kube().names(PODS), (world.paths.clusters / "quickstart" / "record.json").read_text())
    take(world, tmp_path / "b.moyai")
    after = (world.all_names(), world.kube().names(PODS), (world.paths.clusters / "quickstart" / "record.json").read_text())
    assert after == before


def test_a_file_that_is_there_stays_as_it_is(world: World, tmp_path: Path) -> None:
    file = tmp_path / "b.moyai"
    file.write_text("precious")
    with pytest.raises(UsageError, match=r"b\.moyai is there already: another name, or --force"):
        take(world, file)
    assert file.read_text() == "precious"
    take(world, file, replaces=True)
    assert backups.read(file, BY_KEY).manifest.cluster == "quickstart"


def test_what_a_link_leads_to_is_replaced_and_the_link_stays(world: World, tmp_path: Path) -> None:
    file, link = tmp_path / "state" / "real", tmp_path / "state" / "link"
    link.symlink_to(file)
    take(world, link, replaces=True)
    assert link.is_symlink()
    assert backups.read(file, BY_KEY).manifest.cluster == "quickstart"


def test_what_a_restore_has_left_is_in_no_backup(world: World, tmp_path: Path) -> None:
    left = world.paths.clusters / "quickstart" / "restore"
    left.mkdir()
    (left / "etcd.snapshot").write_bytes(bytes(1000))
    take(world, tmp_path / "b")
    assert not [name for name in backups.read(tmp_path / "b", BY_KEY).files if name.startswith("restore")]


def cut(printed: bytes) -> bytes:
    return printed[:-5]


def longer(printed: bytes) -> bytes:
    return printed + b"x"


def changed(printed: bytes) -> bytes:
    return printed.replace(b"database", b"databASE", 1)


def without_its_first_line(_: bytes) -> bytes:
    return b"x" * 3000


def nothing(_: bytes) -> bytes:
    return b""


def other_json(_: bytes) -> bytes:
    return b"[]\nx"


@pytest.mark.parametrize(
    ("hurt", "why"),
    [
        (cut, "the snapshot is not whole: 42 of 47 bytes"),
        (longer, "the snapshot is not whole: 48 of 47 bytes"),
        (changed, "the snapshot is not whole: 47 of 47 bytes, or etcd's hash is another"),
        (without_its_first_line, "sends no snapshot"),
        (nothing, "sends no snapshot"),
        (other_json, "sends no snapshot"),
    ],
)
def test_a_snapshot_that_is_not_whole_leaves_no_file(
    world: World, tmp_path: Path, hurt: Callable[[bytes], bytes], why: str
) -> None:
    world.kube().etcd.hurt = hurt
    with pytest.raises(MoyaiError, match=why):
        take(world, tmp_path / "b.moyai")
    assert nothing_left(tmp_path)
    assert world.kube().names(PODS) == []


def test_a_full_disk_leaves_no_file(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(NoSpace, match=r"b\.moyai cannot be written"):
        take(world, tmp_path / "b.moyai")
    assert nothing_left(tmp_path)


def test_a_control_plane_that_gives_none_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, monkeypatch)
    use_apis(world, monkeypatch)
    world.up(THREE)
    etcd = world.kube().etcd
    etcd.running.discard("quickstart-control-plane-0")
    take(world, tmp_path / "b.moyai")
    etcd.holder = "x"
    for server in list(world.kube().store.all(NODES)):
        world.silence(server["metadata"]["name"], minutes=9)
    with pytest.raises(Terminal, match="no control plane gives a snapshot of etcd: none is Ready"):
        take(world, tmp_path / "c.moyai")


def test_a_pod_of_an_earlier_run_is_made_again(world: World, tmp_path: Path) -> None:
    pod = {"metadata": {"name": "backup-quickstart-control-plane-0", "namespace": "kube-system"}, "spec": {}}
    world.kube().store.put(PODS, {**pod, "status": {"phase": "Failed"}})
    take(world, tmp_path / "b.moyai")
    assert world.kube().names(PODS) == []


def test_two_at_once_do_not_work_on_one_cluster(world: World, tmp_path: Path) -> None:
    with locked(world.paths, "quickstart"), pytest.raises(Terminal, match="another moyai"):
        take(world, tmp_path / "b.moyai")
    assert nothing_left(tmp_path)


def test_an_api_that_does_not_answer_leaves_no_file(world: World, tmp_path: Path) -> None:
    world.kube().mute = True
    with pytest.raises(Retriable, match="does not answer"):
        take(world, tmp_path / "b.moyai")
    with pytest.raises(UsageError, match="there is no cluster 'other'"):
        take(world, tmp_path / "b.moyai", name="other")
    assert nothing_left(tmp_path)


# ---- the command


@pytest.fixture
def shell(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    monkeypatch.setenv("MOYAI_STATE_DIR", str(world.paths.state))
    monkeypatch.setenv("MOYAI_CACHE_DIR", str(world.paths.cache))
    monkeypatch.delenv(commands.CLUSTER_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "state" / "key").write_text(str(KEY))
    (tmp_path / "state" / "phrase").write_text("horse battery\nsecond line\n")
    return world


def test_the_command_makes_a_backup_and_says_what_is_in_it(shell: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["backup", "quickstart", "--file", "b", "--recipient", str(KEY.to_public()), "--output", "json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["cluster"], made["revision"], made["entries"][-1]["name"]) == ("quickstart", 7, "etcd.snapshot")
    assert run(["backup", "--inspect", "--file", "b", "-i", "state/key", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == made
    assert run(["backup", "--inspect", "--file", "b", "-i", "state/key"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("b is whole: a backup of cluster quickstart (")
    assert "pki/etcd/ca.key" in said


@pytest.mark.exhaustive
def test_a_passphrase_comes_from_a_file(shell: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["backup", "--file", "b", "--passphrase-file", "state/phrase"]) == 0
    assert run(["backup", "--inspect", "--file", "b", "--passphrase-file", "state/phrase"]) == 0
    capsys.readouterr()
    Path("state/phrase").write_text("horse battery.")
    assert run(["backup", "--inspect", "--file", "b", "--passphrase-file", "state/phrase"]) == 2
    assert capsys.readouterr().err == "moyai: backup b cannot be read: the passphrase is another, or it was changed\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--file", "b"], "the file is encrypted, and there is no terminal to ask for the passphrase: --recipient or"),
        (["--file", "b", "-r", "nothing"], "'nothing' is no public key: should be one of age (age1…) or of SSH"),
        (["--file", "b", "--passphrase-file", "no"], "no: cannot be read (No such file or directory)"),
        (["--file", "b", "--passphrase-file", "/dev/zero"], "/dev/zero: larger than 64 KiB, should be a passphrase"),
        (["--file", "b", "--inspect", "-i", "/dev/zero"], "/dev/zero: larger than 64 KiB, should be a private key of"),
        (["--file", "b", "--passphrase-file", "/dev/null"], "/dev/null has no passphrase in its first line"),
        (["--file", "b", "-i", "state/key"], "--identity opens a backup that is there: --recipient takes the public key"),
        (["--file", "no/b", "-r", str(KEY.to_public())], "no/b cannot be written: No such file or directory"),
        (["--file", "state", "-r", str(KEY.to_public())], "state is there already: another name, or --force"),
        (["--file", "state", "--force", "-r", str(KEY.to_public())], "state cannot be written: Is a directory"),
        (["--file", ".", "-r", str(KEY.to_public())], ". cannot be written: no file can have this name"),
        (["--file", "/", "--force", "-r", str(KEY.to_public())], "/ cannot be written: no file can have this name"),
        (["--file", "x" * 300, "-r", str(KEY.to_public())], "cannot be written: File name too long"),
        (
            ["--file", "state/pipe", "--force", "-r", str(KEY.to_public())],
            "state/pipe cannot be written: it is no regular file",
        ),
        (["--file", "state/pipe", "--inspect", "-i", "state/key"], "state/pipe cannot be read: it is no regular file"),
        (["--file", "no", "--inspect", "-i", "state/key"], "backup no cannot be read: No such file or directory"),
        (["--file", "state", "--inspect", "-i", "state/key"], "backup state cannot be read: Is a directory"),
        (
            ["--file", "state/key", "--inspect", "-i", "state/key"],
            "backup state/key cannot be read: it is no backup of moyai's",
        ),
        (["--file", "state/key", "--inspect", "-i", "state/phrase"], "cannot be read: it is no backup of moyai's"),
    ],
)
def test_wrong_input_is_one_line_and_changes_nothing(
    shell: World, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    os.mkfifo("state/pipe")
    assert run(["backup", *words]) == 2
    assert stat.S_ISFIFO(Path("state/pipe").stat().st_mode)
    (line,) = [one for one in capsys.readouterr().err.splitlines() if one.startswith("moyai: ")]
    assert said in line
    assert nothing_left(Path())


def test_a_backup_that_is_cut_off_or_for_another_is_one_line(shell: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["backup", "--file", "b", "-r", str(KEY.to_public())]) == 0
    whole = Path("b").read_bytes()
    capsys.readouterr()
    for content, why in (
        (whole[:-1], "it is cut off or was changed"),
        (whole[:400] + bytes([whole[400] ^ 1]) + whole[401:], "it is cut off or was changed"),
        (whole[:10], "it is no backup of moyai's"),
    ):
        Path("c").write_bytes(content)
        assert run(["backup", "--inspect", "--file", "c", "-i", "state/key"]) == 2
        assert capsys.readouterr().err == f"moyai: backup c cannot be read: {why}\n"
    Path("state/other").write_text(str(pyrage.x25519.Identity.generate()))
    assert run(["backup", "--inspect", "--file", "b", "-i", "state/other"]) == 2
    assert capsys.readouterr().err == "moyai: backup b cannot be read: the key is another\n"
