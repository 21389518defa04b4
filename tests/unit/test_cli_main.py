"""The command's boundary: every error is one line on standard error with the right exit code, and progress is readable."""

from __future__ import annotations

import importlib
import io
import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from moyai.cli import display, main
from moyai.core.errors import MoyaiError, Terminal, UsageError
from moyai.core.progress import Reporter
from moyai.linux.process import ProcessError
from tests.fakes.clock import FakeClock


def _failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    @click.command()
    def broken() -> None:
        raise error

    def get_command(group: object, ctx: object, name: str) -> click.Command:
        return broken

    monkeypatch.setattr(main.LazyGroup, "get_command", get_command)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UsageError("spec.name: 'A' is no name", hint="lower case"), 2, "moyai: spec.name: 'A' is no name: lower case\n"),
        (Terminal("quota is used up"), 1, "moyai: quota is used up\n"),
        (ProcessError(["/bin/tar"], "ended with 2", output="tar: no\n"), 1, "moyai: tar: ended with 2: tar: no\n"),
        (KeyboardInterrupt(), 130, "moyai: interrupted; run the same command again to continue\n"),
    ],
)
def test_an_error_is_one_line_and_a_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: MoyaiError, code: int, line: str
) -> None:
    _failing(monkeypatch, error)
    assert main.run(["x"]) == code
    assert capsys.readouterr().err.lstrip("\n") == line


def test_an_unforeseen_error_shows_no_traceback_but_keeps_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("MOYAI_STATE_DIR", str(tmp_path))
    _failing(monkeypatch, ZeroDivisionError("by zero"))
    assert main.run(["x"]) == 1
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "ZeroDivisionError: by zero" in shown
    (kept,) = (tmp_path / "errors").iterdir()
    assert "Traceback" in kept.read_text()
    assert str(kept) in shown


def test_a_place_that_may_not_be_entered_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _failing(monkeypatch, PermissionError(13, "Permission denied", "/root/.cache"))
    assert main.run(["x"]) == 1
    assert capsys.readouterr().err == "moyai: /root/.cache: Permission denied\n"


def test_a_traceback_that_cannot_be_kept_is_still_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MOYAI_STATE_DIR", str(tmp_path / "file"))
    _failing(monkeypatch, ZeroDivisionError("by zero"))
    assert main.run(["x"]) == 1
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "by zero; details are not kept (" in shown


def test_an_unknown_command_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["nonsense"]) == 2
    assert capsys.readouterr().err == "moyai: No such command 'nonsense'.\n"


@pytest.mark.parametrize("name", sorted(main.COMMANDS))
def test_every_listed_command_is_there(name: str) -> None:
    module, _, attribute = main.COMMANDS[name][0].partition(":")
    assert isinstance(getattr(importlib.import_module(module), attribute), click.Command)


def test_help_imports_no_cloud_client() -> None:
    code = """
import sys
from moyai.cli.main import run
run(["--help"])
print("openstack" in sys.modules, "lightkube" in sys.modules)
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.endswith("False False\n")


def test_plain_progress_says_what_runs_what_is_left_and_how_long_it_took() -> None:
    clock, out = FakeClock(), io.StringIO()
    reporter = Reporter(display.PlainDisplay(out, clock).handle, clock=clock)
    reporter.plan(["build", "load"])
    with reporter.step("build") as step:
        clock.sleep(5)
        step.progress("early, not shown", 0.1)
        clock.sleep(6)
        step.progress("kubelet", 0.5)
    assert [line.split("s ", 1)[1] for line in out.getvalue().splitlines()] == [
        "… build",
        "… build 50%: kubelet",
        "✓ build (11 s, 1 left)",
    ]


def test_json_progress_is_one_object_a_line() -> None:
    out = io.StringIO()
    with display.reporter("json", stream=out) as reporter, reporter.step("build"):
        pass
    assert [json.loads(line)["kind"] for line in out.getvalue().splitlines()] == ["started", "finished"]


@pytest.mark.parametrize(("value", "text"), [(0.31, "0.3 s"), (42.4, "42 s"), (192, "3 min 12 s")])
def test_durations_read_well(value: float, text: str) -> None:
    assert display.seconds(value) == text
