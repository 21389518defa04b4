# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false
# (pyright takes this folder for OpenStack's package of the same name)
"""Nova's driver for machines that are systemd-nspawn systems on this host.

It translates: what a server is (``guest``, ``unpacked_images``) and what happens to it (``machines``) is beside it.
A server boots what Glance holds, nothing else; and what cannot be done (resize, migration, rescue, boot from volume …) is
refused, never answered with success.

Loaded by nova-compute as ``nova.virt.moyai_nspawn.NspawnDriver``.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import eventlet
import nova.conf
import nova.virt.node
from nova import exception
from nova.compute import power_state, task_states
from nova.image import glance
from nova.virt import driver, hardware
from nova.virt import event as virtevent
from oslo_config import cfg
from oslo_log import log as logging

from moyai.linux import netns
from moyai.localcloud.drivers.nova import guest, host_resources
from moyai.localcloud.drivers.nova.machines import FAILURES, MachineRecord, Machines
from moyai.localcloud.drivers.nova.unpacked_images import ImageStore

LOG = logging.getLogger(__name__)
CONF = nova.conf.CONF
CONF.register_opts(
    [
        cfg.StrOpt("machines_dir", required=True, help="Machines' state and unpacked images; one file system."),
        cfg.StrOpt("cgroup", required=True, help="The control group root for machines, as moyai.linux.cgroups names it."),
    ],
    group="moyai",
)


class NspawnDriver(driver.ComputeDriver):
    capabilities: ClassVar[dict] = {
        **driver.ComputeDriver.capabilities,
        "has_imagecache": True,
        "supports_attach_interface": True,
        "supports_extend_volume": True,
        "supports_multiattach": True,
        "supports_device_tagging": True,
        "supports_tagged_attach_interface": True,
        "supports_tagged_attach_volume": True,
        "supports_image_type_raw": True,
    }

    # ---- the hypervisor itself

    def init_host(self, host):
        base = Path(CONF.moyai.machines_dir)
        self._name = host
        self._image_api = glance.API()
        self._images = ImageStore(base / "images", self._image_api)
        self._machines = Machines(base, host, cgroup=CONF.moyai.cgroup, on_end=self._ended)
        self._machines.start()

    def _ended(self, uuid: str) -> None:
        self.emit_event(virtevent.LifecycleEvent(uuid, virtevent.EVENT_LIFECYCLE_STOPPED))

    def get_available_nodes(self, refresh=False):
        return [self._name]

    def get_host_ip_addr(self):
        return CONF.my_ip

    def get_host_uptime(self):
        return f"up {float(Path('/proc/uptime').read_text().split()[0]):.0f} s"

    def get_available_resource(self, nodename):
        return host_resources.available(self._machines.records(), nodename)

    def update_provider_tree(self, provider_tree, nodename, allocations=None):
        ratios = self._get_allocation_ratios(provider_tree.data(nodename).inventory)
        reserved = {"DISK_GB": self._get_reserved_host_disk_gb_from_config()}
        provider_tree.update_inventory(nodename, host_resources.inventory(ratios, reserved))
        traits = set(provider_tree.data(nodename).traits)
        for trait, supported in self.capabilities_as_traits().items():
            (traits.add if supported else traits.discard)(trait)
        provider_tree.update_traits(nodename, traits)

    def get_volume_connector(self, instance):
        return {"ip": CONF.my_ip, "host": CONF.host, "initiator": None}

    # ---- images

    def cache_image(self, context, image_id):
        return self._images.ensure(context, image_id)[1]

    def manage_image_cache(self, context, all_instances):
        used = {record.image for record in self._machines.records_everywhere()}
        age = CONF.image_cache.remove_unused_original_minimum_age_seconds
        if CONF.image_cache.remove_unused_base_images and (gone := self._images.prune(used, older_than=age)):
            LOG.info("Unused images removed: %s", ", ".join(gone))

    def snapshot(self, context, instance, image_id, update_task_state):
        record = self._record(instance)
        update_task_state(task_state=task_states.IMAGE_PENDING_UPLOAD)
        properties = {"image_location": "snapshot", "image_state": "available", "moyai_format": "rootfs-tar"}
        metadata = {"status": "active", "name": self._image_api.get(context, image_id)["name"], "properties": properties}
        metadata |= {"disk_format": "raw", "container_format": "bare"}
        with _failing(exception.ImageUnacceptable, image_id=image_id), self._machines.packed(record) as file:
            update_task_state(task_state=task_states.IMAGE_UPLOADING, expected_state=task_states.IMAGE_PENDING_UPLOAD)
            with file.open("rb") as data:
                self._image_api.update(context, image_id, metadata, data=data, purge_props=False)

    # ---- what is

    def list_instance_uuids(self):
        return self._machines.uuids()

    def list_instances(self):
        return [record.name for record in self._machines.records()]

    def instance_exists(self, instance):
        return self._machines.load(instance.uuid) is not None

    def _record(self, instance) -> MachineRecord:
        record = self._machines.load(instance.uuid)
        if record is None:
            raise exception.InstanceNotFound(instance_id=instance.uuid)
        return record

    def get_info(self, instance, use_cache=True):
        record = self._record(instance)
        if not self._machines.running(instance.uuid):
            return hardware.InstanceInfo(state=power_state.SHUTDOWN)
        held = power_state.SUSPENDED if record.suspended else power_state.PAUSED
        frozen = self._machines.frozen(instance.uuid)
        return hardware.InstanceInfo(state=held if frozen else power_state.RUNNING)

    def get_console_output(self, context, instance):
        return self._machines.console(instance.uuid)

    def get_diagnostics(self, instance):
        self._record(instance)
        if not self._machines.running(instance.uuid):
            raise exception.InstanceNotRunning(instance_id=instance.uuid)
        usage = self._machines.usage(instance.uuid)
        return {
            "memory": instance.flavor.memory_mb << 10,
            "memory-rss": usage.memory_bytes >> 10,
            "cpu0_time": int(usage.cpu_seconds * 1e9),
            "oom_kills": usage.oom_kills,
        }

    # ---- life

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
        times = [time.monotonic()]
        guest.refuse_disks(instance, block_device_info)
        image, _ = self._images.ensure(context, image_meta.id)
        times.append(time.monotonic())
        # The container store is linked while Neutron allocates the network: neither needs the other.
        folder = eventlet.spawn(self._machines.make_folder, instance.uuid, image.store)
        try:
            with _failing(exception.InstanceDeployFailure):
                vifs = list(network_info or [])  # waits for the allocation
                times.append(time.monotonic())
                folder.wait()
                record = _record_of(instance, image.key, vifs, block_device_info)
                instance.device_metadata = guest.device_metadata(context, instance)
                machine = self._machines.create(record)
                guest.write_files(
                    machine, instance, network_info=vifs, injected_files=injected_files, admin_password=admin_password
                )
                times.append(time.monotonic())
                self._up_and_wait(instance, vifs, record, launch=power_on)
                self._name_servers_late(context, instance, vifs)
        except BaseException:  # also eventlet's Timeout: nothing half-made may stay
            with contextlib.suppress(*FAILURES):
                folder.wait()
            with contextlib.suppress(*FAILURES):
                self._machines.remove(instance.uuid)
            raise
        times.append(time.monotonic())
        parts = zip(("image", "network", "files", "machine"), times, times[1:], strict=False)
        spent = ", ".join(f"{name} {end - start:.2f}" for name, start, end in parts)
        LOG.info("Spawned in %.2f s: %s", times[-1] - times[0], spent, instance=instance)

    def _name_servers_late(self, context, instance, vifs) -> None:
        """In a network just made the DHCP servers, which answer DNS, come only after the port was allocated."""
        if not vifs or guest.nameservers(vifs):
            return
        try:
            servers = guest.dhcp_servers(context, vifs)
            self._machines.write(instance.uuid, "/etc/resolv.conf", text=guest.resolv_conf(servers))
        except Exception:  # the machine works without it; the log says so
            LOG.exception("No name server found", instance=instance)

    def _up_and_wait(self, instance, vifs, record: MachineRecord, *, launch: bool) -> None:
        """Launch first, then wait for Neutron: the machine boots while the L2 agent wires its ports."""
        events = [("network-vif-plugged", vif["id"]) for vif in vifs if vif.get("active") is False]
        if not events or not CONF.vif_plugging_timeout:
            self._machines.up(record, launch=launch)
            return
        try:
            with self.virtapi.wait_for_instance_event(instance, events, deadline=CONF.vif_plugging_timeout):
                self._machines.up(record, launch=launch)
        except eventlet.timeout.Timeout:  # a BaseException: not caught, it would leave the server in BUILD for ever
            if CONF.vif_plugging_is_fatal:
                raise exception.VirtualInterfaceCreateException() from None
            LOG.warning("Neutron has not plugged all ports in time", instance=instance)

    def destroy(self, context, instance, network_info, block_device_info=None, destroy_disks=True, destroy_secrets=True):
        with _failing(exception.InstanceTerminationFailure):
            if destroy_disks:
                self._machines.remove(instance.uuid)
            else:
                self._machines.down(instance.uuid)
            self.unplug_vifs(instance, network_info)

    def cleanup(
        self,
        context,
        instance,
        network_info,
        block_device_info=None,
        destroy_disks=True,
        migrate_data=None,
        destroy_vifs=True,
        destroy_secrets=True,
    ):
        self.destroy(context, instance, network_info, block_device_info, destroy_disks)

    def power_off(self, instance, timeout=0, retry_interval=0):
        with _failing(exception.InstancePowerOffFailure):
            self._machines.down(instance.uuid, grace=timeout)

    def power_on(self, context, instance, network_info, block_device_info=None, accel_info=None):
        record = self._record(instance)
        if self._machines.running(instance.uuid):
            return
        # Ports may have changed while the machine was off; a power cycle recreates them in any case.
        record.ports = [guest.GuestPort.of(vif, index).dump() for index, vif in enumerate(network_info or [])]
        with _failing(exception.InstancePowerOnFailure):
            self._machines.save(record)
            self._machines.up(record)

    def reboot(
        self,
        context,
        instance,
        network_info,
        reboot_type,
        block_device_info=None,
        bad_volumes_callback=None,
        accel_info=None,
    ):
        self.power_off(instance, timeout=0 if reboot_type == "HARD" else CONF.shutdown_timeout)
        self.power_on(context, instance, network_info, block_device_info)

    def resume_state_on_host_boot(self, context, instance, network_info, block_device_info=None):
        self.power_on(context, instance, network_info, block_device_info)

    def pause(self, instance):
        self._machines.freeze(instance.uuid, True)

    def unpause(self, instance):
        self._machines.freeze(instance.uuid, False)

    def suspend(self, context, instance):
        """Held still like a paused machine, and in memory too: a container's memory cannot be written to disk."""
        with _failing(exception.InstanceSuspendFailure):
            self._machines.suspend(self._record(instance))

    def resume(self, context, instance, network_info, block_device_info=None):
        """A machine that the host's end took along starts again."""
        with _failing(exception.InstanceResumeFailure):
            if not self._machines.resume(self._record(instance)):
                self.power_on(context, instance, network_info, block_device_info)

    def migrate_disk_and_power_off(
        self,
        context,
        instance,
        dest,
        flavor,
        network_info,
        block_device_info=None,
        timeout=0,
        retry_interval=0,
    ):
        refusal = exception.ResizeError(reason="machines of this cloud cannot be resized or migrated: make a new one")
        raise exception.InstanceFaultRollback(refusal)

    # ---- links

    def plug_vifs(self, instance, network_info):
        """At the start of nova-compute, for every server: nothing, links are made with each start of their machine."""

    def unplug_vifs(self, instance, network_info):
        for vif in network_info or []:
            netns.unplug(guest.tap(vif["id"]))

    def attach_interface(self, context, instance, image_meta, vif):
        record = self._record(instance)
        taken = {port["link"]["inside"] for port in record.ports}
        index = next(number for number in range(len(taken) + 1) if f"eth{number}" not in taken)
        with _failing(exception.InterfaceAttachFailed, instance_uuid=instance.uuid):
            self._machines.add_port(record, guest.GuestPort.of(vif, index))
        self._tell_tags(context, instance)

    def detach_interface(self, context, instance, vif):
        with _failing(exception.InterfaceDetachFailed, instance_uuid=instance.uuid):
            if not self._machines.remove_port(self._record(instance), vif["id"]):
                raise exception.InterfaceDetachFailed(instance_uuid=instance.uuid)

    @staticmethod
    def _tell_tags(context, instance) -> None:
        """Let the metadata service say which tag each device was attached with. (Nova removes those that are detached.)"""
        instance.device_metadata = guest.device_metadata(context, instance)
        instance.save()

    # ---- volumes

    def attach_volume(self, context, connection_info, instance, mountpoint, disk_bus=None, device_type=None, encryption=None):
        volume_id, volume = guest.volume_of(connection_info, mountpoint)
        with _failing(exception.VolumeAttachFailed, volume_id=volume_id):
            self._machines.add_volume(self._record(instance), volume_id, volume=volume)
        self._tell_tags(context, instance)

    def detach_volume(self, context, connection_info, instance, mountpoint, encryption=None):
        if not self._machines.remove_volume(self._record(instance), connection_info["serial"]):
            raise exception.DiskNotFound(location=mountpoint)

    def default_root_device_name(self, instance, image_meta, root_bdm):
        return "/dev/vda"  # the machine has none, but volumes are named after it: vdb, vdc …

    def extend_volume(self, context, connection_info, instance, requested_size):
        self._machines.extend_volume(self._record(instance), connection_info["serial"])


@contextlib.contextmanager
def _failing(kind, **details) -> Iterator[None]:
    """What goes wrong on the host becomes the exception that Nova expects of this call."""
    try:
        yield
    except FAILURES as error:
        LOG.exception("%s", kind.__name__)
        raise kind(reason=str(error), **details) from error


def _record_of(instance, image_key: str, vifs, block_device_info) -> MachineRecord:
    mappings = driver.block_device_info_get_mapping(block_device_info)
    return MachineRecord(
        uuid=instance.uuid,
        name=instance.name,
        hostname=instance.hostname,
        image=image_key,
        memory_mb=instance.flavor.memory_mb,
        vcpus=instance.flavor.vcpus,
        ports=[guest.GuestPort.of(vif, index).dump() for index, vif in enumerate(vifs)],
        volumes=dict(guest.volume_of(mapping["connection_info"], mapping["mount_device"]) for mapping in mappings),
    )
