"""Control groups, version 1 and version 2, behind one interface: the only module that touches them.

A local cloud has one *root* (``prepare``), each machine beneath it one *group* with the memory and CPUs of its flavor.
What always holds:

- A process joins a group only by ``Group.joining``, as the very process that then becomes the machine: helpers left
  behind in a machine's group take its controllers away on version 2, and a join that failed unseen lets a machine run
  unlimited. So a failed join ends the launch.
- On version 2 a group that was used before cannot be joined again (its children's controllers stay enabled): ``create``
  removes it and makes it anew.
- Where PID 1 is systemd, the version 2 tree is systemd's: the daemon starts itself once in a delegated scope
  (``scope_prefix``), and nothing above that scope is ever written.

Loaded also in OpenStack's own environment: standard library only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
CPU_PERIOD_US = 100_000
V1_NEEDED = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "pids", "systemd")
V1_WANTED = (*V1_NEEDED, "blkio", "unified")
V2_NEEDED = frozenset({"cpu", "cpuset", "memory", "pids"})
_DAEMON = "daemon"
_EXEC = "moyai-exec"
_JOIN_FAILED = 97
# The shell joins (0 is "whoever writes") and becomes the program; no file is left open, no process behind.
_JOIN = f'while [ "$1" != -- ]; do echo 0 >"$1" || exit {_JOIN_FAILED}; shift; done; shift; exec "$@"'


class CgroupError(Exception):
    """Control groups are missing, not delegated, or a group cannot be made, joined, emptied or removed."""


@dataclass(frozen=True)
class Usage:
    """What a group uses now: memory in bytes, CPU time so far in seconds, processes killed for lack of memory so far."""

    memory_bytes: int
    cpu_seconds: float
    oom_kills: int


def detect(mount: Path = MOUNT) -> str:
    """Which interface this host has: ``v1`` (also hybrid) or ``v2``. Raises CgroupError when there is none."""
    if (mount / "cgroup.controllers").exists():
        return "v2"
    if (mount / "memory" / "cgroup.procs").exists():
        return "v1"
    raise CgroupError(f"no control groups at {mount}: neither version 1 controllers nor version 2")


def systemd_runs() -> bool:
    """Whether PID 1 of the host is systemd (also when asked from a private pid namespace)."""
    return Path("/run/systemd/system").is_dir()


def scope_path(name: str, mount: Path = MOUNT) -> Path:
    """Where systemd puts the delegated scope ``name``."""
    return mount / "system.slice" / f"{name}.scope"


def scope_prefix(name: str, mount: Path = MOUNT) -> list[str]:
    """The words to put before the daemon's command line, from the host's namespaces, so that it has a root of its own.

    Empty where none are needed: version 1, no systemd, or the scope is there already (``prepare`` re-enters it).
    """
    if detect(mount) == "v1" or not systemd_runs() or scope_path(name, mount).exists():
        return []
    limits = ["-p", "Delegate=yes", "-p", "TasksMax=infinity", "-p", "TimeoutStopSec=5"]
    return ["systemd-run", "--quiet", "--scope", f"--unit={name}", *limits]


def prepare(name: str, mount: Path = MOUNT) -> Root:
    """Make (or find) the cloud's root and put the calling daemon where it belongs. Idempotent.

    Raises CgroupError when controllers are missing or the daemon was not started with ``scope_prefix``.
    """
    root: Root
    if detect(mount) == "v1":
        root = RootV1(mount, name)
    elif systemd_runs():
        scope = scope_path(name, mount)
        if not scope.exists():
            raise CgroupError(f"{scope} is missing: the daemon must be started in a delegated scope of systemd")
        root = RootV2(mount, str(scope.relative_to(mount)))
    else:
        root = RootV2(mount, name, owner=True)
    root.prepare()
    return root


def open_root(text: str, mount: Path = MOUNT) -> Root:
    """The root that ``str(root)`` named, in another process."""
    if not text or ".." in Path(text).parts or Path(text).is_absolute():
        raise CgroupError(f"{text!r} is no name of a cgroup root")
    root = RootV1(mount, text) if detect(mount) == "v1" else RootV2(mount, text)
    if not root.exists():
        raise CgroupError(f"cgroup root {text} does not exist at {mount}")
    return root


def _write(path: Path, value: str) -> None:
    try:
        path.write_text(value)
    except ProcessLookupError:
        raise  # the process that was to be moved has ended meanwhile
    except OSError as error:
        raise CgroupError(f"{path}: cannot write {value!r}: {error.strerror}") from error


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise CgroupError(f"{path}: cannot read: {error.strerror}") from error


def _mkdir(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CgroupError(f"{path}: cannot make: {error.strerror}") from error


def _field(text: str, key: str) -> int:
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith(f"{key} ")), 0)


def _rmdir_tree(path: Path, *, timeout: float = 5.0) -> None:
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


def _pids_below(path: Path) -> Iterator[int]:
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

    @abstractmethod
    def procs_files(self, *, for_exec: bool = False) -> list[Path]:
        """The files a joining process writes itself into; ``for_exec``: beside a machine that already runs."""

    @abstractmethod
    def pids(self) -> list[int]:
        """All processes in the group and beneath it, as this pid namespace numbers them."""

    @abstractmethod
    def kill(self, *, timeout: float = 10.0) -> None:
        """Kill everything in the group and wait until it is empty."""

    @abstractmethod
    def remove(self) -> None:
        """Remove the empty group."""

    @abstractmethod
    def set_frozen(self, frozen: bool) -> None: ...

    @abstractmethod
    def frozen(self) -> bool: ...

    @abstractmethod
    def usage(self) -> Usage: ...

    @abstractmethod
    def verify(self, pid: int) -> None:
        """Check that process ``pid`` (a machine's PID 1) is under all of the group's controllers; CgroupError if not."""

    @abstractmethod
    def holds(self, pid: int) -> bool:
        """Whether process ``pid`` is in this group or beneath it: tells a machine's process from a recycled number."""

    def joining(self, argv: Sequence[str], *, for_exec: bool = False) -> list[str]:
        """The command line that joins the group and then becomes ``argv``; ends with 97 when it cannot join."""
        files = [str(path) for path in self.procs_files(for_exec=for_exec)]
        return ["/bin/sh", "-c", _JOIN, "moyai-join", *files, "--", *argv]

    def _pid_paths(self, pid: int) -> dict[str, str]:
        """Controller → path of a process; version 2 has the empty controller."""
        try:
            lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        except OSError:
            return {}
        fields = [line.split(":", 2) for line in lines]
        return {name.removeprefix("name="): path for _, names, path in fields for name in names.split(",")}

    def _wait_empty(self, timeout: float) -> None:
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
    def prepare(self) -> None: ...

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
        if not name or "/" in name or name in {_DAEMON, ".", ".."}:
            raise CgroupError(f"{name!r} is no name for a cgroup")
        group = self.group(name)
        if group.exists():
            if group.pids():
                raise CgroupError(f"cgroup {name} is in use by processes {group.pids()[:5]}")
            group.remove()
        group.limit(memory_bytes=memory_bytes, cpus=cpus)
        return group

    def _remove_groups(self) -> None:
        for name in self.names():
            group = self.group(name)
            group.kill()
            group.remove()


class GroupV1(Group):
    def __init__(self, root: RootV1, name: str) -> None:
        super().__init__(name)
        self._folders = {controller: folder / name for controller, folder in root.folders.items()}
        self._path = f"/{root.relative}/{name}"

    def exists(self) -> bool:
        return any(folder.exists() for folder in self._folders.values())

    def limit(self, *, memory_bytes: int | None, cpus: float | None) -> None:
        for folder in self._folders.values():
            _mkdir(folder)
        memory, value = self._folders["memory"], str(memory_bytes) if memory_bytes else "-1"
        swap = memory / "memory.memsw.limit_in_bytes"
        # Memory plus swap may never be less than memory: raise it first, lower it last.
        if swap.exists():
            _write(swap, "-1")
        _write(memory / "memory.limit_in_bytes", value)
        if swap.exists():
            _write(swap, value)
        _write(self._folders["cpu"] / "cpu.cfs_period_us", str(CPU_PERIOD_US))
        _write(self._folders["cpu"] / "cpu.cfs_quota_us", str(round(cpus * CPU_PERIOD_US)) if cpus else "-1")

    def procs_files(self, *, for_exec: bool = False) -> list[Path]:
        del for_exec  # processes may stand beside child groups here
        return [folder / "cgroup.procs" for folder in self._folders.values()]

    def pids(self) -> list[int]:
        return sorted({pid for name in ("pids", "memory") for pid in _pids_below(self._folders[name])})

    def kill(self, *, timeout: float = 10.0) -> None:
        if not self.exists():
            return
        self.set_frozen(False)  # a frozen process does not even die
        deadline = time.monotonic() + timeout
        while pids := self.pids():
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                raise CgroupError(f"cgroup {self.name}: processes {pids[:5]} do not end")
            time.sleep(0.01)

    def remove(self) -> None:
        for folder in self._folders.values():
            _rmdir_tree(folder)

    def set_frozen(self, frozen: bool) -> None:
        state = self._folders["freezer"] / "freezer.state"
        if state.parent.exists():
            _write(state, "FROZEN" if frozen else "THAWED")

    def frozen(self) -> bool:
        state = self._folders["freezer"] / "freezer.state"
        return state.exists() and _read(state) != "THAWED"

    def usage(self) -> Usage:
        memory = self._folders["memory"]
        return Usage(
            memory_bytes=int(_read(memory / "memory.usage_in_bytes")),
            cpu_seconds=int(_read(self._folders["cpuacct"] / "cpuacct.usage")) / 1e9,
            oom_kills=_field(_read(memory / "memory.oom_control"), "oom_kill"),
        )

    def verify(self, pid: int) -> None:
        paths = self._pid_paths(pid)
        wrong = [name for name in V1_NEEDED if not f"{paths.get(name, '')}/".startswith(f"{self._path}/")]
        if wrong:
            raise CgroupError(f"cgroup {self.name}: process {pid} is not under {', '.join(wrong)}")

    def holds(self, pid: int) -> bool:
        return f"{self._pid_paths(pid).get('memory', '')}/".startswith(f"{self._path}/")


class RootV1(Root):
    def __init__(self, mount: Path, relative: str) -> None:
        super().__init__(mount, relative)
        # cpu and cpuacct are often one hierarchy under two names: joining it twice is harmless, keep both
        present = [name for name in V1_WANTED if (mount / name / "cgroup.procs").exists()]
        if missing := [name for name in V1_NEEDED if name not in present]:
            raise CgroupError(f"cgroup v1 controllers are missing at {mount}: {', '.join(missing)}")
        self.folders = {name: mount / name / relative for name in present}

    def exists(self) -> bool:
        return all(folder.exists() for folder in self.folders.values())

    def prepare(self) -> None:
        for name, folder in self.folders.items():
            _mkdir(folder)
            if name == "cpuset":  # a cpuset without CPUs or memory nodes cannot be joined; children copy it
                for file in ("cpuset.cpus", "cpuset.mems"):
                    _write(folder / file, _read(folder.parent / file))
                _write(folder / "cgroup.clone_children", "1")
            hierarchy = folder / "memory.use_hierarchy"
            if name == "memory" and hierarchy.exists() and _read(hierarchy) != "1":
                _write(hierarchy, "1")

    def group(self, name: str) -> GroupV1:
        return GroupV1(self, name)

    def names(self) -> list[str]:
        folders = [folder for folder in self.folders.values() if folder.exists()]
        return sorted({entry.name for folder in folders for entry in folder.iterdir() if entry.is_dir()})

    def enter_daemon(self, pid: int | None = None) -> None:
        del pid

    def remove(self) -> None:
        self._remove_groups()
        for folder in self.folders.values():
            _rmdir_tree(folder)


class GroupV2(Group):
    def __init__(self, root: RootV2, name: str) -> None:
        super().__init__(name)
        self._folder = root.folder / name
        self._path = f"/{root.relative}/{name}"

    def exists(self) -> bool:
        return self._folder.exists()

    def limit(self, *, memory_bytes: int | None, cpus: float | None) -> None:
        _mkdir(self._folder)
        _write(self._folder / "memory.max", str(memory_bytes) if memory_bytes else "max")
        quota = str(round(cpus * CPU_PERIOD_US)) if cpus else "max"
        _write(self._folder / "cpu.max", f"{quota} {CPU_PERIOD_US}")
        swap = self._folder / "memory.swap.max"
        if swap.exists():
            _write(swap, "0" if memory_bytes else "max")

    def procs_files(self, *, for_exec: bool = False) -> list[Path]:
        if not for_exec:
            return [self._folder / "cgroup.procs"]
        # A leaf of its own: groups with children take no processes, and an OOM kill in init.scope would fail that unit.
        leaf = self._folder / "payload" / _EXEC
        _mkdir(leaf)
        return [leaf / "cgroup.procs"]

    def pids(self) -> list[int]:
        return sorted(set(_pids_below(self._folder)))

    def kill(self, *, timeout: float = 10.0) -> None:
        if self.exists():
            _write(self._folder / "cgroup.kill", "1")
            self._wait_empty(timeout)

    def remove(self) -> None:
        _rmdir_tree(self._folder)

    def set_frozen(self, frozen: bool) -> None:
        if self.exists():
            _write(self._folder / "cgroup.freeze", "1" if frozen else "0")

    def frozen(self) -> bool:
        freeze = self._folder / "cgroup.freeze"
        return freeze.exists() and _read(freeze) == "1"

    def usage(self) -> Usage:
        return Usage(
            memory_bytes=int(_read(self._folder / "memory.current")),
            cpu_seconds=_field(_read(self._folder / "cpu.stat"), "usage_usec") / 1e6,
            oom_kills=_field(_read(self._folder / "memory.events"), "oom_kill"),
        )

    def verify(self, pid: int) -> None:
        if not self.holds(pid):
            raise CgroupError(f"cgroup {self.name}: process {pid} is in {self._pid_paths(pid).get('', 'none')}")
        enabled = set(_read(self._folder / "payload" / "cgroup.subtree_control").split())
        if missing := V2_NEEDED - enabled:
            raise CgroupError(f"cgroup {self.name}: controllers {', '.join(sorted(missing))} did not reach the machine")

    def holds(self, pid: int) -> bool:
        return f"{self._pid_paths(pid).get('', '')}/".startswith(f"{self._path}/")


class RootV2(Root):
    def __init__(self, mount: Path, relative: str, *, owner: bool = False) -> None:
        super().__init__(mount, relative)
        self.folder = mount / relative
        self._owner = owner  # no systemd: the top of the tree is ours to write

    def exists(self) -> bool:
        return self.folder.exists()

    def prepare(self) -> None:
        if self._owner:
            for name in _read(self.mount / "cgroup.controllers").split():
                with contextlib.suppress(CgroupError):  # one that cannot be had is named below, when it is needed
                    _write(self.mount / "cgroup.subtree_control", f"+{name}")
        _mkdir(self.folder / _DAEMON)
        for pid in _read(self.folder / "cgroup.procs").split() if not self._owner else []:
            self.enter_daemon(int(pid))
        self.enter_daemon()
        available = _read(self.folder / "cgroup.controllers").split()
        if missing := V2_NEEDED - set(available):
            raise CgroupError(f"{self.folder}: controllers {', '.join(sorted(missing))} are not delegated")
        for name in available:
            with contextlib.suppress(CgroupError):
                _write(self.folder / "cgroup.subtree_control", f"+{name}")
        enabled = set(_read(self.folder / "cgroup.subtree_control").split())
        if missing := V2_NEEDED - enabled:
            raise CgroupError(f"{self.folder}: controllers {', '.join(sorted(missing))} cannot be enabled")

    def group(self, name: str) -> GroupV2:
        return GroupV2(self, name)

    def names(self) -> list[str]:
        if not self.folder.exists():
            return []
        return sorted(entry.name for entry in self.folder.iterdir() if entry.is_dir() and entry.name != _DAEMON)

    def enter_daemon(self, pid: int | None = None) -> None:
        with contextlib.suppress(ProcessLookupError):
            _write(self.folder / _DAEMON / "cgroup.procs", str(pid or 0))

    def remove(self) -> None:
        self._remove_groups()
        daemon = GroupV2(self, _DAEMON)
        if os.getpid() in daemon.pids():
            raise CgroupError(f"{self.folder}: its own daemon cannot remove it")
        daemon.kill()
        # systemd removes an empty scope by itself, together with its folder: either of us may be first.
        with contextlib.suppress(FileNotFoundError):
            _rmdir_tree(self.folder)
