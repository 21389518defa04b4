"""Ends a cloud: removes everything that the cloud has on the host, and reports the objects that remain.

The order of the removals keeps any process from recreating a removed object. The module works from names and records only, not
from the memory of an earlier command. It therefore works in the same way after a crash of any part.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from moyai.core.clock import SystemClock
from moyai.core.errors import MoyaiError, UsageError
from moyai.core.waiting import NotYet, until
from moyai.linux import cgroups, daemons, loop, proc
from moyai.linux.process import run
from moyai.localcloud import host
from moyai.localcloud.layout import CloudPaths, LocalCloudConfig


def end(config: LocalCloudConfig, paths: CloudPaths) -> None:
    """Kill the cloud's init and with it everything inside; then free the objects outside of namespaces. Keeps the state."""
    record = proc.ProcessRecord.load(paths.init_record)
    if record is not None and record.alive():
        daemons.kill(record.pid)
    _kill_strays(paths)
    host.detach(config)
    loop.detach_under(paths.root)
    cgroups.find(config.cgroup).remove()
    for mount in sorted(_mounts(paths), reverse=True):
        run(["umount", mount], check=False)
    paths.init_record.unlink(missing_ok=True)


def running_roots(name: str) -> set[Path]:
    """The folders from which clouds of this name run, also of those that another user or process started."""
    found: set[Path] = set()
    for pid in proc.pids():
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if b"moyai.localcloud.init" in words:
                root = Path(os.fsdecode(words[words.index(b"moyai.localcloud.init") + 1]))
                found |= {root} if root.name == name else set()
    return found


def refuse_foreign(config: LocalCloudConfig, paths: CloudPaths) -> None:
    """Links and control groups go by the cloud's name alone: raise UsageError when one of it runs from another folder."""
    for root in running_roots(config.name) - {paths.root}:
        raise UsageError(f"a cloud {config.name!r} runs from {root}", hint="set MOYAI_STATE_DIR for it, or use another name")


def clear(config: LocalCloudConfig, paths: CloudPaths) -> None:
    """Delete the cloud's state. ``end`` must have been called."""
    if mounts := _mounts(paths):
        raise MoyaiError(f"{mounts[0]} is still mounted, the state of cloud {config.name!r} stays")
    if paths.root.exists():
        shutil.rmtree(paths.root)


def leftovers(config: LocalCloudConfig, paths: CloudPaths) -> list[str]:
    """What this cloud has on the host: processes, links, routes, loop devices, cgroups, mounts; one line each."""
    found = [f"process {pid} ({_command(pid)})" for pid in _processes(paths)]
    found += host.leftovers(config)
    found += [f"loop device {device}" for device in _loops(paths)]
    found += [f"cgroup {folder}" for folder in cgroups.left(config.cgroup)]
    found += [f"mount {mount}" for mount in _mounts(paths)]
    return found


def _processes(paths: CloudPaths) -> list[int]:
    """Processes that name the cloud's folder on their command line, or that live in its namespaces."""
    record = proc.ProcessRecord.load(paths.init_record)
    inside = set(proc.members(record.pid).values()) if record and record.alive() else set[int]()
    mark = f"{paths.root}".encode()
    for pid in proc.pids():
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if pid != os.getpid() and any(word == mark or mark + b"/" in word for word in words) and _is_daemon(words):
                inside.add(pid)
    return sorted(inside)


def _is_daemon(words: list[bytes]) -> bool:
    """Somebody's editor or shell that has a file of ours open is none of our processes."""
    ours = (
        b"moyai.localcloud.",
        b"moyai.nifcloud_front.",
        b"mariadbd",
        b"--config-file",
        b"systemd-nspawn",
        b"haproxy",
        b"dnsmasq",
        b"beam.smp",
        b"keystone",
    )
    return any(mark in word for word in words for mark in ours)


def _kill_strays(paths: CloudPaths) -> None:
    """Wait until all processes of the cloud have ended. Kill those outside its namespaces (an interrupted setup step)."""

    def nobody() -> bool | NotYet:
        left = _processes(paths)
        for pid in left:
            daemons.kill(pid)
        return not left or NotYet(f"process {left[0]} ({_command(left[0])})")

    def late(last: NotYet) -> MoyaiError:
        return MoyaiError(f"{last.missing} does not end")

    until(nobody, clock=SystemClock(), timeout=20, pause=0.05, retry=(), late=late)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "gone"


def _mounts(paths: CloudPaths) -> list[str]:
    found: list[str] = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        point = line.split()[1].replace("\\040", " ")
        if point == str(paths.root) or point.startswith(f"{paths.root}/"):
            found.append(point)
    return found


def _loops(paths: CloudPaths) -> list[str]:
    return [device for device, file in loop.attached().items() if file.is_relative_to(paths.root)]
