"""A machine: a whole Linux system, with systemd, in separate namespaces. systemd-nspawn starts it.

What always holds:

- A machine is started through a double fork, so it is in no other process tree. It goes on when the daemon that launched it
  ends. Any later process finds it by its folder and its control group.
- Its root is an overlay. Machines share the image as the lower layer and never write to it. The folder ``up`` holds the
  changes.
- Folders that need a real file system (containerd's store: an overlay cannot lie on an overlay) are bound from outside.
- ``launch`` returns with a machine whose init runs under all its limits, or leaves nothing behind and raises.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from moyai.linux import beneath, hardware
from moyai.linux.cgroups import CgroupError, Group, Root, detect
from moyai.linux.process import Completed, ProcessError, run

NETNS = Path("/run/netns")
_PROPAGATE = Path("/run/systemd/nspawn/propagate")
REBOOT = 133  # nspawn's exit code when the machine asked for a reboot
CONSOLE_LIMIT = 4 << 20
_CONSOLE_KEPT = 1 << 20
#: How many loop devices a machine knows; the kernel numbers them for the whole host, the lowest free one first.
_LOOPS = 128
_LOOP_MAJOR, _LOOP_CONTROL = 7, (10, 237)
#: Capabilities over what the host has only once: its clock, its memory and ports, its accounting, its sleep, its security
#: modules. A pod that asks for one of them by name does not start.
_WITHHELD = ("sys_time", "sys_rawio", "sys_pacct", "wake_alarm", "block_suspend", "mac_admin", "mac_override")
#: A word written to this file reboots the host, or ends it.
_READ_ONLY = ("/proc/sysrq-trigger",)
_POWEROFF = signal.SIGRTMIN + 4
# Starts the machine as its child, notes the child's pid, and its exit code when it ends.
_SUPERVISE = """exec </dev/null >>"$1/console.log" 2>&1; cd "$1" || exit 1; shift
"$@" & echo $! >pid.new && mv pid.new pid; wait $!; echo $? >exit.new; mv exit.new exit"""


class MachineError(Exception):
    """A machine cannot be started, stopped or entered; the message says why."""


@dataclass(frozen=True)
class GuestDisk:
    """A block device in the machine: ``name`` there (``vdb``), its stable id, the host's device behind it."""

    name: str
    disk_id: str
    device: str


@dataclass(frozen=True)
class NspawnMachine:
    """What a machine is made of. ``folder`` is its state on disk; ``lower`` the unpacked image; ``binds``: outside → inside."""

    name: str
    hostname: str
    folder: Path
    lower: Path
    netns: str
    memory_bytes: int
    cpus: int
    binds: tuple[tuple[Path, str], ...] = field(default=())

    @property
    def upper(self) -> Path:
        """What the machine changes in its root; files for the guest are put here before it is launched."""
        return self.folder / "up"

    def inside(self, path: str) -> Path:
        """Where a file of the guest is put before launch; its folders are made as the image has them, else world-readable.

        A folder in the upper layer replaces the image's owner and mode too: with the daemon's umask, no service of the guest
        but root's could enter it. All its folders are real ones: a link that the guest made of one is replaced.
        """
        self.upper.parent.mkdir(parents=True, exist_ok=True)
        below = ""
        for part in ("", *Path(path.lstrip("/")).parts[:-1]):
            parent, below = below, f"{below}/{part}" if part else below
            like = beneath.status(self.lower, below)
            like = like if like and stat.S_ISDIR(like.st_mode) else None
            owner, mode = ((like.st_uid, like.st_gid), stat.S_IMODE(like.st_mode)) if like else ((0, 0), 0o755)
            with beneath.folder(self.upper if part else self.folder, parent) as descriptor:
                beneath.make_folder(part or self.upper.name, descriptor, mode=mode, owner=owner)
        return self.upper / path.lstrip("/")

    def put(self, path: str, data: str | bytes, *, mode: int = 0o644) -> None:
        """Write a file of the guest, before launch."""
        self.inside(path)
        beneath.write(self.upper, path, data=data.encode() if isinstance(data, str) else data, mode=mode)

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def console(self) -> Path:
        return self.folder / "console.log"


