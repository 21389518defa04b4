"""The front's ledger stays small however long the front lives, and forgets nothing that is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from moyai.nifcloud_front.store import front_store
from tests.fakes.nifcloud_front import TestFront


def test_the_ledger_forgets_what_has_gone_and_keeps_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front_store, "_LEDGER", 10)
    front = TestFront(tmp_path)
    front.call("NiftyCreatePrivateLan", CidrBlock="10.9.0.0/24", PrivateLanName="stays")
    front.settle()
    for number in range(40):
        front.call("CreateSecurityGroup", GroupName=f"group{number}")
        front.settle()
        front.call("DeleteSecurityGroup", GroupName=f"group{number}")
        front.settle()
    with front.store.transaction() as tx:
        found = tx.ledger()
    assert len(found) < 30
    assert [one.name for one in found if one.kind == "lan"] == ["stays"]
    gone = [one.uid for one in found if one.verb == "gone"]
    assert [one.uid for one in found if one.verb == "made" and one.kind == "group"][-1] in gone
