"""A program that runs during a block of code: it is started, watched, and ended with the block.

The program never outlives the process that started it. The kernel ends it when that process dies, even by SIGKILL.
"""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import subprocess
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from moyai.linux.process import ProcessError, is_timeout

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


def _die_with(parent: int) -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before the kernel knew of this
        os._exit(1)


class Background:
    """A running program and the file that holds its output."""

    def __init__(self, argv: Sequence[str], process: subprocess.Popen[bytes], *, log: Path) -> None:
        self._argv = argv
        self._process = process
        self._log = log

    @property
    def pid(self) -> int:
        return self._process.pid

    def check(self) -> None:
        """Raise ProcessError, with the last lines of its output, if the program has ended."""
        code = self._process.poll()
        if code is not None:
            raise ProcessError(self._argv, f"ended with {code}", output=self._log.read_text(errors="replace"))

    def done_within(self, seconds: float) -> bool:
        """Wait ``seconds`` at most for the program's end; whether it has ended. Raises ProcessError for a code other than 0."""
        try:
            if self._process.wait(seconds):
                self.check()
        except Exception as error:
            if not is_timeout(error):
                raise
            return False
        return True


@contextmanager
def background(argv: Sequence[str | os.PathLike[str]], log: Path, *, grace: float = 10.0) -> Generator[Background]:
    """Run a program during the block, its output in ``log``; at the end SIGTERM, and SIGKILL after ``grace`` seconds."""
    words = [os.fspath(word) for word in argv]
    with log.open("wb") as output:
        try:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=functools.partial(_die_with, os.getpid()),
            )
        except OSError as error:
            raise ProcessError(words, f"cannot be started ({error})") from error
    try:
        yield Background(words, process, log=log)
    finally:
        process.terminate()
        try:
            process.wait(grace)
        except Exception as error:
            process.kill()
            process.wait()
            if not is_timeout(error):
                raise
