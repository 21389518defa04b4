"""Locks between processes: one holder at a time, callers learn who holds the lock, and a dead holder frees it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from moyai.core.errors import Terminal
from moyai.core.locks import file_lock

HOLD = """
import sys
from pathlib import Path
from moyai.core.locks import file_lock
with file_lock(Path(sys.argv[1]), print):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_who_waits_is_told_for_whom_and_goes_on_when_that_one_is_done(tmp_path: Path) -> None:
    file, said, order = tmp_path / "folder" / "lock", list[str](), list[str]()
    waits = threading.Event()

    def say(holder: str) -> None:
        said.append(holder)
        waits.set()

    def second() -> None:
        with file_lock(file, say):
            order.append("second")

    with file_lock(file, say):
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(30)
        order.append("first")
    thread.join(30)
    assert order == ["first", "second"]
    assert said == [f"process {os.getpid()}"]


def test_who_will_not_wait_raises_and_a_killed_holder_lets_go(tmp_path: Path) -> None:
    def refuse(holder: str) -> None:
        raise Terminal(f"held by {holder}")

    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(Terminal, match=f"held by process {holder.pid}"), file_lock(tmp_path / "lock", refuse):
            pass
        holder.send_signal(signal.SIGKILL)
    with file_lock(tmp_path / "lock", refuse):
        pass
