"""`moyai image` with bad input: one line, exit code 2, nothing sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from moyai.cli import main
from moyai.cli.image import image
from tests.unit.image_archives import docker, write


@pytest.fixture(autouse=True)
def _nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    monkeypatch.setenv("MOYAI_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("MOYAI_CACHE_DIR", str(tmp_path / "cache"))


@pytest.mark.parametrize("arguments", [["list"], ["remove", "nginx"], ["load", "FILE"]])
def test_without_a_running_cloud(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    file = write(tmp_path / "a.tar", docker())
    words = [str(file) if word == "FILE" else word for word in arguments]
    assert main.run(["image", *words]) == 2
    said = capsys.readouterr().err.strip()
    assert "local cloud 'moyai' is not running" in said
    assert "\n" not in said


@pytest.mark.parametrize("arguments", [["load"], ["load", "/nowhere"], ["load", "/"], ["remove", "UPPER"], ["nonsense"]])
def test_wrong_words(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main.run(["image", *arguments]) == 2
    assert capsys.readouterr().err.strip()


def test_a_wrong_name_is_refused_before_anything_is_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "a.tar", docker())
    assert main.run(["image", "load", str(file), "--as", "not a name"]) == 2
    assert "no name of an image" in capsys.readouterr().err


def test_every_command_has_a_line_of_help() -> None:
    assert set(image.commands) == {"build", "list", "load", "remove", "upload"}
    assert all(command.help for command in image.commands.values())


def test_a_node_image_is_built_by_root_alone(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert main.run(["image", "build"]) == 2
    assert "needs root" in capsys.readouterr().err


def test_a_missing_program_of_the_host_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main.run(["image", "build", "--format", "raw"]) == 2
    said = capsys.readouterr().err
    assert "apt-get install mmdebstrap util-linux zstd" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("words", [["--kubernetes", "1.0.0"], ["--format", "vmdk"], ["--to", "/nowhere"]])
def test_a_wrong_node_image_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["image", "build", *words]) == 2
    assert capsys.readouterr().err.strip().count("\n") == 0
