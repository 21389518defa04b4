"""Servers, flavors, zones and key pairs, as Nova has them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from string import ascii_lowercase

from moyai.cloud.memory.addresses import show_addresses
from moyai.cloud.memory.disks import attached, detached, disk_at
from moyai.cloud.memory.session import MemoryApi, Session, api
from moyai.cloud.memory.store import ServerTask
from moyai.cloud.model import Activity, DiskState, Evidence, Flavor, Port, PortUse, Power, RootDisk, Server, SpreadGroup
from moyai.core.errors import Conflict, QuotaExceeded, Terminal

#: How a Node of Kubernetes names a server of this cloud.
_PROVIDER = "memory:///"


class MemoryMachines(MemoryApi):
    service = "machines"

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        #: Server's name → what its console says.
        self.consoles: dict[str, str] = {}

    @api
    def flavors(self) -> list[Flavor]:
        return list(self._store.flavors.values())

    @api
    def zones(self) -> list[str]:
        return sorted(self._store.zones)

    @api
    def servers(self, *, tag: str | None = None) -> list[Server]:
        return [self._view(one) for one in self._listed(self._store.servers, tag)]

    @api
    def settled_servers(self, *, tag: str) -> frozenset[str]:
        return frozenset(one.name for one in self._store.servers.by("tag", tag) if one.power in (Power.RUNNING, Power.FAILED))

    @api
    def server(self, server_id: str) -> Server:
        return self._view(self._find(self._store.servers, server_id))

    def provider_id(self, server_id: str, zone: str = "") -> str:
        return f"{_PROVIDER}{server_id}"

    def server_id(self, provider_id: str) -> str | None:
        return provider_id.removeprefix(_PROVIDER) if provider_id.startswith(_PROVIDER) else None

    @api
    def create_server(
        self,
        *,
        name: str,
        image_id: str,
        flavor_id: str,
        port_ids: Sequence[str],
        user_data: str,
        zone: str = "",
        key_name: str = "",
        metadata: Mapping[str, str],
        tags: Sequence[str],
        root: RootDisk | None = None,
        group_id: str = "",
    ) -> Server:
        store = self._store
        if zone and zone not in store.zones:
            raise self._refused(Terminal, f"The requested availability zone {zone} is not available")
        if group_id and group_id not in store.spread_groups:
            raise self._refused(Terminal, f"Invalid group: {group_id}")
        if key_name and key_name not in store.keypairs:
            raise self._refused(Terminal, f"Invalid key_name provided: {key_name}")
        flavor = store.flavors.get(flavor_id)
        if flavor is None or image_id not in store.images:
            raise self._refused(Terminal, f"no flavor {flavor_id} or no image {image_id}")
        ports = [self._free_port(one) for one in port_ids]
        for quota, number in (("instances", 1), ("cores", flavor.vcpus), ("ram", flavor.memory_mb)):
            store.take(quota, number)
        server = Server(
            id=store.new_id(),
            name=name,
            status="",
            zone=zone or store.zones[0],
            flavor_name=flavor.name,
            metadata=dict(metadata),
            tags=tuple(sorted(tags)),
            image_id="" if root else image_id,
        )
        server = _at(server, Power.STARTING)
        why = store.faults.breakage("machines.create_server", name)
        with self._change():
            store.servers.put(server)
            if root:
                store.roots[server.id] = root
            if group_id:
                store.spread[server.id] = group_id
            for port in ports:
                store.ports.put(replace(port, device_id=server.id, use=PortUse.MACHINE, status="DOWN"))
            store.later(store.delays.server, lambda: self._built(server.id, why))
        return server

    def _free_port(self, port_id: str) -> Port:
        port: Port = self._find(self._store.ports, port_id)
        if port.device_id:
            raise self._refused(Conflict, f"Port {port_id} is still in use", object_id=port_id)
        return port

    def _built(self, server_id: str, why: str) -> None:
        store = self._store
        server = store.servers.get(server_id)
        if server is None or server.power is not Power.STARTING:
            return
        if why:
            store.servers.put(replace(_at(server, Power.FAILED), fault=why))
            return
        for port in store.ports.by("device", server_id):
            store.ports.put(replace(port, status="ACTIVE"))
        store.servers.put(powered(replace(server, host=f"host-{server.zone}"), on=True))
        show_addresses(store, server_id)

    @api
    def delete_server_metadata(self, server_id: str, keys: Collection[str]) -> None:
        server = self._store.servers.get(server_id)
        if server is None or not any(key in server.metadata for key in keys):
            return
        with self._change():
            left = {key: value for key, value in server.metadata.items() if key not in keys}
            self._store.servers.put(replace(server, metadata=left))

    @api
    def delete_server(self, server_id: str) -> None:
        server = self._store.servers.get(server_id)
        if server is None or self._store.tasks.get(server_id) is ServerTask.DELETING:
            return
        with self._change():
            self._busy(server, ServerTask.DELETING)
            self._store.later(self._store.delays.server, lambda: self._gone(server_id))

    def _gone(self, server_id: str) -> None:
        store = self._store
        for volume in store.volumes.by("server", server_id):
            store.volumes.put(detached(volume, server_id))
        store.tasks.pop(server_id, None)
        if store.servers.drop(server_id) is None:
            return
        for port in store.ports.by("device", server_id):
            # those that the user made stay
            store.ports.put(replace(port, device_id="", use=PortUse.NOTHING, status="DOWN"))

    @api
    def stop_server(self, server_id: str) -> None:
        self._power(server_id, on=False)

    @api
    def start_server(self, server_id: str) -> None:
        self._power(server_id, on=True)

    @api
    def resume_server(self, server_id: str) -> None:
        store = self._store
        server: Server = self._find(store.servers, server_id)
        if server.power is not Power.SUSPENDED:
            return
        with self._change():
            self._busy(server, ServerTask.RESUMING)
            store.later(store.delays.server, lambda: self._powered(server_id, ServerTask.RESUMING, on=True))

    @api
    def reboot_server(self, server_id: str) -> None:
        store = self._store
        server: Server = self._find(store.servers, server_id)
        task = store.tasks.get(server_id, "")
        if server.power is not Power.RUNNING or task:
            raise self._refused(Conflict, f"Cannot 'reboot' while it is {server.status} {task}".rstrip(), object_id=server_id)
        with self._change():
            self._busy(_at(server, Power.STARTING), ServerTask.REBOOTING)
            store.later(store.delays.server, lambda: self._powered(server_id, ServerTask.REBOOTING, on=True))

    def _powered(self, server_id: str, task: ServerTask, *, on: bool) -> None:
        server = self._store.servers.get(server_id)
        if server is not None and self._store.tasks.get(server_id) is task:
            del self._store.tasks[server_id]
            self._store.servers.put(powered(server, on=on))

    def _power(self, server_id: str, *, on: bool) -> None:
        store = self._store
        server: Server = self._find(store.servers, server_id)
        goal, begin = (Power.RUNNING, Power.OFF) if on else (Power.OFF, Power.RUNNING)
        task = store.tasks.get(server_id, "")
        if server.power is goal and not task:
            return
        if server.power is not begin or task:
            words = f"Cannot '{'start' if on else 'stop'}' while it is {server.status} {task}".rstrip()
            raise self._refused(Conflict, words, object_id=server_id)
        with self._change():
            doing = ServerTask.POWERING_ON if on else ServerTask.POWERING_OFF
            self._busy(server, doing)
            store.later(store.delays.server, lambda: self._powered(server_id, doing, on=on))

    def _busy(self, server: Server, task: ServerTask) -> None:
        """It is called what it was before; that something is being done to it makes uncertain what it is."""
        self._store.tasks[server.id] = task
        words = f"that its server is {server.status}, {task}"
        self._store.servers.put(replace(server, evidence=Evidence(Activity.BETWEEN, words)))

    @api
    def console_log(self, server_id: str, lines: int = 100) -> str:
        server: Server = self._find(self._store.servers, server_id)
        return self.consoles.get(server.name, f"{server.name} login:\n")

    @api
    def attach_volume(self, server_id: str, volume_id: str) -> None:
        store = self._store
        self._find(store.servers, server_id)
        volume = self._find(store.volumes, volume_id)
        if not (volume.state is DiskState.AVAILABLE or (volume.multiattach and volume.state is DiskState.IN_USE)):
            raise self._refused(
                Terminal, f"Invalid volume: status must be available, it is {volume.status}", object_id=volume_id
            )
        if server_id in volume.attached_server_ids:
            raise self._refused(Terminal, "Invalid volume: already attached", object_id=volume_id)
        why, was = store.faults.breakage("machines.attach_volume", volume.name), volume.state
        with self._change():
            if was is DiskState.AVAILABLE:
                store.volumes.put(disk_at(volume, DiskState.ATTACHING))
            store.later(store.delays.volume, lambda: self._attached(server_id, volume_id, failed=was if why else None))

    def _attached(self, server_id: str, volume_id: str, *, failed: DiskState | None) -> None:
        store = self._store
        volume = store.volumes.get(volume_id)
        if volume is None:
            return
        if failed or server_id not in store.servers:
            store.volumes.put(disk_at(volume, failed or DiskState.AVAILABLE))
            return
        used = {
            one.device
            for other in store.volumes.by("server", server_id)
            for one in other.attachments
            if one.server_id == server_id
        }
        device = next(name for letter in ascii_lowercase[1:] if (name := f"/dev/vd{letter}") not in used)
        store.volumes.put(attached(volume, server_id, attachment_id=store.new_id(), device=device))

    @api
    def detach_volume(self, server_id: str, volume_id: str) -> None:
        store = self._store
        volume = store.volumes.get(volume_id)
        if server_id not in store.servers or volume is None or server_id not in volume.attached_server_ids:
            return
        if volume.state is not DiskState.IN_USE:
            raise self._refused(Conflict, f"Invalid volume: it is {volume.status}", object_id=volume_id)
        with self._change():
            store.volumes.put(disk_at(volume, DiskState.DETACHING))
            store.later(store.delays.volume, lambda: self._detached(server_id, volume_id))

    def _detached(self, server_id: str, volume_id: str) -> None:
        volume = self._store.volumes.get(volume_id)
        if volume is not None and server_id in volume.attached_server_ids:
            self._store.volumes.put(detached(volume, server_id))

    @api
    def keypairs(self) -> list[str]:
        return sorted(self._store.keypairs)

    @api
    def create_keypair(self, name: str, public_key: str) -> None:
        store = self._store
        if name in store.keypairs:
            raise self._refused(Conflict, f"Key pair '{name}' already exists.")
        if 0 <= store.limits.get("key_pairs", -1) <= len(store.keypairs):
            raise self._refused(QuotaExceeded, "Quota exceeded, too many key pairs.")
        with self._change():
            store.keypairs[name] = public_key

    @api
    def delete_keypair(self, name: str) -> None:
        if name not in self._store.keypairs:
            return
        with self._change():
            del self._store.keypairs[name]

    @api
    def spread_groups(self) -> list[SpreadGroup]:
        return list(self._store.spread_groups)

    @api
    def create_spread_group(self, name: str, *, strict: bool) -> SpreadGroup:
        with self._change():
            return self._store.spread_groups.put(SpreadGroup(self._store.new_id(), name, strict))

    @api
    def delete_spread_group(self, group_id: str) -> None:
        if group_id not in self._store.spread_groups:
            return
        with self._change():
            self._store.spread_groups.drop(group_id)

    def _view(self, server: Server) -> Server:
        volumes = self._store.volumes.by("server", server.id)
        return replace(server, volume_ids=tuple(one.id for one in volumes)) if volumes else server


def powered(server: Server, *, on: bool) -> Server:
    """The server at rest, on or off."""
    activity = Activity.RUNNING if on else Activity.OFF
    words = f"that its server is {'running' if on else 'off'}"
    return replace(_at(server, Power.RUNNING if on else Power.OFF), evidence=Evidence(activity, words, may_power_off=on))


def _at(server: Server, power: Power) -> Server:
    return replace(server, power=power, status=power.value)
