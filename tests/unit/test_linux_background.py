"""A program beside ours: it ends with its block, however it takes that, and its own end is told with its words."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from moyai.linux.background import Background, background
from moyai.linux.process import ProcessError


def _ends(text: str, log: Path) -> None:
    deadline = time.monotonic() + 10
    while text not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _check_until(program: Background, deadline: float) -> None:
    while time.monotonic() < deadline:
        program.check()
        time.sleep(0.01)


def _gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_it_runs_during_the_block_and_is_gone_after_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with background(["sh", "-c", "echo $$; exec sleep 1000"], log) as program:
        _ends("\n", log)
        pid = int(log.read_text())
        program.check()
        assert not _gone(pid)
    assert _gone(pid)


def test_one_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with background(["sh", "-c", "trap '' TERM; echo $$; while :; do sleep 0.1; done"], log, grace=0.2):
        _ends("\n", log)
        pid = int(log.read_text())
    assert _gone(pid)


def test_its_end_is_told_with_its_last_words(tmp_path: Path) -> None:
    with (
        background(["sh", "-c", "echo no room >&2; exit 3"], tmp_path / "log") as program,
        pytest.raises(ProcessError, match="sh: ended with 3: no room"),
    ):
        _check_until(program, time.monotonic() + 10)


def test_one_that_cannot_be_started(tmp_path: Path) -> None:
    with pytest.raises(ProcessError, match="cannot be started"), background(["/nowhere/tool"], tmp_path / "log"):
        pass
