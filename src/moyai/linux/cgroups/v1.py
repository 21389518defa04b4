"""Control groups, version 1: a hierarchy for each controller, all joined by each machine.

A machine's CPUs are limited by the set of CPUs that it may run on, never by a quota: version 1 refuses a quota of a group
below that is larger, so a container whose limit is above its machine's CPUs would not start. A machine with as many CPUs
as the host, or more, needs no limit.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import signal
import time
from pathlib import Path

from moyai.linux.cgroups.base import (
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

NEEDED = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "pids", "systemd")
WANTED = (*NEEDED, "blkio", "unified")


#: What one busy process weighs, and so one virtual processor of a machine.
SHARES = 1024
#: All machines together weigh as much as a few hypervisors' guests: as one process, they would stand behind each of the cloud's
#: dozens of services.
ROOT_SHARES = 8 * SHARES


def _cpu_list(text: str) -> list[int]:
    """The CPUs of a list as the kernel writes it: ``0,2-3``."""
    ranges = [part.split("-") for part in text.split(",") if part]
    return [cpu for ends in ranges for cpu in range(int(ends[0]), int(ends[-1]) + 1)]


class GroupV1(Group):
    def __init__(self, root: RootV1, name: str) -> None:
        super().__init__(name)
        self._root = root
        self._folders = {controller: folder / name for controller, folder in root.folders.items()}
        self._path = f"/{root.relative}/{name}"

    def exists(self) -> bool:
        return any(folder.exists() for folder in self._folders.values())

    def limit(self, *, memory_bytes: int | None, cpus: float | None) -> None:
        for folder in self._folders.values():
            mkdir(folder)
        memory, value = self._folders["memory"], str(memory_bytes) if memory_bytes else "-1"
        swap = memory / "memory.memsw.limit_in_bytes"
        # Memory plus swap may never be less than memory: raise it first, lower it last.
        if swap.exists():
            write(swap, "-1")
        write(memory / "memory.limit_in_bytes", value)
        if swap.exists():
            write(swap, value)
        self._root.assign_cpus(self._folders["cpuset"], cpus)
        write(self._folders["cpu"] / "cpu.shares", str(max(2, round((cpus or 1) * SHARES))))

    def procs_files(self, *, for_exec: bool = False) -> list[Path]:
        del for_exec  # processes may stand beside child groups here
        return [folder / "cgroup.procs" for folder in self._folders.values()]

    def pids(self) -> list[int]:
        return sorted({pid for name in ("pids", "memory") for pid in pids_below(self._folders[name])})

    def kill(self, *, timeout: float = 30.0) -> None:
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
            rmdir_tree(folder)

    def set_frozen(self, frozen: bool) -> None:
        state = self._folders["freezer"] / "freezer.state"
        if state.parent.exists():
            write(state, "FROZEN" if frozen else "THAWED")

    def frozen(self) -> bool:
        state = self._folders["freezer"] / "freezer.state"
        return state.exists() and read(state) != "THAWED"

    def usage(self) -> CgroupUsage:
        memory = self._folders["memory"]
        return CgroupUsage(
            memory_bytes=int(read(memory / "memory.usage_in_bytes")),
            cpu_seconds=int(read(self._folders["cpuacct"] / "cpuacct.usage")) / 1e9,
            oom_kills=field(read(memory / "memory.oom_control"), "oom_kill"),
        )

    def verify(self, pid: int) -> None:
        paths = self.pid_paths(pid)
        wrong = [name for name in NEEDED if not f"{paths.get(name, '')}/".startswith(f"{self._path}/")]
        if wrong:
            raise CgroupError(f"cgroup {self.name}: process {pid} is not under {', '.join(wrong)}")

    def holds(self, pid: int) -> bool:
        return f"{self.pid_paths(pid).get('memory', '')}/".startswith(f"{self._path}/")


class RootV1(Root):
    def __init__(self, mount: Path, relative: str) -> None:
        super().__init__(mount, relative)
        # cpu and cpuacct are often one hierarchy under two names: joining it twice is harmless, keep both
        present = [name for name in WANTED if (mount / name / "cgroup.procs").exists()]
        if missing := [name for name in NEEDED if name not in present]:
            raise CgroupError(f"cgroup v1 controllers are missing at {mount}: {', '.join(missing)}")
        self.folders = {name: mount / name / relative for name in present}

    def exists(self) -> bool:
        return all(folder.exists() for folder in self.folders.values())

    def prepare(self, *, enter: bool = True) -> None:
        del enter
        for name, folder in self.folders.items():
            mkdir(folder)
            if name == "cpuset":  # a cpuset without CPUs or memory nodes cannot be joined; children copy it
                for file in ("cpuset.cpus", "cpuset.mems"):
                    write(folder / file, read(folder.parent / file))
                write(folder / "cgroup.clone_children", "1")
            if name == "cpu":
                write(folder / "cpu.shares", str(ROOT_SHARES))
            hierarchy = folder / "memory.use_hierarchy"
            if name == "memory" and hierarchy.exists() and read(hierarchy) != "1":
                write(hierarchy, "1")

    def assign_cpus(self, group: Path, cpus: float | None) -> None:
        """Restrict a group without children to so many CPUs (rounded up) that the fewest other groups have."""
        top = self.folders["cpuset"]
        available = _cpu_list(read(top / "cpuset.cpus"))
        if not cpus or cpus >= len(available):
            return  # a new group has the CPUs of the one above
        folder = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)  # two machines that start at the same time get different CPUs
            load = dict.fromkeys(available, 0)
            for other in top.glob("*/cpuset.cpus"):
                # a group may end meanwhile, or be so new that its file is empty
                with contextlib.suppress(CgroupError):
                    taken = _cpu_list(read(other))
                    if other.parent != group and len(taken) < len(available):
                        for cpu in taken:
                            load[cpu] = load.get(cpu, 0) + 1
            chosen = sorted(available, key=lambda cpu: (load[cpu], cpu))[: math.ceil(cpus)]
            write(group / "cpuset.cpus", ",".join(map(str, sorted(chosen))))
        finally:
            os.close(folder)

    def group(self, name: str) -> GroupV1:
        return GroupV1(self, name)

    def names(self) -> list[str]:
        folders = [folder for folder in self.folders.values() if folder.exists()]
        return sorted({entry.name for folder in folders for entry in folder.iterdir() if entry.is_dir()})

    def enter_daemon(self, pid: int | None = None) -> None:
        del pid

    def remove(self) -> None:
        self.remove_groups()
        for folder in self.folders.values():
            rmdir_tree(folder)
