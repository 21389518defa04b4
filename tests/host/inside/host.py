"""The host's part: settings, control groups, namespaces; and that nothing of them is left."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from moyai.linux import cgroups, netns
from moyai.linux.process import run
from moyai.localcloud import tuning

from .report import CONFIG, trying, wait


def outer() -> None:
    before = state()
    with trying("kernel modules and settings can be had") as detail:
        detail += tuning.tune(CONFIG.name)
        assert not detail
        assert Path("/proc/sys/net/bridge").exists(), "br_netfilter"
    with trying("the daemon's scope, and all within it"):
        words = [*cgroups.scope_prefix(CONFIG.cgroup), sys.executable, "-m", "inside", "daemon"]
        subprocess.run(words, check=True)
    with trying("the root goes") as detail:
        cgroups.find(CONFIG.cgroup).remove()
        detail += tuning.restore(CONFIG.name)
        assert not detail
    with trying("nothing is left: control groups, mounts, namespaces, links, settings") as detail:
        wait("the scope's end", lambda: "" if not cgroups.left(CONFIG.cgroup) else None, seconds=20)
        after = state()
        detail += [f"{key}: {before[key]} became {after[key]}" for key in before if after[key] != before[key]]
        assert not detail


def state() -> dict[str, str]:
    """All that a run may not change on the host."""
    mounts = "\n".join(line for line in Path("/proc/mounts").read_text().splitlines() if "binfmt_misc" not in line)
    names = ("fs/inotify/max_user_instances", "kernel/panic", "kernel/panic_on_oops", "vm/overcommit_memory", "vm/panic_on_oom")
    settings = {name: (Path("/proc/sys") / name).read_text().strip() for name in names}
    groups = sorted(str(path) for path in Path("/sys/fs/cgroup").rglob("*moyai*") if path.is_dir() and "moyai-try" in path.name)
    links = sorted(name for _, name in socket.if_nameindex())
    controllers = Path("/sys/fs/cgroup/cgroup.controllers")
    return {
        "mounts": mounts,
        "settings": str(settings),
        "groups": str(groups),
        "links": str(links),
        "namespaces": str(netns.names()),
        "controllers": controllers.read_text() if controllers.exists() else "v1",
        "machines": str(run(["ps", "-e", "-o", "comm"]).stdout.count("systemd-nspawn")),
    }


def daemon() -> None:
    with trying("control groups version 2, delegated by systemd") as detail:
        detail.append(cgroups.detect())
        root = cgroups.prepare(CONFIG.cgroup)
        detail.append(str(root))
    words = [
        "unshare",
        "--mount",
        "--net",
        "--pid",
        "--fork",
        "--mount-proc",
        sys.executable,
        "-m",
        "inside",
        "cloud",
        str(root),
    ]
    subprocess.run(words, check=True)
