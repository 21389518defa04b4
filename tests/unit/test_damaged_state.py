"""Whatever happened to the files of a cluster's record: one clear line, and what can be written again is written again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moyai.cli.main import run
from moyai.cloud.capabilities import Cloud
from moyai.core.errors import Terminal, UsageError
from moyai.core.reading import Patience
from moyai.lifecycle import down as teardown
from moyai.lifecycle import status
from moyai.lifecycle.clusters import open_api
from moyai.lifecycle.record import Record
from moyai.plan import text
from tests.unit.lifecycle_world import World, whole


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def folder(world: World) -> Path:
    return world.paths.clusters / "quickstart"


def without(part: str) -> Callable[[dict[str, Any]], object]:
    return lambda data: data.pop(part)


def holding(value: Any, *path: str | int) -> Callable[[dict[str, Any]], object]:
    def change(data: Any) -> None:
        for step in path[:-1]:
            data = data[step]
        data[path[-1]] = value

    return change


PARTS = ("version", "name", "uid", "created", "ready", "apiAddress", "spec", "seats", "objects")
CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    **{f"without {part}": without(part) for part in PARTS},
    **{f"{part} null": holding(None, part) for part in PARTS},
    **{f"{part} a list": holding([1], part) for part in PARTS},
    "a later version": holding(99, "version"),
    "a seat without its slot": holding({"zone": "az1"}, "seats", "quickstart-workers-0"),
    "a seat null": holding(None, "seats", "quickstart-workers-0"),
    "a slot that is a word": holding({"slot": "one", "zone": "az1"}, "seats", "quickstart-workers-0"),
    "an empty spec": holding({}, "spec"),
    "a spec without a cloud": holding({"spec": {}}, "spec"),
    "an object that is a word": holding("port", "objects", 0),
    "an object of an unknown kind": holding({"kind": "submarine", "begun": ""}, "objects", 0),
    "no date": holding("no date", "created"),
    "another cluster's": holding("other", "name"),
}
TEXTS = ["", "{", "[]", "null", "5", '"record"', "{}", "[" * 100_000, "\x00"]


def refused(world: World) -> None:
    """By every command, in one line, with nothing changed."""
    before = world.all_names()
    commands: list[Callable[[], object]] = [
        lambda: world.preview(),
        world.up,
        world.down,
        lambda: Record.open(world.paths, "quickstart"),
    ]
    for command in commands:
        with pytest.raises(Terminal, match=r"record .*record\.json cannot be read: ") as caught:
            command()
        assert "\n" not in str(caught.value)
    assert world.all_names() == before


@pytest.mark.parametrize("change", CHANGES)
def test_a_record_with_a_wrong_part(change: str, world: World) -> None:
    world.up()
    file = folder(world) / "record.json"
    data = json.loads(file.read_text())
    CHANGES[change](data)
    file.write_text(json.dumps(data))
    refused(world)


@pytest.mark.parametrize("content", TEXTS)
def test_a_record_that_is_something_else(content: str, world: World) -> None:
    world.up()
    (folder(world) / "record.json").write_text(content)
    refused(world)


def test_a_cluster_whose_record_is_lost_can_be_removed_by_its_uid(world: World) -> None:
    uid = world.up().uid
    file = folder(world) / "record.json"
    file.rename(file.with_name("record.json.damaged"))
    assert world.down("quickstart", uid).left == ()
    assert not [name for name in world.all_names() if uid in name or "quickstart" in name]


KUBECONFIGS = [
    "",
    "{}",
    "clusters: 5",
    "contexts: 5\nclusters: [{name: a, cluster: {server: x}}]",
    "[",
    "[" * 3000,
    "clusters: [{cluster: {server: 'https://1:6443', certificate-authority-data: AAAA}}]",
]


@pytest.mark.parametrize("content", KUBECONFIGS)
def test_a_damaged_kubeconfig_is_written_again_by_up(content: str, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.up()
    file = folder(world) / "kubeconfig"
    good = file.read_text()
    file.write_text(content)
    record = Record.open(world.paths, "quickstart")
    assert record is not None
    assert open_api(record) is None
    assert status.read(record, world.cloud).api != "ready"
    assert "1  write the administrator's kubeconfig" in text.lines(world.preview())
    world.up()
    assert record.api() is not None
    assert file.read_text() != content
    assert good.splitlines()[0] == file.read_text().splitlines()[0]
    assert world.names() == whole()


def test_a_kubeconfig_whose_certificate_was_cut_off_is_damaged(world: World) -> None:
    world.up()
    file = folder(world) / "kubeconfig"
    file.write_text(file.read_text().replace("client-key-data: ", "client-key-data: QUJD"))
    record = Record.open(world.paths, "quickstart")
    assert record is not None
    assert record.api() is None


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"token": 5}', "[" * 100_000])
def test_damaged_secrets_are_found_before_anything_is_made(content: str, world: World) -> None:
    world.up()
    file = folder(world) / "secrets.json"
    file.write_text(content)
    before = world.all_names()
    for command in (lambda: world.preview(), world.up):
        with pytest.raises(Terminal, match=r"secrets\.json cannot be read: ") as caught:
            command()
        assert "\n" not in str(caught.value)
    assert world.all_names() == before
    assert world.down().left == ()


def test_a_removed_cluster_leaves_no_key(world: World) -> None:
    world.up()
    world.down()
    assert not folder(world).exists()


def test_keys_that_cannot_be_removed_are_reported(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.up()
    record = Record.open(world.paths, "quickstart")
    assert record is not None

    def refuse(_: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("shutil.rmtree", refuse)
    with pytest.raises(Terminal, match=r"its keys in .*quickstart cannot be removed: .*not permitted"):
        record.remove()
    assert Record.open(world.paths, "quickstart") is not None


def test_a_down_that_was_asked_for_an_earlier_cluster_leaves_the_one_that_has_its_name_now(world: World) -> None:
    """The question was answered after somebody else had removed the cluster and made it again."""
    world.up()
    target, record = teardown.target_of("quickstart", world.paths, cloud=world.cloud)
    world.down()
    world.up()
    before = world.all_names()
    with pytest.raises(Terminal, match=rf"cluster quickstart \({target.uid}\) was removed meanwhile"):
        world.tear_down(target, record)
    assert world.all_names() == before
    assert (folder(world) / "pki" / "ca.key").exists()


def test_a_down_of_a_cluster_that_is_gone_meanwhile_finds_nothing_left(world: World) -> None:
    world.up()
    target, record = teardown.target_of("quickstart", world.paths, cloud=world.cloud)
    world.down()
    assert world.tear_down(target, record).left == ()


def test_a_record_whose_spec_this_version_does_not_take_can_be_removed_and_keeps_its_disks(world: World) -> None:
    world.up()
    file = folder(world) / "record.json"
    data = json.loads(file.read_text())
    data["spec"]["spec"]["hyperdrive"] = True
    file.write_text(json.dumps(data))
    target, _ = teardown.target_of("quickstart", world.paths, cloud=world.cloud)
    assert target.volumes is None
    assert world.down().left == ()


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"5", b"clusters: 5", b"clusters:\nusers:\n", b"\xff\xfe", b"[" * 20_000, b"{clusters: [{name: demo}]}", None],
)
def test_a_damaged_kubeconfig_is_one_line_and_keeps_no_cluster_from_going(
    content: bytes | None, world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    world.up()
    file = world.paths.clusters / "quickstart" / "kubeconfig"
    file.unlink()
    # a pipe that nobody writes to would be waited for
    os.mkfifo(file) if content is None else file.write_bytes(content)
    monkeypatch.setenv("MOYAI_STATE_DIR", str(world.paths.state))
    monkeypatch.setattr("moyai.core.reading.Patience", lambda: Patience(opened=0.01))
    assert run(["kubeconfig", "quickstart", "--file", str(tmp_path / "mine")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("`moyai up` writes it again")
    assert not (tmp_path / "mine").exists()

    def connect(_: str) -> Cloud:
        return world.cloud

    monkeypatch.setattr("moyai.cli.cluster.connect", connect)
    assert run(["down", "quickstart", "--yes"]) == 0
    assert world.names() == []


@pytest.mark.parametrize("lacks", ["network", "kubernetesVersion"])
def test_a_record_whose_spec_lacks_a_part_is_one_line(lacks: str, world: World) -> None:
    world.up()
    file = world.paths.clusters / "quickstart" / "record.json"
    data = json.loads(file.read_text())
    del data["spec"]["spec"][lacks]
    file.write_text(json.dumps(data))
    with pytest.raises(UsageError, match=rf"record: spec\.{lacks}: missing, should be there"):
        world.up()
