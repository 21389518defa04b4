"""`moyai upgrade` on the command line: what is shown, what is asked, exit codes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moyai.cli import cluster, main, upgrade
from moyai.cloud.memory import MemoryCloud
from moyai.cloud.model import Image
from moyai.core.paths import Paths
from moyai.lifecycle import upgrade_state
from moyai.lifecycle.record import Record
from tests.unit.lifecycle_world import World
from tests.unit.test_upgrade import NEXT, OLD, SPEC


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(tmp_path, monkeypatch)
    world.store.images.put(Image(NEXT, f"moyai-node-{NEXT}", "ACTIVE", properties={"moyai_kubernetes_version": NEXT}))
    world.up(SPEC)
    monkeypatch.setattr(cluster, "default_paths", lambda: world.paths)
    monkeypatch.setattr(upgrade, "default_paths", lambda: world.paths)

    def cloud(_name: str) -> MemoryCloud:
        return world.cloud

    def makes(_record: Record, _paths: Paths) -> tuple[str, ...]:
        """The cloud is not the local one, for which images would be made."""
        return ()

    monkeypatch.setattr(upgrade, "connect", cloud)
    monkeypatch.setattr(upgrade, "_makes", makes)
    return world


def record_of(world: World) -> Record:
    found = Record.open(world.paths, "quickstart")
    assert found
    return found


def stage(world: World) -> str:
    found = record_of(world)
    return str(found.upgrade.stage) if found.upgrade else ""


def test_a_dry_run_shows_the_way_and_all_machines(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["upgrade", "--to", NEXT, "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == [
        f"cluster quickstart: Kubernetes {OLD} → {NEXT}",
        f"replace quickstart-control-plane-0: Kubernetes {OLD} → {NEXT}",
        f"then replace quickstart-workers-0: Kubernetes {OLD} → {NEXT}",
        f"then replace quickstart-workers-1: Kubernetes {OLD} → {NEXT}",
    ]
    assert any("start kube-proxy of each node's own version on new nodes" in line for line in lines)
    assert stage(world) == ""


def test_a_dry_run_as_data(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["upgrade", "--to", f"v{NEXT}", "--dry-run", "--output", "json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["versions"] == [NEXT]
    assert data["replacements"][0]["node"] == "quickstart-control-plane-0"


def test_an_upgrade_and_its_end(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["upgrade", "--to", NEXT, "--yes"]) == 0
    assert f"cluster quickstart has Kubernetes {NEXT}" in capsys.readouterr().out
    assert stage(world) == "soaking"
    assert main.run(["upgrade", "--yes"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main.run(["upgrade", "--finalize", "--yes"]) == 0
    assert stage(world) == ""


def test_the_soak_time_is_set_while_it_soaks(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["upgrade", "--to", NEXT, "--yes"]) == 0
    assert main.run(["upgrade", "--soak", "24", "--yes"]) == 0
    found = record_of(world)
    assert found.upgrade
    assert found.upgrade.soak_hours == 24
    assert "24" not in capsys.readouterr().err


def test_a_pause_while_it_is_finalized_promises_no_way_back(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["upgrade", "--to", NEXT, "--yes"]) == 0

    def ask(_before: Any, after: Any) -> None:
        if after is not None and after.name == "quickstart-control-plane-0":
            upgrade_state.request_pause(record_of(world))

    world.store.servers.watch(ask)
    capsys.readouterr()
    assert main.run(["upgrade", "--finalize", "--yes"]) == 0
    out = capsys.readouterr().out
    assert "paused" in out
    assert "--rollback" not in out


@pytest.mark.parametrize("name", ["1..2", "1.².3", f"1.37.{'9' * 5000}"])
def test_an_image_that_is_called_like_no_version_is_none(name: str, world: World) -> None:
    world.store.images.put(Image("odd", f"moyai-node-{name}", "ACTIVE"))
    assert main.run(["upgrade"]) == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--to", "1.36.3"], "--to 1.36.3: should be later than 1.37.1"),
        (["--to", NEXT, "--rollback"], "--to, --pause, --rollback and --finalize: should be one of them"),
        (["--rollback"], "there is no upgrade to take back"),
        (["--pause"], "--pause: no machine of cluster quickstart is being upgraded"),
        (["--to", NEXT, "--soak", "-1"], "-1"),
        (["--to", NEXT, "--soak", "inf"], "--soak inf: should be 0 to 8760 hours"),
        (["--to", NEXT, "--soak", "nan"], "--soak nan: should be 0 to 8760 hours"),
        (["--finalize", "--soak", "1"], "--soak: should be left out with --finalize"),
        (["--to", f"1.{'9' * 5000}.1"], "should be a version such as 1.37.1"),
        (["other"], "there is no cluster 'other'"),
    ],
)
def test_what_is_wrong_is_one_line(world: World, words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = world.all_names()
    assert main.run(["upgrade", *words, "--yes"]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
    assert world.all_names() == before
    assert stage(world) == ""
