# pyright: basic, reportMissingImports=false
"""Nova's driver for machines that are systemd-nspawn systems on this host.

What always holds:

- A server boots what Glance holds; nothing of it is taken from elsewhere.
- Everything that a machine needs to be started again is on disk (``<machines_dir>/<host>/<uuid>/``), so that a restarted
  nova-compute, or a rebooted host, finds and runs the machines as before. Links, mounts, loop devices and control
  groups exist only while the machine runs; stopping takes them away, starting makes them anew.
- What cannot be done (resize, migration, suspend, rescue, boot from volume …) is refused, never answered with success.

Loaded by nova-compute as ``nova.virt.moyai_nspawn.NspawnDriver``; long work is done by programs that eventlet waits for.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import eventlet
import eventlet.hubs
import nova.conf
import nova.virt.node
from nova import exception
from nova.compute import power_state
from nova.image import glance
from nova.objects import fields
from nova.virt import driver, hardware
from nova.virt import event as virtevent
from oslo_config import cfg
from oslo_log import log as logging

from moyai.linux import cgroups, loop, netns
from moyai.linux.machine import REBOOT, Disk, Host, Machine, MachineError, trim_console
from moyai.linux.process import ProcessError
from moyai.localcloud.drivers import nova_guest
from moyai.localcloud.drivers.nova_images import ImageStore, copy_store

LOG = logging.getLogger(__name__)
CONF = nova.conf.CONF
CONF.register_opts(
    [
        cfg.StrOpt("machines_dir", required=True, help="Machines' state and unpacked images; one file system."),
        cfg.StrOpt("cgroup", required=True, help="The control group root for machines, as moyai.linux.cgroups names it."),
    ],
    group="moyai",
)

_WATCH_CONSOLES = 15
_FAILURES = (MachineError, ProcessError, cgroups.CgroupError, OSError)


@dataclass
class Record:
    """What is on disk of a server: enough to start its machine again without asking Nova."""

    uuid: str
    name: str
    hostname: str
    image: str
    memory_mb: int
    vcpus: int
    ports: list = field(default_factory=list)
    volumes: dict = field(default_factory=dict)  # volume id → {"file": …, "name": "vdb"}


class NspawnDriver(driver.ComputeDriver):
    capabilities: ClassVar[dict] = {
        **driver.ComputeDriver.capabilities,
        "has_imagecache": True,
        "supports_attach_interface": True,
        "supports_extend_volume": True,
        "supports_multiattach": True,
        "supports_image_type_raw": True,
    }

    def __init__(self, virtapi):
        super().__init__(virtapi)
        self._watched: dict[str, int] = {}

    # ---- the hypervisor itself

    def init_host(self, host):
        base = Path(CONF.moyai.machines_dir)
        self._folder = base / host
        self._host_name = host
        self._folder.mkdir(parents=True, exist_ok=True)
        self._host = Host(cgroups.open_root(CONF.moyai.cgroup))
        self._images = ImageStore(base / "images", glance.API())
        for uuid in self.list_instance_uuids():
            if not self._adopt(uuid):
                LOG.info("Machine %s does not run", uuid)
        eventlet.spawn(self._watch_consoles)

    def _adopt(self, uuid: str) -> bool:
        """Take over a machine that an earlier nova-compute started; one that asked for a reboot meanwhile gets it."""
        try:
            if pid := self._host.supervisor(self._dir(uuid), uuid):
                self._watch(uuid, pid)
                return True
            if self._host.exit_code(self._dir(uuid)) == REBOOT:
                self._power_on(self._load(uuid))
                return True
            self._down(uuid)
        except Exception:  # one broken machine must not keep the hypervisor from starting
            LOG.exception("Machine %s cannot be taken over", uuid)
        return False

    def get_available_nodes(self, refresh=False):
        return [self._host_name]

    def get_host_ip_addr(self):
        return CONF.my_ip

    def get_host_uptime(self):
        return f"up {float(Path('/proc/uptime').read_text().split()[0]):.0f} s"

    def get_available_resource(self, nodename):
        records = self._records()
        disk = shutil.disk_usage(self._folder)
        return {
            "vcpus": os.cpu_count() or 1,
            "memory_mb": _memory_mb(),
            "local_gb": disk.total >> 30,
            "vcpus_used": sum(record.vcpus for record in records),
            "memory_mb_used": sum(record.memory_mb for record in records),
            "local_gb_used": disk.used >> 30,
            "disk_available_least": disk.free >> 30,
            "hypervisor_type": "lxc",
            "hypervisor_version": 1,
            "hypervisor_hostname": nodename,
            "uuid": nova.virt.node.get_local_node_uuid(),
            "cpu_info": json.dumps({"arch": platform.machine()}),
            "supported_instances": [(platform.machine(), fields.HVType.LXC, fields.VMMode.EXE)],
            "numa_topology": None,
        }

    def update_provider_tree(self, provider_tree, nodename, allocations=None):
        ratios = self._get_allocation_ratios(provider_tree.data(nodename).inventory)
        # Disk is thin (files that grow): only what is really free may be promised, and machines share their image.
        disk = shutil.disk_usage(self._folder).total >> 30
        totals = {"VCPU": os.cpu_count() or 1, "MEMORY_MB": _memory_mb(), "DISK_GB": disk}
        reserved = {"VCPU": CONF.reserved_host_cpus, "MEMORY_MB": CONF.reserved_host_memory_mb}
        reserved["DISK_GB"] = self._get_reserved_host_disk_gb_from_config()
        inventory = {}
        for name, total in totals.items():
            # A machine may have more CPUs than the host (they are shares of it), never more memory.
            most = total if name == "MEMORY_MB" else int(total * ratios[name])
            inventory[name] = {
                "total": total,
                "min_unit": 1,
                "max_unit": max(1, most),
                "step_size": 1,
                "allocation_ratio": ratios[name],
                "reserved": reserved[name],
            }
        provider_tree.update_inventory(nodename, inventory)
        provider_tree.update_traits(nodename, self._capability_traits(provider_tree, nodename))

    def _capability_traits(self, provider_tree, nodename):
        traits = set(provider_tree.data(nodename).traits)
        for trait, supported in self.capabilities_as_traits().items():
            (traits.add if supported else traits.discard)(trait)
        return traits

    def get_volume_connector(self, instance):
        return {"ip": CONF.my_ip, "host": CONF.host, "initiator": None}

    # ---- images

    def cache_image(self, context, image_id):
        return self._images.ensure(context, image_id)[1]

    def manage_image_cache(self, context, all_instances):
        used = {record.image for record in self._records(everywhere=True)}
        age = CONF.image_cache.remove_unused_original_minimum_age_seconds
        if gone := self._images.prune(used, older_than=age):
            LOG.info("Unused images removed: %s", ", ".join(gone))

    # ---- what is

    def _dir(self, uuid: str) -> Path:
        return self._folder / uuid

    def _load(self, uuid: str) -> Record:
        try:
            return Record(**json.loads((self._dir(uuid) / "record.json").read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise exception.InstanceNotFound(instance_id=uuid) from error

    def _save(self, record: Record) -> None:
        path = self._dir(record.uuid) / "record.json"
        new = path.with_suffix(".new")
        new.write_text(json.dumps(vars(record)))
        new.rename(path)

    def _records(self, *, everywhere: bool = False) -> list[Record]:
        pattern = "*/*/record.json" if everywhere else f"{self._host_name}/*/record.json"
        records = []
        for path in Path(CONF.moyai.machines_dir).glob(pattern):
            with contextlib.suppress(OSError, ValueError, TypeError):
                records.append(Record(**json.loads(path.read_text())))
        return records

    def list_instance_uuids(self):
        return [path.parent.name for path in self._folder.glob("*/record.json")]

    def list_instances(self):
        return [record.name for record in self._records()]

    def instance_exists(self, instance):
        return (self._dir(instance.uuid) / "record.json").exists()

    def get_info(self, instance, use_cache=True):
        if not self.instance_exists(instance):
            raise exception.InstanceNotFound(instance_id=instance.uuid)
        if not self._host.leader(self._dir(instance.uuid), instance.uuid):
            return hardware.InstanceInfo(state=power_state.SHUTDOWN)
        frozen = self._host.group(instance.uuid).frozen()
        return hardware.InstanceInfo(state=power_state.PAUSED if frozen else power_state.RUNNING)

    def get_console_output(self, context, instance):
        try:
            return (self._dir(instance.uuid) / "console.log").read_bytes()
        except OSError:
            return b""

    def _watch_consoles(self):
        while True:
            eventlet.sleep(_WATCH_CONSOLES)
            for uuid in self.list_instance_uuids():
                trim_console(self._dir(uuid) / "console.log")

    # ---- machines that end by themselves

    def _watch(self, uuid: str, pid: int) -> None:
        self._watched[uuid] = pid
        eventlet.spawn(self._await_end, uuid, pid)

    def _await_end(self, uuid: str, pid: int) -> None:
        """Sleep until the machine's process ends (the kernel says so at once), then tell Nova, unless it was us."""
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
        try:
            self._ended(uuid)
        except Exception:
            LOG.exception("After the end of machine %s", uuid)

    def _ended(self, uuid: str) -> None:
        code = self._host.last_exit(self._dir(uuid))
        if code == REBOOT:
            LOG.info("Machine %s reboots", uuid)
            try:
                self._power_on(self._load(uuid))
            except exception.NovaException:
                LOG.exception("Machine %s did not come back from its reboot", uuid)
            else:
                return
        LOG.warning("Machine %s ended by itself (%s)", uuid, "unknown" if code is None else code)
        self._down(uuid)
        self.emit_event(virtevent.LifecycleEvent(uuid, virtevent.EVENT_LIFECYCLE_STOPPED))

    # ---- start and stop

    def _power_on(self, record: Record, *, launch: bool = True) -> None:
        """Make everything that runs: namespace, links, loop devices, the machine. All of it, or nothing."""
        uuid, folder = record.uuid, self._dir(record.uuid)
        self._down(uuid, record)
        image = Path(CONF.moyai.machines_dir) / "images" / record.image
        machine = Machine(
            name=uuid,
            hostname=record.hostname,
            folder=folder,
            lower=image / "root",
            netns=_netns(uuid),
            memory_bytes=record.memory_mb << 20,
            cpus=record.vcpus,
            binds=((folder / "store", "/var/lib/containerd"), (folder / "kubelet", "/var/lib/kubelet")),
        )
        try:
            netns.add(machine.netns)
            for port in record.ports:
                nova_guest.plug(machine.netns, nova_guest.Port.load(port))
            if not launch:
                return
            disks = [_disk(volume_id, volume) for volume_id, volume in record.volumes.items()]
            self._host.launch(machine, disks)
            if pid := self._host.supervisor(folder, uuid):
                self._watch(uuid, pid)
        except _FAILURES as error:
            LOG.exception("Machine %s cannot be started", uuid)
            self._down(uuid, record)
            raise exception.InstancePowerOnFailure(reason=str(error)) from error

    def _down(self, uuid: str, record: Record | None = None) -> None:
        """End the machine at once and take away all that exists only while it runs. Its data stay."""
        self._watched.pop(uuid, None)
        if record is None:
            with contextlib.suppress(exception.InstanceNotFound):
                record = self._load(uuid)
        self._host.clear(self._dir(uuid), uuid)
        for port in record.ports if record else []:  # first: deleting the namespace frees its links only some time later
            netns.unplug(nova_guest.Port.load(port).link.outside)
        netns.remove(_netns(uuid))
        for volume in record.volumes.values() if record else []:
            loop.detach(Path(volume["file"]))

    def _stop(self, uuid: str, grace: float) -> None:
        self._watched.pop(uuid, None)
        try:
            self._host.stop(self._dir(uuid), uuid, grace=grace)
            self._down(uuid)
        except _FAILURES as error:
            raise exception.InstancePowerOffFailure(reason=str(error)) from error

    def spawn(
        self,
        context,
        instance,
        image_meta,
        injected_files,
        admin_password,
        allocations,
        network_info=None,
        block_device_info=None,
        power_on=True,
        accel_info=None,
    ):
        started = time.monotonic()
        _refuse_disks(instance, block_device_info)
        image, _ = self._images.ensure(context, image_meta.id)
        unpacked = time.monotonic()
        vifs = list(network_info or [])  # waits for Neutron's allocation
        allocated = time.monotonic()
        folder = self._dir(instance.uuid)
        try:
            for name in ("up", "store", "kubelet"):
                (folder / name).mkdir(parents=True, exist_ok=True)
            copy_store(image.store, folder / "store")
            nova_guest.write_files(folder / "up", instance, vifs, injected_files, admin_password)
            flavor = instance.flavor
            record = Record(
                instance.uuid, instance.name, instance.hostname, image.key, flavor.memory_mb, flavor.vcpus,
                [nova_guest.Port.of(vif, index).dump() for index, vif in enumerate(vifs)],
                dict(_volume(mapping["connection_info"], mapping["mount_device"]) for mapping in _mappings(block_device_info)),
            )  # fmt: skip
            self._save(record)
            copied = time.monotonic()
            self._power_on_and_wait(instance, vifs, record, launch=power_on)
        except BaseException as error:  # also eventlet's Timeout: nothing half-made may stay
            self._remove(instance.uuid)
            if isinstance(error, _FAILURES):
                raise exception.InstanceDeployFailure(reason=str(error)) from error
            raise
        LOG.info(
            "Spawned in %.2f s: image %.2f, network %.2f, files %.2f, machine %.2f",
            time.monotonic() - started, unpacked - started, allocated - unpacked, copied - allocated,
            time.monotonic() - copied, instance=instance,
        )  # fmt: skip

    def _power_on_and_wait(self, instance, vifs, record: Record, *, launch: bool) -> None:
        """Launch first, then wait for Neutron: the machine boots while the L2 agent wires its ports."""
        events = [("network-vif-plugged", vif["id"]) for vif in vifs if vif.get("active") is False]
        if not events or not CONF.vif_plugging_timeout:
            self._power_on(record, launch=launch)
            return
        try:
            with self.virtapi.wait_for_instance_event(instance, events, deadline=CONF.vif_plugging_timeout):
                self._power_on(record, launch=launch)
        except eventlet.timeout.Timeout:  # a BaseException: not caught, it would leave the server in BUILD for ever
            if CONF.vif_plugging_is_fatal:
                raise exception.VirtualInterfaceCreateException() from None
            LOG.warning("Neutron has not plugged all ports in time", instance=instance)

    def _remove(self, uuid: str) -> None:
        self._down(uuid)
        self._host.remove(self._dir(uuid), uuid)

    def destroy(self, context, instance, network_info, block_device_info=None, destroy_disks=True, destroy_secrets=True):
        try:
            self._down(instance.uuid)
            for vif in network_info or []:
                netns.unplug(f"tap{vif['id'][:11]}")
            if destroy_disks:
                self._host.remove(self._dir(instance.uuid), instance.uuid)
        except _FAILURES as error:
            raise exception.InstanceTerminationFailure(reason=str(error)) from error

    def cleanup(
        self, context, instance, network_info, block_device_info=None, destroy_disks=True, migrate_data=None,
        destroy_vifs=True, destroy_secrets=True,
    ):  # fmt: skip
        self.destroy(context, instance, network_info, block_device_info, destroy_disks)

    def power_off(self, instance, timeout=0, retry_interval=0):
        self._stop(instance.uuid, timeout)

    def power_on(self, context, instance, network_info, block_device_info=None, accel_info=None):
        record = self._load(instance.uuid)
        if self._host.leader(self._dir(instance.uuid), instance.uuid):
            return
        # Ports may have changed while the machine was off; a power cycle makes them anew in any case.
        record.ports = [nova_guest.Port.of(vif, index).dump() for index, vif in enumerate(network_info or [])]
        self._save(record)
        self._power_on(record)

    def reboot(
        self, context, instance, network_info, reboot_type, block_device_info=None, bad_volumes_callback=None,
        accel_info=None,
    ):  # fmt: skip
        self._stop(instance.uuid, 0 if reboot_type == "HARD" else CONF.shutdown_timeout)
        self.power_on(context, instance, network_info, block_device_info)

    def resume_state_on_host_boot(self, context, instance, network_info, block_device_info=None):
        self.power_on(context, instance, network_info, block_device_info)

    def pause(self, instance):
        self._host.group(instance.uuid).set_frozen(True)

    def unpause(self, instance):
        self._host.group(instance.uuid).set_frozen(False)

    # ---- links

    def plug_vifs(self, instance, network_info):
        pass  # at the start of nova-compute, for all servers: links are made with each start of their machine

    def unplug_vifs(self, instance, network_info):
        for vif in network_info or []:
            netns.unplug(f"tap{vif['id'][:11]}")

    def attach_interface(self, context, instance, image_meta, vif):
        record = self._load(instance.uuid)
        taken = {port["link"]["inside"] for port in record.ports}
        index = next(number for number in range(64) if f"eth{number}" not in taken)
        try:
            port = nova_guest.Port.of(vif, index)
            if self._host.leader(self._dir(instance.uuid), instance.uuid):
                nova_guest.plug(_netns(instance.uuid), port)
        except (*_FAILURES, exception.VirtualInterfacePlugException) as error:
            raise exception.InterfaceAttachFailed(instance_uuid=instance.uuid) from error
        record.ports.append(port.dump())
        self._save(record)

    def detach_interface(self, context, instance, vif):
        record = self._load(instance.uuid)
        if all(port["port_id"] != vif["id"] for port in record.ports):
            raise exception.InterfaceDetachFailed(instance_uuid=instance.uuid)
        netns.unplug(f"tap{vif['id'][:11]}")
        record.ports = [port for port in record.ports if port["port_id"] != vif["id"]]
        self._save(record)

    # ---- volumes

    def attach_volume(self, context, connection_info, instance, mountpoint, disk_bus=None, device_type=None, encryption=None):
        if encryption:
            raise exception.VolumeEncryptionNotSupported(volume_type="encrypted", volume_id=connection_info["serial"])
        record = self._load(instance.uuid)
        volume_id, volume = _volume(connection_info, mountpoint)
        try:
            if self._host.leader(self._dir(instance.uuid), instance.uuid):
                self._host.plug(self._dir(instance.uuid), instance.uuid, _disk(volume_id, volume))
        except _FAILURES as error:
            raise exception.VolumeAttachFailed(volume_id=volume_id, reason=str(error)) from error
        record.volumes[volume_id] = volume
        self._save(record)

    def detach_volume(self, context, connection_info, instance, mountpoint, encryption=None):
        record = self._load(instance.uuid)
        volume_id = connection_info["serial"]
        volume = record.volumes.pop(volume_id, None)
        if volume is None:
            raise exception.DiskNotFound(location=mountpoint)
        self._host.unplug(self._dir(instance.uuid), instance.uuid, Disk(volume["name"], volume_id, ""))
        self._save(record)
        if not self._shared(volume["file"]):
            loop.detach(Path(volume["file"]))

    def extend_volume(self, context, connection_info, instance, requested_size):
        volume = self._load(instance.uuid).volumes[connection_info["serial"]]
        for device in loop.find(Path(volume["file"])):
            loop.refresh(device)

    def _shared(self, file: str) -> bool:
        """Whether another machine of this host has the same (multi-attached) volume."""
        records = self._records(everywhere=True)
        return any(volume["file"] == file for record in records for volume in record.volumes.values())


