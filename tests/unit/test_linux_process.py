"""Programs that take too long, also under eventlet, whose exception is of a class of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from moyai.linux.background import background
from moyai.linux.process import ProcessError, run


class Green:
    """As eventlet's module has it: another class of the same name."""

    class TimeoutExpired(Exception):
        pass


def test_a_program_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    with pytest.raises(ProcessError, match="not done after 0 s"):
        run(["sleep", "60"], timeout=0.05)
    with background(["sleep", "60"], tmp_path / "log") as running:
        assert not running.done_within(0.05)
    with background(["true"], tmp_path / "log") as running:
        assert running.done_within(10)
    with (
        background(["sh", "-c", "echo why; exit 3"], tmp_path / "log") as running,
        pytest.raises(ProcessError, match=r"3.*why"),
    ):
        running.done_within(10)


def test_under_eventlet_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def late(*_: Any, **__: Any) -> Any:
        raise Green.TimeoutExpired

    with background(["sleep", "60"], tmp_path / "log") as running, monkeypatch.context() as patched:
        patched.setattr(subprocess.Popen, "wait", late)
        assert not running.done_within(0.05)
    monkeypatch.setattr(subprocess, "run", late)
    with pytest.raises(ProcessError, match="not done after 5 s"):
        run(["true"], timeout=5)


def test_another_failure_is_not_taken_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(subprocess, "run", fails)
    with pytest.raises(ZeroDivisionError):
        run(["true"], timeout=5)


def test_a_program_that_is_nowhere_is_not_found_although_a_folder_of_the_path_may_not_be_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def denied(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied", "no-such-program")

    monkeypatch.setattr(subprocess, "run", denied)
    with pytest.raises(ProcessError, match="no-such-program: not found"):
        run(["no-such-program"])
    with pytest.raises(ProcessError, match=r"cannot be started .*Permission denied"):
        run(["/etc/hostname"])
