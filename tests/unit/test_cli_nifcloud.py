"""`moyai cloud nifcloud`: orders, the ledger, bridges, and wrong input."""

from __future__ import annotations

from pathlib import Path

import pytest

from moyai.cli import main
from moyai.localcloud.layout import CloudPaths, LocalCloudConfig
from moyai.nifcloud_front.pace import FaultOrder
from moyai.nifcloud_front.store.front_store import FrontStore
from moyai.nifcloud_front.store.rows import BridgeRow, GroupRow, LanRow, PaceRow


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MOYAI_STATE_DIR", str(tmp_path))
    return CloudPaths(tmp_path / "clouds" / LocalCloudConfig().name).state / "nifcloud.db"


def _store(file: Path) -> FrontStore:
    file.parent.mkdir(parents=True, exist_ok=True)
    return FrontStore(file, lambda: 1_800_000_000.0, durable=False)


def test_an_order_is_on_disk_for_the_front(file: Path) -> None:
    store = _store(file)
    assert main.run(["cloud", "nifcloud", "order", "AllocateAddress", "--lost", "--after", "--delay", "90", "--nth", "3"]) == 0
    with store.transaction() as tx:
        ((_, body),) = tx.orders()
    assert FaultOrder.from_json(body) == FaultOrder("AllocateAddress", nth=3, effect="after", delay=90, lost=True)


def test_what_was_made_and_what_is_under_way_is_printed(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with _store(file).transaction() as tx:
        tx.put(row := GroupRow("fw-1", "nodes", "east-11"))
        tx.schedule(row, "apply")
        tx.note_call("KEY", "CreateSecurityGroup", code="", request="r")
    for command, said in (("ledger", "made  group"), ("works", "group fw-1 apply"), ("calls", "CreateSecurityGroup\n")):
        assert main.run(["cloud", "nifcloud", command]) == 0
        assert said in capsys.readouterr().out


def test_the_pace_is_on_disk_for_the_front(file: Path) -> None:
    store = _store(file)
    assert main.run(["cloud", "nifcloud", "pace", "--scale", "1", "--rate", "2.5"]) == 0
    with store.transaction() as tx:
        assert tx.all(PaceRow) == [PaceRow(scale=1.0, rate=2.5)]


def test_a_bridge_is_made_before_its_private_lans(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = _store(file)
    assert main.run(["cloud", "nifcloud", "bridge", "10.20.0.0/24"]) == 0
    with store.transaction() as tx:
        assert tx.all(BridgeRow) == [BridgeRow("10.20.0.0/24", "10.20.0.0/24")]
        tx.put(LanRow("net-1", "lan1", "10.30.0.0/24", "east-11"))
    assert main.run(["cloud", "nifcloud", "bridge", "10.30.0.0/24"]) == 2
    assert "make the bridge first" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ledger"], "does not speak NIFCLOUD"),
        (["order", "RunInstances"], "the order changes nothing"),
        (["bridge", "10.20.0.1/24"], "range '10.20.0.1/24'"),
    ],
)
def test_wrong_input_of_nifcloud_commands_is_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["cloud", "nifcloud", *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1