def _netns(uuid: str) -> str:
    return f"moyai-{uuid}"


def _memory_mb() -> int:
    return int(Path("/proc/meminfo").read_text().split()[1]) >> 10


def _mappings(block_device_info) -> list:
    return driver.block_device_info_get_mapping(block_device_info)


def _volume(connection_info, mountpoint: str) -> tuple[str, dict]:
    if connection_info.get("driver_volume_type") != "local":
        raise exception.VolumeDriverNotFound(driver_type=connection_info.get("driver_volume_type"))
    return connection_info["serial"], {"file": connection_info["data"]["device_path"], "name": Path(mountpoint).name}


def _disk(volume_id: str, volume: dict) -> Disk:
    return Disk(volume["name"], volume_id, loop.attach(Path(volume["file"])))


def _refuse_disks(instance, block_device_info) -> None:
    """A machine's root is a folder on an image: other kinds of root and local disks are not to be had."""
    wrong = None
    if not instance.image_ref:
        wrong = "a machine boots from an image, not from a volume"
    elif driver.block_device_info_get_ephemerals(block_device_info):
        wrong = "ephemeral disks are not to be had"
    elif driver.swap_is_usable(driver.block_device_info_get_swap(block_device_info)):
        wrong = "swap disks are not to be had"
    if wrong:
        raise exception.ImageUnacceptable(image_id=instance.image_ref or "none", reason=wrong)
