"""`moyai certificates` and `moyai credentials` on the command line: what is shown, what is done, exit codes."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from moyai.cli import certificates, cluster, main
from moyai.cloud.memory import MemoryCloud
from moyai.core import clock as clocks
from moyai.lifecycle import rotate as rotating
from moyai.lifecycle import status
from tests.unit.rotation_world import ONE, RotationWorld


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RotationWorld:
    made = RotationWorld(tmp_path, monkeypatch, spec=ONE)

    def cloud(_name: str) -> MemoryCloud:
        return made.cloud

    monkeypatch.setattr(cluster, "default_paths", lambda: made.paths)
    monkeypatch.setattr(certificates, "default_paths", lambda: made.paths)
    monkeypatch.setattr(cluster, "connect", cloud)
    monkeypatch.setattr(clocks, "SystemClock", lambda: made.clock)
    monkeypatch.setattr(rotating, "SystemClock", lambda: made.clock)
    monkeypatch.setattr(status, "open_api", made.open_api)
    return made


def test_certificates_are_listed_with_who_renews_them(world: RotationWorld, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["certificates", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["CERTIFICATE", "ENDS", "DAYS", "LEFT", "RENEWED", "BY"]
    assert any(line.startswith("ca.crt ") and line.endswith("moyai certificates rotate-ca") for line in lines)
    assert main.run(["certificates", "list", "--output", "json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert {one["name"] for one in data["certificates"]} == {"kubeconfig", "ca.crt", "front-proxy-ca.crt", "etcd/ca.crt"}
    assert (data["rotation"], data["problems"]) == (None, [])


def test_an_authority_that_ends_soon_is_exit_code_1(world: RotationWorld, capsys: pytest.CaptureFixture[str]) -> None:
    world.clock.sleep(timedelta(days=9.5 * 365).total_seconds())
    with pytest.raises(SystemExit) as ended:
        main.run(["certificates", "list"])
    assert ended.value.code == 1
    assert "`moyai certificates rotate-ca` replaces it" in capsys.readouterr().out


def test_a_dry_run_shows_all_stages_and_does_nothing(world: RotationWorld, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["certificates", "rotate-ca", "--dry-run"]) == 0
    out = capsys.readouterr().out
    stages = [line for line in out.splitlines() if line.startswith("authorities: ")]
    assert stages == ["authorities: trust both", "authorities: use the new one", "authorities: drop the old one"]
    assert main.run(["certificates", "rotate-ca", "--dry-run", "--output", "json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert [one["stage"] for one in data["stages"]] == ["trust both", "use the new one", "drop the old one"]
    assert world.record().rotation is None


def test_a_rotation_says_what_is_new_and_what_to_do(world: RotationWorld, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["certificates", "rotate-ca", "--yes"]) == 0
    out = capsys.readouterr().out
    assert "cluster quickstart has new authorities" in out
    assert "moyai kubeconfig --write" in out
    assert main.run(["certificates", "rotate-account-key", "--yes"]) == 0
    assert "the same command drops the old one" in capsys.readouterr().out
    assert main.run(["certificates", "list", "--output", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["rotation"]["what"] == "service account key"


def test_another_rotation_meanwhile_is_one_line_and_exit_code_2(
    world: RotationWorld, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["certificates", "rotate-account-key", "--yes"]) == 0
    capsys.readouterr()
    assert main.run(["credentials", "rotate", "--yes"]) == 2
    (line,) = [one for one in capsys.readouterr().err.splitlines() if one.startswith("moyai: ")]
    assert "the rotation of its service account key is under way" in line


def test_credentials_are_listed_with_their_owner_and_replaced(world: RotationWorld, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["credentials", "list"]) == 0
    before = capsys.readouterr().out
    assert before.splitlines()[0].split() == ["CREDENTIAL", "MAY", "CALL", "ENDS", "OWNER"]
    assert before.count("tester") == 2
    assert main.run(["credentials", "rotate", "--yes"]) == 0
    assert "cluster quickstart has new credentials" in capsys.readouterr().out
    assert main.run(["credentials", "list", "--output", "json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["problems"] == []
    assert all(one["name"] not in before for one in data["credentials"])


def test_no_secret_is_ever_printed(world: RotationWorld, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["certificates", "rotate-encryption-key"], ["credentials", "rotate"], ["certificates", "renew"]):
        assert main.run([*words, "--yes", "--output", "json"]) == 0
    said = capsys.readouterr()
    kept = [value for value in world.record().secrets().values() if len(value) > 8]
    assert kept
    assert not [value for value in kept if value in said.out + said.err]
