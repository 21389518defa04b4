"""Control groups, version 1 and version 2, behind one interface: the only package that touches them.

A local cloud has one *root* (``prepare``), each machine beneath it one *group* with the memory and CPUs of its flavor.
What always holds:

- A process joins a group only by ``Group.joining``, as the very process that then becomes the machine: helpers left
  behind in a machine's group take its controllers away on version 2, and a join that failed unseen lets a machine run
  unlimited. So a failed join ends the launch.
- On version 2 a group that was used before cannot be joined again (its children's controllers stay enabled): ``create``
  removes it and recreates it.
- Where PID 1 is systemd, the version 2 tree is systemd's: the daemon starts itself once in a delegated scope
  (``scope_prefix``), and nothing above that scope is ever written.

Loaded also in OpenStack's own environment: standard library only.
"""

from __future__ import annotations

from pathlib import Path

from moyai.linux.cgroups.base import CgroupError, CgroupUsage, Group, Root
from moyai.linux.cgroups.v1 import RootV1
from moyai.linux.cgroups.v2 import RootV2

__all__ = [
    "MOUNT",
    "CgroupError",
    "CgroupUsage",
    "Group",
    "Root",
    "RootV1",
    "RootV2",
    "detect",
    "find",
    "left",
    "open_root",
    "prepare",
    "scope_path",
    "scope_prefix",
    "systemd_runs",
]

MOUNT = Path("/sys/fs/cgroup")


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


def find(name: str, mount: Path = MOUNT) -> Root:
    """The root of the cloud of this name, existing or not. ``open_root`` takes its ``str``."""
    if detect(mount) == "v1":
        return RootV1(mount, name)
    scope = scope_path(name, mount)
    return RootV2(mount, str(scope.relative_to(mount))) if systemd_runs() else RootV2(mount, name, owner=True)


def left(name: str, mount: Path = MOUNT) -> list[Path]:
    """The folders of the cloud's root that are there: none after ``find(name).remove()``."""
    root = find(name, mount)
    folders = root.folders.values() if isinstance(root, RootV1) else [root.folder] if isinstance(root, RootV2) else []
    return [folder for folder in folders if folder.exists()]


def prepare(name: str, mount: Path = MOUNT) -> Root:
    """Make (or find) the cloud's root and put the calling daemon where it belongs. Idempotent.

    Raises CgroupError when controllers are missing or the daemon was not started with ``scope_prefix``.
    """
    root = find(name, mount)
    if systemd_runs() and isinstance(root, RootV2) and not root.exists():
        raise CgroupError(f"{root.folder} is missing: the daemon must be started in a delegated scope of systemd")
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
