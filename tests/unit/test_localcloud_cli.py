"""`moyai cloud` with wrong input: one clear line, the right exit code, nothing done."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from moyai.cli import main
from moyai.localcloud.layout import CloudPaths, LocalCloudConfig


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MOYAI_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("MOYAI_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(tmp_path / "clouds.yaml"))
    return tmp_path / "state"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["up", "--name", "No Name"], "cloud name 'No Name'"),
        (["up", "--management-cidr", "10.0.0.0/8"], "between /16 and /26"),
        (["up", "--external-cidr", "10.255.0.0/24"], "overlap"),
        (["up", "--zones", "a,,b"], "zone ''"),
        (["up", "--frobnicate"], "No such option"),
        (["down", "--name", "../x"], "cloud name '../x'"),
        (["status", "--name", "X"], "cloud name 'X'"),
        (["logs", "--lines", "0"], "0 is not in the range"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(
    words: list[str], said: str, state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(["cloud", *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1
    assert not state.exists()


@pytest.mark.parametrize("words", [["up"], ["down"]])
def test_without_root_nothing_is_tried(
    words: list[str], state: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main.run(["cloud", *words]) == 2
    assert "needs root" in capsys.readouterr().err
    assert not state.exists()


def test_a_cloud_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["cloud", "status", "--name", "nobody"]) == 1
    assert "cloud nobody: none" in capsys.readouterr().out
    assert main.run(["cloud", "logs", "--name", "nobody"]) == 1
    assert "there is no cloud 'nobody'" in capsys.readouterr().err
    assert main.run(["cloud", "restart", "--name", "nobody", "nova-api"]) == 1
    assert "does not answer" in capsys.readouterr().err


def test_logs_of_an_unknown_service_name_the_known_ones(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = CloudPaths(state / "clouds" / LocalCloudConfig().name).log
    folder.mkdir(parents=True)
    (folder / "nova-api.log").write_text("one\ntwo\nthree\n")
    assert main.run(["cloud", "logs", "nova"]) == 2
    assert "one of nova-api" in capsys.readouterr().err
    assert main.run(["cloud", "logs", "nova-api", "-n", "2"]) == 0
    assert capsys.readouterr().out == "two\nthree\n"
