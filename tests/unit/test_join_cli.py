"""`moyai join`, `export` and `kubeconfig --user` on the command line: what is shown, what is refused, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moyai.cli import cluster, main
from moyai.cloud.memory import MemoryCloud
from moyai.core import clock as clocks
from moyai.core.paths import Paths
from moyai.lifecycle import admin_access, record_files
from tests.unit.lifecycle_world import World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path, monkeypatch)
    made.up()

    def cloud(_name: str) -> MemoryCloud:
        return made.cloud

    def api(_text: str) -> object:
        return made.kube()

    monkeypatch.setattr(cluster, "connect", cloud)
    monkeypatch.setattr(clocks, "SystemClock", lambda: made.clock)
    monkeypatch.setattr(admin_access, "KubeApi", api)
    monkeypatch.setenv("MOYAI_CACHE_DIR", str(made.paths.cache))
    monkeypatch.setenv("MOYAI_STATE_DIR", str(made.paths.state))
    monkeypatch.delenv("MOYAI_CLUSTER", raising=False)
    return made


@pytest.fixture
def other(world: World, tmp_path: Path) -> Paths:
    """Another machine; commands run there once ``_there`` is called."""
    return Paths(world.paths.cache, tmp_path / "colleague")


def _there(other: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOYAI_STATE_DIR", str(other.state))


def test_join_by_a_kubeconfig(
    world: World, other: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(world.paths.clusters / "quickstart" / "kubeconfig")
    _there(other, monkeypatch)
    assert main.run(["join", "quickstart", "--kubeconfig", file]) == 0
    uid = next(iter(world.kubes))
    assert capsys.readouterr().out.startswith(
        f"cluster quickstart ({uid}) on cloud moyai is joined: its record is in {other.state}"
    )
    assert record_files.read(other.clusters / "quickstart") == record_files.read(world.paths.clusters / "quickstart")
    assert main.run(["join", "quickstart", "--kubeconfig", file, "--output", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["uid"], found["changed"], found["folder"]) == (uid, False, str(other.clusters / "quickstart"))


def test_a_record_goes_through_a_file(
    world: World, other: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, phrase = tmp_path / "quickstart.moyai", tmp_path / "phrase"
    phrase.write_text("correct horse\n")
    assert main.run(["export", "quickstart", "--file", str(file), "--passphrase-file", str(phrase)]) == 0
    assert "has the record of cluster quickstart" in capsys.readouterr().out
    world.up("spec: {nodePools: [{replicas: 3}]}")
    _there(other, monkeypatch)
    assert main.run(["join", "quickstart", "--file", str(file), "--passphrase-file", str(phrase)]) == 0
    # the file is older than the cluster's copy
    assert "which takes its place" in capsys.readouterr().err
    assert record_files.read(other.clusters / "quickstart") == record_files.read(world.paths.clusters / "quickstart")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["join", "other", "--kubeconfig", "FILE"], "is the record of cluster quickstart, not of other"),
        (["join", "quickstart", "--kubeconfig", "FILE", "--ssh", "host"], "--kubeconfig, --ssh and --file: one at most"),
        (["join", "quickstart", "--kubeconfig", "FILE", "-i", "key"], "--identity and --passphrase-file open a file"),
        (["join", "quickstart", "--kubeconfig", "/nowhere"], "there is no kubeconfig /nowhere"),
        (["join", "quickstart", "--ssh", "-oProxyCommand=x"], "is no host"),
        (["join", "Quick_Start", "--kubeconfig", "FILE"], "is the record of cluster quickstart, not of Quick_Start"),
        (["export", "quickstart", "--file", "FILE", "--passphrase-file", "FILE"], "is there already"),
        (["kubeconfig", "quickstart", "--for", "1h"], "--group and --for go with --user"),
        (["kubeconfig", "quickstart", "--user", "bert", "--for", "1y"], "--for: '1y', should be 10m to 365d"),
    ],
)
def test_wrong_input_is_one_line_and_changes_nothing(
    world: World,
    other: Paths,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    file = str(world.paths.clusters / "quickstart" / "kubeconfig")
    if words[0] == "join":
        _there(other, monkeypatch)
    assert main.run([file if word == "FILE" else word for word in words]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert len(printed.err.splitlines()) == 1
    assert not printed.out
    assert not other.clusters.exists() or not list(other.clusters.glob("*/record.json"))


def test_the_list_of_clusters_says_how_to_join(
    world: World, other: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    uid = next(iter(world.kubes))
    hint = f"`moyai join quickstart --kubeconfig FILE` takes the record of quickstart ({uid}) over"
    assert main.run(["clusters", "--cloud", "moyai"]) == 0
    assert hint not in capsys.readouterr().out
    _there(other, monkeypatch)
    assert main.run(["clusters", "--cloud", "moyai"]) == 0
    assert hint in capsys.readouterr().out


def test_inventory_takes_the_newer_record_and_says_so(
    world: World, other: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(world.paths.clusters / "quickstart" / "kubeconfig")
    _there(other, monkeypatch)
    assert main.run(["join", "quickstart", "--kubeconfig", file]) == 0
    world.up("spec: {nodePools: [{replicas: 3}]}")
    capsys.readouterr()
    main.run(["inventory", "quickstart", "--list"])
    assert "note: this machine's record of cluster quickstart (write" in capsys.readouterr().err
    assert record_files.read(other.clusters / "quickstart") == record_files.read(world.paths.clusters / "quickstart")
