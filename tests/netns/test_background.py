"""A real program that runs during a block: it ends with the block, and the block notices when the program ends earlier.

The programs report through a named pipe and their ends are waited for, so no test depends on how fast the machine is.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from moyai.linux.background import background
from moyai.linux.process import ProcessError


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


def _started(pipe: Path) -> int:
    """Wait until the program has written its process id; return the id."""
    return int(pipe.read_text())


def _gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_it_runs_during_the_block_and_is_gone_after_it(tmp_path: Path, pipe: Path) -> None:
    with background(["sh", "-c", 'echo $$ > "$0"; exec sleep 1000', str(pipe)], tmp_path / "log") as program:
        pid = _started(pipe)
        program.check()
        assert not _gone(pid)
    assert _gone(pid)


def test_a_program_that_ignores_the_request_to_end_is_killed(tmp_path: Path, pipe: Path) -> None:
    script = "trap '' TERM; echo $$ > \"$0\"; while :; do sleep 0.1; done"
    with background(["sh", "-c", script, str(pipe)], tmp_path / "log", grace=0.2):
        pid = _started(pipe)
    assert _gone(pid)


def test_the_end_of_the_program_is_reported_with_its_last_words(tmp_path: Path, pipe: Path) -> None:
    script = 'echo no room >&2; echo $$ > "$0"; exit 3'
    with background(["sh", "-c", script, str(pipe)], tmp_path / "log") as program:
        os.waitid(os.P_PID, _started(pipe), os.WEXITED | os.WNOWAIT)
        with pytest.raises(ProcessError, match="sh: ended with 3: no room"):
            program.check()


def test_a_program_that_cannot_be_started(tmp_path: Path) -> None:
    with pytest.raises(ProcessError, match="cannot be started"), background(["/nowhere/tool"], tmp_path / "log"):
        pass
