"""Processes that outlive the call that starts them (services, a namespace's init), and how they are watched and ended.

A process goes on when its starter dies, and is found again by its record (``proc``). The module imports only a small part of
the standard library, because the supervisor loads it at every start of a cloud.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path


def in_network(name: str, argv: Sequence[str]) -> list[str]:
    """The command in a network namespace. (``ip netns exec`` would hide the control groups.)"""
    return ["/usr/bin/nsenter", f"--net=/run/netns/{name}", *argv]


#: Becomes the program once a line arrives on its input. An input that ends means that the process's starter has died, or has
#: given up. The shell itself adds PWD to the environment.
_GATE = 'read -r _ || exit 0; unset PWD; exec "$@" </dev/null'


@contextmanager
def held(argv: Sequence[str], *, env: Mapping[str, str], log: Path) -> Generator[int]:
    """Start a program in a new session, with exactly this environment. Its output is appended to ``log``.

    The block gets the pid before the program runs, to put it on record; ``process_end.ended`` waits for its end. The process
    becomes the program after the block. It ends without having become the program when the block raises or when this process
    dies in it. Raises OSError when the program cannot be started.
    """
    _find(argv[0], env.get("PATH", os.defpath))
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        process = subprocess.Popen(
            ["/bin/sh", "-c", _GATE, "sh", *argv],
            env=env,
            cwd="/",
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,
            # the caller's may be stricter, but programs hand theirs on: the root folder of a machine must be readable in it
            umask=0o022,
        )
    finally:
        os.close(output)
    assert process.stdin is not None
    try:
        with process.stdin as gate:
            yield process.pid
            with contextlib.suppress(BrokenPipeError):  # it was killed meanwhile: its watcher sees that
                os.write(gate.fileno(), b"\n")
    except BaseException:
        process.wait()
        raise
    # callers wait for the pidfd; without a return code, Popen would warn that the process still runs
    process.returncode = 0


def _find(program: str, path: str) -> None:
    """Raise FileNotFoundError unless there is such a program."""
    places = [program] if "/" in program else [f"{folder}/{program}" for folder in path.split(":")]
    if not any(os.access(place, os.X_OK) for place in places):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), program)


def send(pid: int, name: str) -> None:
    """Send a signal by its name (``SIGTERM``). A process that is gone already is no error."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.Signals[name])


def kill(pid: int) -> None:
    """End a process at once. A process that is gone already is no error."""
    send(pid, "SIGKILL")


def kill_group(leader: int) -> None:
    """End all that is left of a process group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


@contextmanager
def suspended(pid: int) -> Generator[None]:
    """The process stands still during the block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


class NamespaceInit:
    """The first process of new mount, network and pid namespaces, and the process outside that waits for it."""

    def __init__(self, outer: subprocess.Popen[bytes]) -> None:
        self._outer = outer

    @classmethod
    def start(cls, argv: Sequence[str], *, log: Path, channel: int) -> NamespaceInit:
        """Start ``argv`` as that process; it keeps the open file ``channel``. It outlives its starter."""
        with log.open("ab") as output:
            outer = subprocess.Popen(
                ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", *argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd="/",
                pass_fds=(channel,),
            )
        return cls(outer)

    @property
    def outer_pid(self) -> int:
        """The waiting process; the namespaces' first process is its only child."""
        return self._outer.pid

    def wait(self) -> int:
        """Wait until it has ended; returns its exit code."""
        return self._outer.wait()


def run_as_init(argv: Sequence[str]) -> None:
    """For the first process of a pid namespace: run a program to its end, and take in every orphan that ends meanwhile."""
    child = os.posix_spawn(argv[0], list(argv), os.environ)
    gone = 0
    while gone != child:
        with contextlib.suppress(InterruptedError):
            gone, _ = os.wait()