class Host:
    """Launches and ends machines below one control group root."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._unified = detect(root.mount) == "v2"

    def group(self, name: str) -> Group:
        return self._root.group(name)

    def names(self) -> list[str]:
        """The machines (and their remains) that have a control group."""
        return self._root.names()

    # ---- what is

    def supervisor(self, folder: Path, name: str) -> int | None:
        """The pid of the machine's nspawn process, None when it does not run."""
        try:
            pid = int((folder / "pid").read_text())
        except (OSError, ValueError):
            return None
        return pid if _alive(pid) and self.group(name).holds(pid) else None

    def leader(self, folder: Path, name: str) -> int | None:
        """The pid (as seen from here) of the machine's own PID 1, None before it has started and after it has ended."""
        pid = self.supervisor(folder, name)
        if pid is None:
            return None
        return next((child for child in _children(pid) if _is_init(child)), None)

    def exit_code(self, folder: Path) -> int | None:
        """How the machine's last run ended: 0 powered off, ``REBOOT`` wants to start again, 137 killed; None: unknown."""
        try:
            return int((folder / "exit").read_text())
        except (OSError, ValueError):
            return None

    def last_exit(self, folder: Path, *, timeout: float = 2.0) -> int | None:
        """``exit_code`` of a machine that has just ended: its note is written a moment after its process is gone."""
        deadline = time.monotonic() + timeout
        while (code := self.exit_code(folder)) is None and time.monotonic() < deadline:
            time.sleep(0.01)
        return code

    # ---- start

    def launch(self, machine: NspawnMachine, disks: Sequence[GuestDisk] = (), *, timeout: float = 30.0) -> int:
        """Start the machine and return its leader's pid. Raises MachineError; then nothing is left running or mounted."""
        if self.supervisor(machine.folder, machine.name):
            raise MachineError(f"machine {machine.name} runs already")
        try:
            return self._launch(machine, disks, timeout=timeout)
        except (MachineError, CgroupError, ProcessError, OSError) as error:
            with contextlib.suppress(MachineError):
                self.clear(machine.folder, machine.name)
            raise MachineError(f"machine {machine.name} does not start: {error}") from error

    def _launch(self, machine: NspawnMachine, disks: Sequence[GuestDisk], *, timeout: float) -> int:
        self.clear(machine.folder, machine.name)
        group = self._root.create(machine.name, memory_bytes=machine.memory_bytes, cpus=machine.cpus)
        # kubelet gives its pods' groups the CPUs that it reads here, by their numbers
        numbers = group.cpus() or range(machine.cpus)
        hardware.write(machine.inside(hardware.INSIDE), memory_bytes=machine.memory_bytes, cpus=numbers)
        self._mount(machine)
        log_start = machine.console.stat().st_size if machine.console.exists() else 0
        argv = group.joining(self._nspawn(machine))
        run(["setsid", "--fork", "/bin/sh", "-c", _SUPERVISE, "moyai-machine", machine.folder, *argv])
        leader = self._wait_for_leader(machine, timeout, log_start=log_start)
        group.verify(leader)
        _loop_nodes(leader)
        for disk in disks:
            self._plug(leader, disk)
        binds = [f"mount --bind {hardware.INSIDE}/{name} {target}" for name, target in hardware.TARGETS.items()]
        # a kernel may be built without the file
        binds += [f"if [ -e {f} ]; then mount --bind {f} {f} && mount -o remount,bind,ro {f}; fi" for f in _READ_ONLY]
        self.run(machine.folder, machine.name, argv=["/bin/sh", "-c", " && ".join(binds)])
        return leader

    @contextlib.contextmanager
    def mounted(self, machine: NspawnMachine) -> Generator[Path]:
        """The machine's root as a folder, also while it is off."""
        there = os.path.ismount(machine.root)
        if not there:
            self._mount(machine)
        try:
            yield machine.root
        finally:
            if not there:
                run(["umount", machine.root])

    def _mount(self, machine: NspawnMachine) -> None:
        work = machine.folder / "work"
        machine.inside("/")
        for folder in (work, machine.root):
            folder.mkdir(parents=True, exist_ok=True)
        layers = f"lowerdir={machine.lower},upperdir={machine.upper},workdir={work}"
        run(["mount", "-t", "overlay", "overlay", "-o", layers, machine.root])

    def _nspawn(self, machine: NspawnMachine) -> list[str]:
        namespace = NETNS / machine.netns
        environment = [
            "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
            "SYSTEMD_SECCOMP=0",  # its filter forbids runc the kernel keyring
            # of /proc/sys, only the machine's own network is writable; the rest and /sys are the whole host's
            "SYSTEMD_NSPAWN_API_VFS_WRITABLE=network",
            f"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY={1 if self._unified else 0}",
        ]
        flags = ["--register=no", "--keep-unit", "--settings=no", "--boot", "--capability=all", "--link-journal=no"]
        flags += [f"--drop-capability={','.join(f'CAP_{name.upper()}' for name in _WITHHELD)}"]
        flags += ["--resolv-conf=off", "--timezone=off", "--console=read-only", "--bind=/dev/kmsg"]
        flags += [f"--directory={machine.root}", f"--machine={machine.name}", f"--hostname={machine.hostname}"]
        flags += [f"--bind={outside}:{inside}" for outside, inside in machine.binds]
        # nspawn mounts /sys before it enters the network namespace; so enter it first, or /sys/class/net shows other links.
        enter = ["nsenter", f"--net={namespace}", "systemd-nspawn", *flags, f"--network-namespace-path={namespace}"]
        return ["/usr/bin/env", "-i", *environment, *enter]

    def _wait_for_leader(self, machine: NspawnMachine, timeout: float, *, log_start: int) -> int:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if leader := self.leader(machine.folder, machine.name):
                return leader
            if (code := self.exit_code(machine.folder)) is not None:
                with machine.console.open("rb") as log:
                    log.seek(log_start)
                    said = log.read(4000).decode(errors="replace").strip().splitlines()
                raise MachineError(f"ended with {code}" + (f": {' / '.join(said[-3:])}" if said else ""))
            time.sleep(0.01)
        raise MachineError(f"its init did not appear within {timeout:.0f} s")

    # ---- while it runs

    def exec_argv(self, folder: Path, name: str, *, argv: Sequence[str]) -> list[str]:
        """The command line that runs ``argv`` inside the running machine, under its limits. MachineError when it is off."""
        leader = self.leader(folder, name)
        if leader is None:
            raise MachineError(f"machine {name} does not run")
        withheld = ["setpriv", "--bounding-set", ",".join(f"-{name}" for name in _WITHHELD), "--"]
        namespaces = ["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"]
        enter = [*withheld, "nsenter", "--target", str(leader), *namespaces, "--", *argv]
        return self.group(name).joining(enter, for_exec=True)

    def run(self, folder: Path, name: str, *, argv: Sequence[str], timeout: float = 30.0) -> Completed:
        """Run a program inside the machine to its end. Raises MachineError or ProcessError."""
        return run(self.exec_argv(folder, name, argv=argv), timeout=timeout)

    def write(self, folder: Path, name: str, *, path: str, text: str) -> None:
        """Write a (world-readable) file in the running machine. Raises OSError where its folder is a link or a mount."""
        if leader := self.leader(folder, name):
            beneath.write(_root(leader), path, data=text.encode())

    def plug(self, folder: Path, name: str, *, disk: GuestDisk) -> None:
        """Show a block device to the running machine."""
        if leader := self.leader(folder, name):
            self._plug(leader, disk)

    def unplug(self, folder: Path, name: str, *, disk: GuestDisk) -> None:
        """Take a block device out of the running machine's /dev."""
        if leader := self.leader(folder, name):
            for path in (disk.name, *_links(disk)):
                parent, _, entry = path.rpartition("/")
                # a folder that is not there, or that the guest made a link of, holds nothing of ours
                with contextlib.suppress(OSError), beneath.folder(_root(leader), f"dev/{parent}", mounts=True) as descriptor:
                    os.unlink(entry, dir_fd=descriptor)

    def _plug(self, leader: int, disk: GuestDisk) -> None:
        root, number = _root(leader), Path(disk.device).stat().st_rdev
        with beneath.folder(root, "dev", mounts=True) as dev:
            beneath.make_device(disk.name, dev, kind=stat.S_IFBLK, number=number)
            beneath.make_folder("disk", dev)
        for path in _links(disk):
            folder, link = path.removeprefix("disk/").split("/")
            with beneath.folder(root, "dev/disk", mounts=True) as parent:
                beneath.make_folder(folder, parent)
            with beneath.folder(root, f"dev/disk/{folder}", mounts=True) as links:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(link, dir_fd=links)
                os.symlink(f"/dev/{disk.name}", link, dir_fd=links)

    # ---- end

    def stop(self, folder: Path, name: str, *, grace: float) -> None:
        """End the machine: asked to power off, and killed when that takes longer than ``grace`` seconds; clears it."""
        leader = self.leader(folder, name)
        if leader and grace > 0 and not self.group(name).frozen():
            with contextlib.suppress(ProcessLookupError):
                os.kill(leader, _POWEROFF)
            deadline = time.monotonic() + grace
            while self.supervisor(folder, name) and time.monotonic() < deadline:
                time.sleep(0.05)
        self.clear(folder, name)

    def clear(self, folder: Path, name: str) -> None:
        """Kill the remaining processes of a machine, and remove its control group, mount and notes. Its data stay."""
        group = self.group(name)
        try:
            group.kill()
            group.remove()
        except CgroupError as error:
            raise MachineError(f"machine {name} does not end: {error}") from error
        root = folder / "root"
        while os.path.ismount(root):
            run(["umount", root])
        with contextlib.suppress(OSError):
            (_PROPAGATE / name).rmdir()  # nspawn leaves it behind when it is killed
        for note in ("pid", "exit"):
            (folder / note).unlink(missing_ok=True)

    def remove(self, folder: Path, name: str) -> None:
        """End the machine at once and delete everything of it."""
        self.clear(folder, name)
        run(["rm", "-rf", "--one-file-system", folder])


