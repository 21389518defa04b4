"""What both versions of control groups share: the interface, and how its files are read and written."""

from __future__ import annotations

import contextlib
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

CPU_PERIOD_US = 100_000
DAEMON = "daemon"
JOIN_FAILED = 97
# The shell joins (0 is the process that writes) and becomes the program. No open file and no process remains.
_JOIN = f'while [ "$1" != -- ]; do echo 0 >"$1" || exit {JOIN_FAILED}; shift; done; shift; exec "$@"'


class CgroupError(Exception):
    """Control groups are missing, not delegated, or a group cannot be made, joined, emptied or removed."""


@dataclass(frozen=True)
class CgroupUsage:
    """What a group uses now: memory in bytes, CPU time so far in seconds, processes killed for lack of memory so far."""

    memory_bytes: int
    cpu_seconds: float
    oom_kills: int


def write(path: Path, value: str) -> None:
    try:
        path.write_text(value)
    except ProcessLookupError:
        raise  # the process that was to be moved has ended meanwhile
    except OSError as error:
        raise CgroupError(f"{path}: cannot write {value!r}: {error.strerror}") from error


def read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise CgroupError(f"{path}: cannot read: {error.strerror}") from error


def mkdir(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CgroupError(f"{path}: cannot make: {error.strerror}") from error


def field(text: str, key: str) -> int:
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith(f"{key} ")), 0)


def rmdir_tree(path: Path, *, timeout: float = 5.0) -> None:
    """Remove a group and all beneath it, deepest first; dying processes keep it busy for moments."""
    deadline = time.monotonic() + timeout
    while path.exists():
        for folder, _, _ in os.walk(path, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
        if not path.exists():
            return
        if time.monotonic() > deadline:
            raise CgroupError(f"{path}: cannot remove: still busy")
        time.sleep(0.02)


def pids_below(path: Path) -> Iterator[int]:
    for folder, _, _ in os.walk(path):
        with contextlib.suppress(OSError):
            for word in (Path(folder) / "cgroup.procs").read_text().split():
                if word != "0":  # a process of a pid namespace that is not ours
                    yield int(word)


class Group(ABC):
    """One machine's control group: limits, members, end."""

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def exists(self) -> bool: ...

    @abstractmethod
    def limit(self, *, memory_bytes: int | None, cpus: float | None) -> None:
        """Set the limits; they may change while processes run. None: no limit."""

    def cpus(self) -> tuple[int, ...] | None:
        """The host's numbers of the CPUs that the group is restricted to; None where it may run on all of them."""
        return None

    @abstractmethod
    def procs_files(self, *, for_exec: bool = False) -> list[Path]:
        """The files a joining process writes itself into; ``for_exec``: beside a machine that already runs."""

    @abstractmethod
    def pids(self) -> list[int]:
        """All processes in the group and beneath it, as this pid namespace numbers them."""

    @abstractmethod
    def kill(self, *, timeout: float = 30.0) -> None:
        """Kill everything in the group and wait until it is empty."""

    @abstractmethod
    def remove(self) -> None:
        """Remove the empty group."""

    @abstractmethod
    def set_frozen(self, frozen: bool) -> None: ...

    @abstractmethod
    def frozen(self) -> bool: ...

    @abstractmethod
    def usage(self) -> CgroupUsage: ...

    @abstractmethod
    def verify(self, pid: int) -> None:
        """Check that process ``pid`` (a machine's PID 1) is under all of the group's controllers; CgroupError if not."""

    @abstractmethod
    def holds(self, pid: int) -> bool:
        """Whether process ``pid`` is in this group or beneath it: distinguishes a machine's process from a reused pid."""

    def joining(self, argv: Sequence[str], *, for_exec: bool = False) -> list[str]:
        """The command line that joins the group and then becomes ``argv``; ends with 97 when it cannot join."""
        files = [str(path) for path in self.procs_files(for_exec=for_exec)]
        return ["/bin/sh", "-c", _JOIN, "moyai-join", *files, "--", *argv]

    def pid_paths(self, pid: int) -> dict[str, str]:
        """Controller → path of a process; version 2 has the empty controller."""
        try:
            lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        except OSError:
            return {}
        fields = [line.split(":", 2) for line in lines]
        return {name.removeprefix("name="): path for _, names, path in fields for name in names.split(",")}

    def wait_empty(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while self.pids():
            if time.monotonic() > deadline:
                raise CgroupError(f"cgroup {self.name}: processes {self.pids()[:5]} do not end")
            time.sleep(0.01)


class Root(ABC):
    """A cloud's own part of the control group tree. ``str(root)`` names it for other processes (``open_root``)."""

    def __init__(self, mount: Path, relative: str) -> None:
        self.mount, self.relative = mount, relative

    def __str__(self) -> str:
        return self.relative

    @abstractmethod
    def exists(self) -> bool: ...

    @abstractmethod
    def prepare(self, *, enter: bool = True) -> None:
        """Make the root ready for groups; ``enter``: the caller is the daemon and goes where daemons belong."""

    @abstractmethod
    def group(self, name: str) -> Group: ...

    @abstractmethod
    def names(self) -> list[str]:
        """The groups that are there."""

    @abstractmethod
    def enter_daemon(self, pid: int | None = None) -> None:
        """Put the daemon (default: the caller) among the cloud's own processes; on version 1 they stay where they are."""

    @abstractmethod
    def remove(self) -> None:
        """Kill and remove all groups, then the root itself."""

    def create(self, name: str, *, memory_bytes: int | None = None, cpus: float | None = None) -> Group:
        """Make a group with its limits. One that is left from before is removed first; CgroupError when it still runs."""
        if not name or "/" in name or name in {DAEMON, ".", ".."}:
            raise CgroupError(f"{name!r} is no name for a cgroup")
        group = self.group(name)
        if group.exists():
            if group.pids():
                raise CgroupError(f"cgroup {name} is in use by processes {group.pids()[:5]}")
            group.remove()
        group.limit(memory_bytes=memory_bytes, cpus=cpus)
        return group

    def remove_groups(self) -> None:
        for name in self.names():
            group = self.group(name)
            group.kill()
            group.remove()
