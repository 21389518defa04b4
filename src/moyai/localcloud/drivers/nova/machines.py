# pyright: basic, reportMissingImports=false
"""The machines of one hypervisor: their records on disk, and all that exists only while they run.

What always holds:

- Everything that a machine needs to be started is in its record (``<machines_dir>/<host>/<uuid>/record.json``), so that a
  restarted nova-compute, or a rebooted host, runs it as before without asking anybody.
- Network namespace, links, mounts, loop devices and control group exist only while the machine runs: ``down`` takes all of
  them away, ``up`` recreates all of them, or none.
- A pidfd reports at once that a machine has ended without a request. This holds also for a machine that an earlier process
  started.

Runs inside nova-compute: what waits, waits in eventlet's way.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import eventlet
import eventlet.hubs
from oslo_concurrency import lockutils
from oslo_log import log as logging

from moyai.linux import cgroups, loop, netns
from moyai.linux.files import write_durably
from moyai.linux.nspawn import REBOOT, GuestDisk, Host, MachineError, NspawnMachine, trim_console
from moyai.linux.process import ProcessError, run
from moyai.localcloud.drivers.nova import guest
from moyai.localcloud.drivers.nova.image_tree import STORE, copy_store

LOG = logging.getLogger(__name__)

FAILURES = (MachineError, ProcessError, cgroups.CgroupError, OSError)
_TRIM_SECONDS = 15
_LET_GO_SECONDS = 10.0
_RECORD = "record.json"
_TRASH = ".deleted-"
# A snapshot leaves out the files that describe its origin: the owner, the hardware and the identity of the server.
_NOT_IN_SNAPSHOT = (
    "./usr/lib/moyai/hardware",
    f"./{guest.SEED}",
    "./etc/machine-id",
    "./etc/hostname",
    "./etc/resolv.conf",
)


@dataclass
class MachineRecord:
    """What is on disk of a server: enough to start its machine again."""

    uuid: str
    name: str
    hostname: str
    image: str
    memory_mb: int
    vcpus: int
    ports: list[dict] = field(default_factory=list)  # guest.GuestPort.dump()
    volumes: dict[str, dict] = field(default_factory=dict)  # volume id → {"file": …, "name": "vdb"}
    suspended: bool = False  # of a machine that runs and is held still: by "suspend", not by "pause"


class Machines:
    """``base``: machines_dir; ``name``: this hypervisor's; ``on_end``: gets the uuid of a machine that ended by itself."""

    def __init__(self, base: Path, name: str, *, cgroup: str, on_end: Callable[[str], None]) -> None:
        self._base = base
        self._folder = base / name
        self._folder.mkdir(parents=True, exist_ok=True)
        self._host = Host(cgroups.open_root(cgroup))
        self._on_end = on_end
        self._watched: dict[str, int] = {}

    def start(self) -> None:
        """Take over the machines of earlier processes: watch running machines, and start a machine that was about to reboot."""
        for uuid in self.uuids():
            try:
                if pid := self._host.supervisor(self.folder(uuid), uuid):
                    self._watch(uuid, pid)
                elif self._host.exit_code(self.folder(uuid)) == REBOOT and (record := self.load(uuid)):
                    self.up(record)
                else:
                    self.down(uuid)
            except FAILURES:  # one broken machine must not keep the hypervisor from starting
                LOG.exception("Machine %s cannot be taken over", uuid)
        for folder in self._folder.iterdir():  # killed between the two steps of remove()
            if not (folder / _RECORD).exists() and not folder.name.startswith(_TRASH):
                folder.rename(self._folder / f"{_TRASH}{folder.name}")
        eventlet.spawn_n(self._trim_consoles)
        eventlet.spawn_n(self._empty_trash)

    # ---- records

    def folder(self, uuid: str) -> Path:
        return self._folder / uuid

    def uuids(self) -> list[str]:
        return [path.parent.name for path in self._folder.glob(f"*/{_RECORD}")]

    def load(self, uuid: str) -> MachineRecord | None:
        return _read(self.folder(uuid) / _RECORD)

    def save(self, record: MachineRecord) -> None:
        """Write the record whole, also when the host loses power: a machine without a record is deleted."""
        write_durably(self.folder(record.uuid) / _RECORD, json.dumps(asdict(record)))

    def records(self) -> list[MachineRecord]:
        return [record for path in self._folder.glob(f"*/{_RECORD}") if (record := _read(path))]

    def records_everywhere(self) -> list[MachineRecord]:
        """Of all hypervisors of this host."""
        return [record for path in self._base.glob(f"*/*/{_RECORD}") if (record := _read(path))]

    # ---- one machine

    def make_folder(self, uuid: str, store: Path) -> None:
        """Make the folder of a new machine with its own container store. Without a record it is no machine yet."""
        folder = self.folder(uuid)
        for name in ("store", "kubelet"):
            (folder / name).mkdir(parents=True)
            (folder / name).chmod(0o755)
        copy_store(store, folder / "store")

    def create(self, record: MachineRecord) -> NspawnMachine:
        """Make a machine of the folder; files of the guest may be put into it until it is up."""
        self.save(record)
        return self._machine(record)

    def running(self, uuid: str) -> bool:
        return self._host.leader(self.folder(uuid), uuid) is not None

    def frozen(self, uuid: str) -> bool:
        return self._host.group(uuid).frozen()

    def freeze(self, uuid: str, frozen: bool) -> None:
        self._host.group(uuid).set_frozen(frozen)

    def suspend(self, record: MachineRecord) -> None:
        record.suspended = True
        self.save(record)  # first: killed after the next step, the machine would else seem to be paused
        self.freeze(record.uuid, True)

    def resume(self, record: MachineRecord) -> bool:
        """Whether the machine runs again; False: it ended meanwhile, with its host."""
        running = self.running(record.uuid)
        if running:
            self.freeze(record.uuid, False)
        record.suspended = False
        self.save(record)
        return running

    def write(self, uuid: str, path: str, *, text: str) -> None:
        """Change a file in the running machine."""
        self._host.write(self.folder(uuid), uuid, path=path, text=text)

    def usage(self, uuid: str) -> cgroups.CgroupUsage:
        return self._host.group(uuid).usage()

    def console(self, uuid: str) -> bytes:
        try:
            return (self.folder(uuid) / "console.log").read_bytes()
        except OSError:
            return b""

    def up(self, record: MachineRecord, *, launch: bool = True) -> None:
        """Make everything that runs: namespace, links, loop devices, the machine; without ``launch`` only its links."""
        uuid, machine = record.uuid, self._machine(record)
        self.down(uuid, record)
        if record.suspended:
            record.suspended = False
            self.save(record)
        try:
            netns.add(machine.netns)
            for port in record.ports:
                guest.plug(machine.netns, guest.GuestPort.load(port))
            if launch:
                with self._locked(*record.volumes):
                    self._host.launch(machine, [disk(volume_id, volume) for volume_id, volume in record.volumes.items()])
                if pid := self._host.supervisor(machine.folder, uuid):
                    self._watch(uuid, pid)
        except BaseException:  # also eventlet's Timeout and GreenletExit
            self.down(uuid, record)
            raise

    def down(self, uuid: str, record: MachineRecord | None = None, *, grace: float = 0) -> None:
        """End the machine (killed after ``grace`` seconds) and take away all that exists only while it runs. Data stay."""
        self._watched.pop(uuid, None)
        record = record or self.load(uuid)
        self._host.stop(self.folder(uuid), uuid, grace=grace)
        for port in record.ports if record else []:  # first: deleting the namespace frees its links only some time later
            netns.unplug(guest.GuestPort.load(port).link.outside)
        netns.remove(namespace(uuid))
        for volume_id, volume in record.volumes.items() if record else []:
            with self._locked(volume_id):
                self._free(volume_id, volume, uuid=uuid)

    def remove(self, uuid: str) -> None:
        """End the machine at once and delete everything of it; its (many, hard-linked) files go in the background."""
        self.down(uuid)
        with contextlib.suppress(FileNotFoundError):
            (self.folder(uuid) / _RECORD).unlink(missing_ok=True)  # from here on there is no such machine
            self.folder(uuid).rename(self._folder / f"{_TRASH}{uuid}-{time.time_ns()}")
            eventlet.spawn_n(self._empty_trash)

    def _empty_trash(self) -> None:
        for folder in self._folder.glob(f"{_TRASH}*"):
            run(["rm", "-rf", "--one-file-system", folder], check=False)

    def _machine(self, record: MachineRecord) -> NspawnMachine:
        folder = self.folder(record.uuid)
        return NspawnMachine(
            name=record.uuid,
            hostname=record.hostname,
            folder=folder,
            lower=self._base / "images" / record.image / "root",
            netns=namespace(record.uuid),
            memory_bytes=record.memory_mb << 20,
            cpus=record.vcpus,
            binds=((folder / "store", f"/{STORE}"), (folder / "kubelet", "/var/lib/kubelet")),
        )

    # ---- links and disks of a machine that may run

    def add_port(self, record: MachineRecord, port: guest.GuestPort) -> None:
        if self.running(record.uuid):
            guest.plug(namespace(record.uuid), port)
        record.ports.append(port.dump())
        self.save(record)

    def remove_port(self, record: MachineRecord, port_id: str) -> bool:
        """Whether there was such a port."""
        gone = [port for port in record.ports if port["port_id"] == port_id]
        for port in gone:
            netns.unplug(guest.GuestPort.load(port).link.outside)
        record.ports = [port for port in record.ports if port["port_id"] != port_id]
        self.save(record)
        return bool(gone)

    def add_volume(self, record: MachineRecord, volume_id: str, *, volume: dict) -> None:
        record.volumes[volume_id] = volume
        try:
            with self._locked(volume_id):
                self.save(record)  # first: a crash after the next step must not leave a loop device without a record
                if self.running(record.uuid):
                    self._host.plug(self.folder(record.uuid), record.uuid, disk=disk(volume_id, volume))
        except BaseException:
            self.remove_volume(record, volume_id)
            raise

    def remove_volume(self, record: MachineRecord, volume_id: str) -> bool:
        """Whether there was such a volume."""
        volume = record.volumes.get(volume_id)
        if volume is None:
            return False
        with self._locked(volume_id):
            self._host.unplug(self.folder(record.uuid), record.uuid, disk=GuestDisk(volume["name"], volume_id, ""))
            self._free(volume_id, volume, uuid=record.uuid)
            del record.volumes[volume_id]
            self.save(record)
        return True

    def extend_volume(self, record: MachineRecord, volume_id: str) -> None:
        for device in loop.find(Path(record.volumes[volume_id]["file"])):
            loop.refresh(device)

    @contextlib.contextmanager
    def _locked(self, *volume_ids: str):
        """Lock volumes on this host. Several machines may use a volume: a detach must not miss an attach that just happens."""
        with contextlib.ExitStack() as stack:
            for volume_id in sorted(volume_ids):
                lock = lockutils.lock(f"volume-{volume_id}", external=True, lock_path=str(self._base / "locks"))
                stack.enter_context(lock)
            yield

    def _free(self, volume_id: str, volume: dict, *, uuid: str) -> None:
        """Free the volume's loop device, unless another running machine has the same (multi-attached) volume."""
        others = [record for record in self.records_everywhere() if record.uuid != uuid and volume_id in record.volumes]
        if any(self._host.group(record.uuid).exists() for record in others):
            return
        # After the last process of a killed machine has ended, the kernel writes the mounts' data and unmounts them. Until then
        # the disk is in use, so this call must not return.
        if not loop.detach(Path(volume["file"]), timeout=_LET_GO_SECONDS):
            LOG.warning("Volume %s is still open, %.0f s after machine %s let go of it", volume_id, _LET_GO_SECONDS, uuid)

    # ---- the end of machines

    def _watch(self, uuid: str, pid: int) -> None:
        self._watched[uuid] = pid
        eventlet.spawn_n(self._await_end, uuid, pid)

    def _await_end(self, uuid: str, pid: int) -> None:
        """Wait until the kernel reports the end of the machine's process. Act if the end was not requested."""
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            pass
        else:
            try:
                eventlet.hubs.trampoline(descriptor, read=True)
            finally:
                os.close(descriptor)
        if self._watched.get(uuid) != pid:
            return
        del self._watched[uuid]
        code = self._host.last_exit(self.folder(uuid))
        try:
            if code == REBOOT and (record := self.load(uuid)):
                LOG.info("Machine %s reboots", uuid)
                self.up(record)  # a power cycle: its namespace is recreated too
                return
        except FAILURES:
            LOG.exception("Machine %s did not come back from its reboot", uuid)
        LOG.warning("Machine %s ended by itself (%s)", uuid, "unknown" if code is None else code)
        try:
            self.down(uuid)
        except FAILURES:
            LOG.exception("Machine %s is not wholly cleared away", uuid)
        self._on_end(uuid)

    def _trim_consoles(self) -> None:
        while True:
            eventlet.sleep(_TRIM_SECONDS)
            for uuid in self.uuids():
                trim_console(self.folder(uuid) / "console.log")

    # ---- snapshots

    @contextlib.contextmanager
    def packed(self, record: MachineRecord):
        """The machine's whole root as a tar file, an image like any other; held still while it is read. Deleted afterwards."""
        folder = self.folder(record.uuid)
        file = folder / "snapshot.tar"
        flags = ["--numeric-owner", "--xattrs", "--xattrs-include=*"]
        still = self.running(record.uuid) and not self.frozen(record.uuid)
        try:
            with self._host.mounted(self._machine(record)) as root:
                if still:
                    self.freeze(record.uuid, True)
                try:
                    excluded = [f"--exclude={name}" for name in (*_NOT_IN_SNAPSHOT, f"./{STORE}")]
                    run(["tar", *flags, *excluded, "-C", root, "-cf", file, "."])
                    run(["tar", *flags, f"--transform=s,^store,./{STORE},", "-C", folder, "-rf", file, "store"])
                finally:
                    if still:
                        self.freeze(record.uuid, False)
            yield file
        finally:
            file.unlink(missing_ok=True)


def disk(volume_id: str, volume: dict) -> GuestDisk:
    return GuestDisk(volume["name"], volume_id, loop.attach(Path(volume["file"])))


def namespace(uuid: str) -> str:
    return f"moyai-{uuid}"


def _read(path: Path) -> MachineRecord | None:
    try:
        return MachineRecord(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None