def trim_console(path: Path) -> None:
    """Cut a console log that has grown beyond four MiB to its last MiB. The writer appends, so it continues to write."""
    with contextlib.suppress(OSError):
        if path.stat().st_size <= CONSOLE_LIMIT:
            return
        with path.open("r+b") as log:
            log.seek(-_CONSOLE_KEPT, os.SEEK_END)
            kept = log.read()
            log.truncate(0)
        with path.open("ab") as log:
            log.write(kept)


def _loop_nodes(leader: int) -> None:
    """Loop devices as on any machine: a kubelet keeps a pod's raw disk open by one. Here nothing makes nodes when one comes."""
    nodes = [("loop-control", stat.S_IFCHR, _LOOP_CONTROL)]
    nodes += [(f"loop{number}", stat.S_IFBLK, (_LOOP_MAJOR, number)) for number in range(_LOOPS)]
    with beneath.folder(_root(leader), "dev", mounts=True) as dev:
        for name, kind, number in nodes:
            beneath.make_device(name, dev, kind=kind, number=os.makedev(*number))


def _root(leader: int) -> Path:
    """The root of a running machine. Its content belongs to the guest: only ``beneath`` opens paths below it."""
    return Path(f"/proc/{leader}/root")


def _links(disk: GuestDisk) -> tuple[str, str]:
    """Names below /dev: by the disk's id as on KVM, and by its place on the bus as on VMware, where vdb is unit 1."""
    unit = ord(disk.name[2]) - ord("a")
    return f"disk/by-id/virtio-{disk.disk_id[:20]}", f"disk/by-path/pci-0000:03:00.0-scsi-0:0:{unit}:0"


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def _children(pid: int) -> Iterator[int]:
    """Children of all threads; without the kernel's list (CONFIG_PROC_CHILDREN), by each process's parent."""
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    if listed.exists():
        with contextlib.suppress(OSError):
            yield from map(int, listed.read_text().split())
        return
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError, ValueError):
                if int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1]) == pid:
                    yield int(entry.name)


def _is_init(pid: int) -> bool:
    """Whether a child of nspawn is the machine's PID 1 and has become its init (before, it still is nspawn's program)."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        program = Path(f"/proc/{pid}/exe").readlink().name
    except OSError:
        return False
    line = next((line for line in status.splitlines() if line.startswith("NSpid:")), "")
    return len(line.split()) > 2 and line.split()[-1] == "1" and program != "systemd-nspawn"
