"""The files of a record as one piece, and which of two copies of a record goes on."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import pytest

from moyai.lifecycle import record_files
from moyai.lifecycle.copy_choice import CopyFacts, CopyState, Goes, choose, keep_state, load_state, united

AGREED = CopyState("here", 5, "five")


def _facts(serial: int, identity: str, *, seat: str = "there") -> CopyFacts:
    return CopyFacts(serial, identity, seat)


@pytest.mark.parametrize(
    ("here", "there", "goes"),
    [
        (_facts(5, "five", seat="here"), _facts(5, "five"), Goes.SAME),
        (_facts(6, "six", seat="here"), _facts(5, "five"), Goes.HERE),
        (_facts(7, "seven", seat="here"), _facts(6, "six", seat="here"), Goes.HERE),
        (_facts(5, "five", seat="here"), _facts(9, "nine"), Goes.CLUSTER),
        (_facts(5, "five", seat="here"), _facts(5, "else"), Goes.CLUSTER),
        (_facts(6, "six", seat="here"), _facts(9, "nine"), Goes.BOTH),
        (_facts(9, "nine", seat="here"), _facts(6, "six"), Goes.BOTH),
    ],
    ids=[
        "equal",
        "api was silent",
        "killed before it was kept",
        "colleague",
        "colleague, same count",
        "both",
        "both, more here",
    ],
)
def test_the_copy_with_more_writes_goes_on(here: CopyFacts, there: CopyFacts, goes: Goes) -> None:
    assert choose(here, there, agreed=AGREED) is goes


def test_a_folder_that_came_back_from_a_copy_is_the_older_one() -> None:
    assert (
        choose(_facts(3, "three", seat="here"), _facts(8, "eight", seat="here"), agreed=CopyState("here", 3, "three"))
        is Goes.CLUSTER
    )


def test_a_copy_of_an_older_etcd_loses() -> None:
    assert choose(_facts(5, "five", seat="here"), _facts(4, "four"), agreed=AGREED) is Goes.HERE


def test_the_record_of_a_backup_wins_while_its_cluster_is_restored() -> None:
    assert choose(_facts(2, "two", seat="here"), _facts(9, "nine"), agreed=CopyState("here"), restores=True) is Goes.HERE


def test_a_machine_that_never_agreed_loses_nothing_that_it_has_begun() -> None:
    assert choose(_facts(5, "five", seat="here"), _facts(9, "nine"), agreed=CopyState("here")) is Goes.BOTH


def test_united_copies_have_the_objects_of_both() -> None:
    def files(serial: int, *names: str) -> dict[str, bytes]:
        record = {"serial": serial, "objects": [{"kind": "server", "of": name} for name in names]}
        return {"record.json": json.dumps(record).encode(), "secrets.json": names[0].encode()}

    both = united(files(4, "a", "b"), files(6, "b", "c"))
    record = json.loads(both["record.json"])
    assert [one["of"] for one in record["objects"]] == ["b", "c", "a"]
    assert record["serial"] == 7
    assert both["secrets.json"] == b"b"


def test_what_the_machine_knows_of_the_copy_is_kept(tmp_path: Path) -> None:
    drawn = load_state(tmp_path)
    assert drawn.serial == -1
    assert drawn.seat != load_state(tmp_path).seat
    keep_state(tmp_path, CopyState("seat", 7, "id"))
    assert load_state(tmp_path) == CopyState("seat", 7, "id")
    (tmp_path / record_files.COPY_STATE).write_text("[]")
    assert load_state(tmp_path).serial == -1


# ---- the files


def _folder(tmp_path: Path) -> Path:
    for name, text in (
        ("record.json", '{"serial": 3}'),
        ("secrets.json", "{}"),
        ("pki/etcd/ca.key", "key"),
        ("kubeconfig", "of this machine"),
        ("known_hosts", "of this machine"),
        ("pause", ""),
        (".record.json.1.2", "half"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_the_files_of_a_record_are_those_of_every_machine(tmp_path: Path) -> None:
    files = record_files.read(_folder(tmp_path))
    assert sorted(files) == ["pki/etcd/ca.key", "record.json", "secrets.json"]
    assert record_files.serial(files) == 3
    assert record_files.unpack(record_files.pack(files)) == files
    assert record_files.pack(files) == record_files.pack(dict(reversed(files.items())))


def test_replaced_files_leave_those_of_the_machine(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    record_files.replace(folder, {"record.json": b"{}", "machines/a/start": b"x"})
    assert (folder / "kubeconfig").exists()
    assert sorted(record_files.read(folder)) == ["machines/a/start", "record.json"]
    assert (folder / "machines/a/start").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no zlib",
        zlib.compress(b"[]"),
        zlib.compress(b"{"),
        zlib.compress(json.dumps({"format": 2, "files": {"record.json": "{}"}}).encode()),
        zlib.compress(json.dumps({"format": 1, "files": {"secrets.json": "{}"}}).encode()),
        zlib.compress(json.dumps({"format": 1, "files": {"record.json": "{}", "../x": ""}}).encode()),
        zlib.compress(json.dumps({"format": 1, "files": {"record.json": "{}", "/etc/x": ""}}).encode()),
        zlib.compress(json.dumps({"format": 1, "files": {"record.json": "{}", "kubeconfig": ""}}).encode()),
        zlib.compress(json.dumps({"format": 1, "files": {"record.json": "{}"}}).encode())[:-3],
        zlib.compress(b" " * (1 << 25)),
    ],
    ids=["empty", "else", "list", "cut json", "later", "no record", "up", "root", "of a machine", "cut off", "bomb"],
)
def test_what_is_no_copy_is_refused(data: bytes) -> None:
    with pytest.raises(record_files.UnreadableCopy):
        record_files.unpack(data)
