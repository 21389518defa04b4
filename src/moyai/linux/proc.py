"""Processes as the kernel shows them: the identity of a process beyond its pid, the processes of a namespace. Reads only."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class ProcessRecord:
    """The identity of one process. The kernel reuses a pid, but never the three values together."""

    pid: int
    start: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> ProcessRecord:
        return cls(pid, start_time(pid) or 0, boot())

    @classmethod
    def load(cls, file: Path) -> ProcessRecord | None:
        try:
            return cls(**json.loads(file.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def to_json(self) -> str:
        return json.dumps(asdict(self)) + "\n"

    def since(self) -> float:
        """When it was started, in seconds since 1970; 0 when it is gone."""
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        return time.time() - uptime + self.start / os.sysconf("SC_CLK_TCK") if self.alive() else 0.0

    def alive(self) -> bool:
        """Whether exactly this process still exists and is no zombie."""
        return self.boot == boot() and self.start != 0 and start_time(self.pid) == self.start


def boot() -> str:
    """What the running kernel calls itself, since it was started."""
    return _BOOT_ID.read_text().strip()


def start_time(pid: int) -> int | None:
    """When it was started, in the kernel's ticks since boot; None when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def pids() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def namespace(pid: int, kind: str) -> str:
    """The namespace's identity, "" when the process is gone."""
    try:
        return str(Path(f"/proc/{pid}/ns/{kind}").readlink())
    except OSError:
        return ""


def members(init: int) -> dict[int, int]:
    """Processes of the pid namespace of ``init``: their pid there → their pid here (machines have their own)."""
    wanted = namespace(init, "pid")
    found: dict[int, int] = {}
    for pid in pids():
        if wanted and namespace(pid, "pid") == wanted:
            inner = inner_pid(pid)
            if inner:
                found[inner] = pid
    return found


def inner_pid(pid: int) -> int | None:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    except OSError:
        pass
    return None


def memory(pid: int) -> int:
    """Proportional share of memory in bytes: what would be freed, shared pages counted by parts."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0
