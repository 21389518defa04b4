"""The record on disk: every change is on disk when its call returns, and changes at the same time share one write."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from moyai.core.errors import Terminal
from moyai.core.keys import Key, Kind
from moyai.core.paths import Paths
from moyai.lifecycle import record as module
from moyai.lifecycle.record import Record
from moyai.plan.observed import NodeAllocation
from moyai.spec.load import dump, parse


def made(tmp_path: Path) -> tuple[Paths, Record]:
    paths = Paths(tmp_path / "cache", tmp_path / "state")
    return paths, Record.create(paths, "demo", spec=dump(parse("")))


def on_disk(paths: Paths) -> Record:
    found = Record.open(paths, "demo")
    assert found is not None
    return found


def test_a_change_is_on_disk_when_its_call_returns(tmp_path: Path) -> None:
    paths, record = made(tmp_path)
    assert on_disk(paths).uid == record.uid
    key = Key(Kind.PORT, "one")
    record.intend(key)
    assert key in on_disk(paths).objects
    record.made(key, "id-1")
    assert on_disk(paths).objects[key].id == "id-1"
    record.forget(key)
    assert key not in on_disk(paths).objects


def test_allocations_keep_their_form_on_disk(tmp_path: Path) -> None:
    paths, record = made(tmp_path)
    record.allocate({"demo-workers-0": NodeAllocation(1, "az1"), "demo-workers-1": NodeAllocation(2, "az2")})
    file = record.folder / "record.json"
    assert json.loads(file.read_text())["seats"] == {
        "demo-workers-0": {"slot": 1, "zone": "az1"},
        "demo-workers-1": {"slot": 2, "zone": "az2"},
    }
    record.release("demo-workers-0")
    assert on_disk(paths).recorded().allocations == {"demo-workers-1": NodeAllocation(2, "az2")}


def test_changes_of_many_threads_share_writes_and_none_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, record = made(tmp_path)
    keys = [Key(Kind.PORT, f"port-{number}") for number in range(24)]
    together, writes, write = threading.Barrier(len(keys)), list[str](), module.write_private

    def slow(file: Path, content: str) -> None:
        writes.append(file.name)
        while len(record.objects) < len(keys):  # the next writer finds all changes
            os.sched_yield()
        write(file, content)

    def change(key: Key) -> bool:
        together.wait()
        record.intend(key)
        return key in on_disk(paths).objects

    monkeypatch.setattr(module, "write_private", slow)
    with ThreadPoolExecutor(len(keys)) as pool:
        assert all(pool.map(change, keys))
    assert len(writes) <= 3


UPGRADE = {
    "begin": "1.37.1",
    "target": "1.38.2",
    "goal": "1.38.2",
    "stage": "soaking",
    "soak_hours": 1.0,
    "done": "2026-01-01T00:00:00+00:00",
}


@pytest.mark.parametrize(
    "changed",
    [
        {"begin": ""},
        {"target": "latest"},
        {"goal": "1.38"},
        {"done": ""},
        {"done": "yesterday"},
        {"done": "2026-01-01T00:00:00"},
        {"soak_hours": float("inf")},
        {"soak_hours": float("nan")},
        {"stage": "elsewhere"},
    ],
)
def test_an_upgrade_that_moyai_has_not_written_is_refused(changed: Mapping[str, Any], tmp_path: Path) -> None:
    paths, record = made(tmp_path)
    file = record.folder / "record.json"
    data = json.loads(file.read_text())
    file.write_text(json.dumps({**data, "upgrade": UPGRADE}))
    assert on_disk(paths).upgrade is not None
    file.write_text(json.dumps({**data, "upgrade": {**UPGRADE, **changed}}))
    with pytest.raises(Terminal, match=r"cannot be read: upgrade"):
        on_disk(paths)
