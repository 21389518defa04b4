"""Control groups, version 2: one tree; where systemd is PID 1, beneath the scope that it delegated to us."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from moyai.linux.cgroups.base import (
    CPU_PERIOD_US,
    DAEMON,
    CgroupError,
    CgroupUsage,
    Group,
    Root,
    field,
    mkdir,
    pids_below,
    read,
    rmdir_tree,
    write,
)

NEEDED = frozenset({"cpu", "cpuset", "memory", "pids"})
_EXEC = "moyai-exec"


class GroupV2(Group):
    def __init__(self, root: RootV2, name: str) -> None:
        super().__init__(name)
        self._folder = root.folder / name
        self._path = f"/{root.relative}/{name}"

    def exists(self) -> bool:
        return self._folder.exists()

    def limit(self, *, memory_bytes: int | None, cpus: float | None) -> None:
        mkdir(self._folder)
        write(self._folder / "memory.max", str(memory_bytes) if memory_bytes else "max")
        quota = str(round(cpus * CPU_PERIOD_US)) if cpus else "max"
        write(self._folder / "cpu.max", f"{quota} {CPU_PERIOD_US}")
        swap = self._folder / "memory.swap.max"
        if swap.exists():
            write(swap, "0" if memory_bytes else "max")

    def procs_files(self, *, for_exec: bool = False) -> list[Path]:
        if not for_exec:
            return [self._folder / "cgroup.procs"]
        # A separate leaf: groups with children take no processes, and an OOM kill in init.scope would fail that unit.
        leaf = self._folder / "payload" / _EXEC
        mkdir(leaf)
        return [leaf / "cgroup.procs"]

    def pids(self) -> list[int]:
        return sorted(set(pids_below(self._folder)))

    def kill(self, *, timeout: float = 30.0) -> None:
        try:
            write(self._folder / "cgroup.kill", "1")
        except CgroupError:
            if self.exists():  # else it is gone already: systemd removes an emptied scope by itself
                raise
        self.wait_empty(timeout)

    def remove(self) -> None:
        rmdir_tree(self._folder)

    def set_frozen(self, frozen: bool) -> None:
        if self.exists():
            write(self._folder / "cgroup.freeze", "1" if frozen else "0")

    def frozen(self) -> bool:
        freeze = self._folder / "cgroup.freeze"
        return freeze.exists() and read(freeze) == "1"

    def usage(self) -> CgroupUsage:
        return CgroupUsage(
            memory_bytes=int(read(self._folder / "memory.current")),
            cpu_seconds=field(read(self._folder / "cpu.stat"), "usage_usec") / 1e6,
            oom_kills=field(read(self._folder / "memory.events"), "oom_kill"),
        )

    def verify(self, pid: int) -> None:
        if not self.holds(pid):
            raise CgroupError(f"cgroup {self.name}: process {pid} is in {self.pid_paths(pid).get('', 'none')}")
        # what nspawn passed on; the machine's own systemd enables it further down a moment later
        arrived = set(read(self._folder / "payload" / "cgroup.controllers").split())
        if missing := NEEDED - arrived:
            raise CgroupError(f"cgroup {self.name}: controllers {', '.join(sorted(missing))} did not reach the machine")

    def holds(self, pid: int) -> bool:
        return f"{self.pid_paths(pid).get('', '')}/".startswith(f"{self._path}/")


class RootV2(Root):
    def __init__(self, mount: Path, relative: str, *, owner: bool = False) -> None:
        super().__init__(mount, relative)
        self.folder = mount / relative
        self._owner = owner  # no systemd: the top of the tree is ours to write

    def exists(self) -> bool:
        return self.folder.exists()

    def prepare(self, *, enter: bool = True) -> None:
        if self._owner:
            for name in read(self.mount / "cgroup.controllers").split():
                with contextlib.suppress(CgroupError):  # a missing controller is reported below, if it is needed
                    write(self.mount / "cgroup.subtree_control", f"+{name}")
        mkdir(self.folder / DAEMON)
        for pid in read(self.folder / "cgroup.procs").split() if not self._owner else []:
            self.enter_daemon(int(pid))
        if enter:
            self.enter_daemon()
        available = read(self.folder / "cgroup.controllers").split()
        if missing := NEEDED - set(available):
            raise CgroupError(f"{self.folder}: controllers {', '.join(sorted(missing))} are not delegated")
        for name in available:
            with contextlib.suppress(CgroupError):
                write(self.folder / "cgroup.subtree_control", f"+{name}")
        enabled = set(read(self.folder / "cgroup.subtree_control").split())
        if missing := NEEDED - enabled:
            raise CgroupError(f"{self.folder}: controllers {', '.join(sorted(missing))} cannot be enabled")

    def group(self, name: str) -> GroupV2:
        return GroupV2(self, name)

    def names(self) -> list[str]:
        try:
            return sorted(entry.name for entry in self.folder.iterdir() if entry.is_dir() and entry.name != DAEMON)
        except FileNotFoundError:
            return []

    def enter_daemon(self, pid: int | None = None) -> None:
        with contextlib.suppress(ProcessLookupError):
            write(self.folder / DAEMON / "cgroup.procs", str(pid or 0))

    def remove(self) -> None:
        self.remove_groups()
        daemon = GroupV2(self, DAEMON)
        if os.getpid() in daemon.pids():
            raise CgroupError(f"{self.folder}: its own daemon cannot remove it")
        daemon.kill()
        # systemd too removes an empty scope, together with its folder: either may be first.
        with contextlib.suppress(FileNotFoundError):
            rmdir_tree(self.folder)
