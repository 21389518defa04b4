"""Run programs: one way for all, with the program's own words in the error.

Arguments are never joined into a shell line; secrets go by ``stdin`` or ``env``, never by ``argv``, which everybody can read.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn


@dataclass(frozen=True)
class Completed:
    """What a finished program left: its exit code, standard output and standard error (text)."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str


class ProcessError(Exception):
    """A program could not be started, ended with a failure, or ran over its time."""

    def __init__(self, argv: Sequence[str], reason: str, *, output: str = "") -> None:
        last = [line for line in output.strip().splitlines() if line.strip()][-3:]
        super().__init__(f"{Path(argv[0]).name}: {reason}" + (f": {' / '.join(last)}" if last else ""))
        self.argv = tuple(argv)
        self.output = output


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float | None = None,
    check: bool = True,
) -> Completed:
    """Run a program to its end and return what it printed.

    ``env`` adds to the environment. ``timeout`` in seconds. Raises ProcessError when it cannot start, runs over its
    time, or (with ``check``) ends with a code other than 0.
    """
    words = [os.fspath(word) for word in argv]
    try:
        done = subprocess.run(
            words,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            env={**os.environ, **env} if env else None,
            cwd=cwd,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError as error:
        raise ProcessError(words, f"not found ({error.filename})") from error
    except OSError as error:
        raise ProcessError(words, _not_started(words[0], error)) from error
    except Exception as error:
        if not is_timeout(error):
            raise
        raise ProcessError(words, f"not done after {timeout:.0f} s") from error
    if check and done.returncode:
        raise ProcessError(words, f"ended with {done.returncode}", output=done.stderr or done.stdout)
    return Completed(tuple(words), done.returncode, done.stdout, done.stderr)


def is_timeout(error: Exception) -> bool:
    """Whether a wait for a program has taken too long. Under eventlet, the exception is of another class of the same name."""
    return any(kind.__name__ == subprocess.TimeoutExpired.__name__ for kind in type(error).__mro__)


def stream(
    argv: Sequence[str | os.PathLike[str]],
    on_line: Callable[[str], None],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> None:
    """Run a program and hand over each line of its output (both streams) as it comes.

    Raises ProcessError, with the last lines, when it cannot start or ends with a code other than 0.
    """
    words = [os.fspath(word) for word in argv]
    kept: list[str] = []
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, **env} if env else None,
            cwd=cwd,
        )
    except OSError as error:
        raise ProcessError(words, _not_started(words[0], error)) from error
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            kept = [*kept[-49:], line]
            on_line(line.rstrip("\n"))
    if process.returncode:
        raise ProcessError(words, f"ended with {process.returncode}", output="".join(kept))


def become(argv: Sequence[str | os.PathLike[str]], *, env: Mapping[str, str] | None = None) -> NoReturn:
    """Turn this process into another program: terminal, signals and exit code are then that program's own.

    Raises ProcessError when it cannot start.
    """
    words = [os.fspath(word) for word in argv]
    try:
        os.execvpe(words[0], words, {**os.environ, **(env or {})})
    except FileNotFoundError as error:
        raise ProcessError(words, "not found") from error
    except OSError as error:
        raise ProcessError(words, _not_started(words[0], error)) from error


def _not_started(program: str, error: OSError) -> str:
    """Why. Where a folder of the PATH may not be read, the kernel says of a program that is nowhere: permission denied."""
    if isinstance(error, PermissionError) and "/" not in program and shutil.which(program) is None:
        return "not found"
    return f"cannot be started ({error})"
