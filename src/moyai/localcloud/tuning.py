"""The host's kernel: what machines need of it is loaded and set, recorded first, and put back when the last cloud goes.

The record is one for all clouds of the host and lives in /run, as long as the settings themselves do: until the next boot.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Generator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from moyai.core.files import write_private
from moyai.core.locks import file_lock
from moyai.linux.process import ProcessError, run

RECORD = Path("/run/moyai/host.json")
#: Lower limits: containerd, kubelet and systemd of each machine watch files.
AT_LEAST = {"fs/inotify/max_user_instances": 8192, "fs/inotify/max_user_watches": 1048576}
#: Kernel modules, each with a command that succeeds, in a network namespace of its own, on a kernel that has it built in.
MODULES: dict[str, tuple[str, ...]] = {
    # does not load by itself: without it a pod does not reach a Service whose endpoint is on its own node
    "br_netfilter": ("test", "-e", "/proc/sys/net/bridge"),
    "overlay": ("grep", "-qw", "overlay", "/proc/filesystems"),
    "loop": ("test", "-e", "/sys/block/loop0"),
    "veth": ("ip", "link", "add", "t0", "type", "veth", "peer", "name", "t1"),
    "bridge": ("ip", "link", "add", "t0", "type", "bridge"),
    "vxlan": ("ip", "link", "add", "t0", "type", "vxlan", "id", "1", "dstport", "4789", "local", "127.0.0.1"),
    "nf_tables": ("nft", "add", "table", "inet", "t0"),
    "nf_conntrack": ("nft", "add table inet t0; add chain inet t0 c; add rule inet t0 c ct state new"),
    "ip_set": ("ipset", "create", "t0", "hash:net"),
}
_BRIDGE_CALLS = (
    "net/bridge/bridge-nf-call-iptables",
    "net/bridge/bridge-nf-call-ip6tables",
    "net/bridge/bridge-nf-call-arptables",
)


@dataclass
class Changes:
    """What was changed: sysctl → its former value; modules that were loaded; the clouds that need it so."""

    sysctls: dict[str, str] = field(default_factory=dict[str, str])
    modules: list[str] = field(default_factory=list[str])
    clouds: list[str] = field(default_factory=list[str])


def tune(cloud: str, *, outbound: bool = False, record: Path = RECORD, proc_sys: Path = Path("/proc/sys")) -> list[str]:
    """Load and set what machines need. Returns what cannot be had, a line each."""
    missing: list[str] = []
    with _changes(record) as changes:
        if cloud not in changes.clouds:
            changes.clouds.append(cloud)
        for module, trial in MODULES.items():
            if not _present(module) and not _load(module, changes, record=record, proc_sys=proc_sys) and not _works(trial):
                missing.append(f"kernel module {module} cannot be loaded")
        wanted = {name: least for name, least in AT_LEAST.items() if int((proc_sys / name).read_text()) < least}
        if outbound and (proc_sys / "net/ipv4/ip_forward").read_text().strip() == "0":
            wanted["net/ipv4/ip_forward"] = 1
        for name, value in wanted.items():
            changes.sysctls.setdefault(name, (proc_sys / name).read_text().strip())
            _save(record, changes)
            try:
                (proc_sys / name).write_text(str(value))
            except OSError as error:
                missing.append(f"sysctl {name} cannot be set to {value}: {error.strerror}")
    return missing


def restore(cloud: str, *, record: Path = RECORD, proc_sys: Path = Path("/proc/sys")) -> list[str]:
    """With the last cloud put back what ``tune`` changed. Returns what could not be put back, a line each."""
    failed: list[str] = []
    with _changes(record) as changes:
        if cloud in changes.clouds:
            changes.clouds.remove(cloud)
        if changes.clouds:
            return []
        for name, value in changes.sysctls.items():
            try:
                (proc_sys / name).write_text(value)
            except OSError as error:
                failed.append(f"sysctl {name} cannot be set back to {value}: {error.strerror}")
        for module in reversed(changes.modules):
            # a module that is still in use has other users than the cloud
            run(["modprobe", "--remove", module], check=False)
        changes.sysctls, changes.modules = {}, []
    return failed


def _present(module: str) -> bool:
    if Path(f"/sys/module/{module}").exists():
        return True
    builtin = Path(f"/lib/modules/{os.uname().release}/modules.builtin")
    return builtin.exists() and f"/{module}.ko" in builtin.read_text()


def _works(trial: tuple[str, ...]) -> bool:
    return run(["unshare", "--net", *trial], check=False).returncode == 0


def _load(module: str, changes: Changes, *, record: Path, proc_sys: Path) -> bool:
    _save(record, Changes(changes.sysctls, [*changes.modules, module], changes.clouds))
    try:
        run(["modprobe", module])
    except ProcessError:
        return False
    changes.modules.append(module)
    if module == "br_netfilter":
        # loading it turns these on in every namespace; the host's own bridges (Docker's, libvirt's) must not notice
        for name in _BRIDGE_CALLS:
            with contextlib.suppress(OSError):
                (proc_sys / name).write_text("0")
    return True


@contextlib.contextmanager
def _changes(record: Path) -> Generator[Changes]:
    """The record, for us alone while we change it; written at the end, or removed when it has nothing to say."""
    record.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with file_lock(record.with_suffix(".lock"), lambda _: None):
        try:
            changes = Changes(**json.loads(record.read_text()))
        except FileNotFoundError:
            changes = Changes()
        try:
            yield changes
        finally:
            if changes == Changes():
                record.unlink(missing_ok=True)
            else:
                _save(record, changes)


def _save(record: Path, changes: Changes) -> None:
    write_private(record, json.dumps(asdict(changes)) + "\n")
