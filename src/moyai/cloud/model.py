"""What moyai knows of a cloud's objects: frozen facts, free of any cloud's own types.

Code decides by the neutral values here (``Power``, ``Evidence`` …), which the adapter derives from what its cloud says. A
``status`` is the cloud's own word in upper case, for people only: nothing outside the adapter compares it. Ids are the
cloud's. ``tags`` are plain strings, the cluster's own one is ``core.ids.cluster_tag(uid)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Literal

from moyai.core.keys import Kind

#: Stands for a date that the cloud does not give.
LONG_AGO = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True)
class Flavor:
    """``disk_gb``: of the root disk that comes with it, 0 for none; None where the cloud does not say it."""

    id: str
    name: str
    vcpus: int
    memory_mb: int
    disk_gb: int | None = None


@dataclass(frozen=True)
class Image:
    """``ready``: machines can be made from it. ``empty``: it was announced, and no content has been sent yet. ``created``: the
    time in ISO 8601, empty where the cloud does not say it. ``min_disk_gib``: what a machine needs, 0 where nothing is said."""

    id: str
    name: str
    status: str
    ready: bool = True
    checksum: str = ""
    properties: Mapping[str, str] = field(default_factory=dict[str, str])
    empty: bool = False
    created: str = ""
    min_disk_gib: int = 0


@dataclass(frozen=True)
class BootDisk:
    """What a cloud must know of an image of a disk. ``release``: of the distribution. ``min_disk_gib``, ``min_ram_mib``: what
    a machine needs. ``agent``: whether QEMU's guest agent is inside. ``firmware``: empty lets the cloud choose."""

    format: Literal["qcow2", "raw"]
    release: str
    min_disk_gib: int
    min_ram_mib: int
    agent: bool = False
    firmware: Literal["", "bios", "uefi"] = ""


@dataclass(frozen=True)
class RootDisk:
    """A root disk that is a volume. ``type``: the cloud's volume type, empty for its default."""

    size_gb: int
    type: str = ""


@dataclass(frozen=True)
class SpreadGroup:
    """A group whose servers run on different hosts. ``strict``: always; otherwise where that is possible."""

    id: str
    name: str
    strict: bool


@dataclass(frozen=True)
class Address:
    """One address of a server. ``kind`` is ``fixed`` or ``floating``."""

    address: str
    kind: Literal["fixed", "floating"]
    network: str
    mac: str = ""


class Power(StrEnum):
    """What a machine is, for plans, waits and reports. Whether its disks may be taken from it is ``Evidence``."""

    STARTING = "starting"
    RUNNING = "running"
    #: It holds its memory and does not execute; the cloud wakes it by another call than the one that starts a machine.
    SUSPENDED = "suspended"
    OFF = "off"
    #: It stays as it is until somebody decides in the cloud what becomes of it.
    HELD = "held"
    #: It will not come to life by itself.
    FAILED = "failed"
    GONE = "gone"
    #: Under change, or the cloud does not say.
    UNKNOWN = "unknown"

    @property
    def broken(self) -> bool:
        """Whether another machine has to be made in its place."""
        return self in (Power.FAILED, Power.GONE)


class Activity(StrEnum):
    """Whether a machine may write to its disks."""

    #: For certain it does not, and will not by itself.
    OFF = "off"
    #: It does, or goes on where it was with its file systems open (paused, suspended).
    RUNNING = "running"
    #: Neither is certain; it will be something else soon.
    BETWEEN = "between"


@dataclass(frozen=True)
class Evidence:
    """What the parts of a cloud say together about a machine's activity: the ground that fencing stands on.

    ``words``: for a sentence that begins with "the cloud says". ``may_power_off``: it plainly runs, so it can be shut down.
    """

    activity: Activity = Activity.BETWEEN
    words: str = "nothing about its server"
    may_power_off: bool = False


#: About a machine that the cloud does not have.
NO_SERVER = Evidence(Activity.OFF, "that its server is gone")


@dataclass(frozen=True)
class Instance:
    """A machine as it finds out itself: ``id`` is the server's; ``zone`` is empty where no source names it."""

    id: str
    zone: str


@dataclass(frozen=True)
class Server:
    """A machine. ``fault`` is the cloud's own reason when ``power`` is FAILED; ``delete_failed``: it was to be deleted then.
    ``image_id``: what it was made from, empty where the cloud does not say it, or where it starts from a disk of its own."""

    id: str
    name: str
    status: str
    zone: str
    flavor_name: str
    addresses: tuple[Address, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    tags: tuple[str, ...] = ()
    host: str = ""
    fault: str = ""
    delete_failed: bool = False
    volume_ids: tuple[str, ...] = ()
    power: Power = Power.UNKNOWN
    evidence: Evidence = Evidence()
    image_id: str = ""


@dataclass(frozen=True)
class Network:
    """``foreign``: another project's, which is shared with this one."""

    id: str
    name: str
    subnet_ids: tuple[str, ...] = ()
    external: bool = False
    mtu: int = 1500
    tags: tuple[str, ...] = ()
    foreign: bool = False


@dataclass(frozen=True)
class Subnet:
    """``pools``: (first, last) address of each range that the cloud gives addresses of; empty where it does not say. ``dhcp``:
    whether it tells machines their addresses."""

    id: str
    name: str
    network_id: str
    cidr: str
    gateway: str = ""
    tags: tuple[str, ...] = ()
    pools: tuple[tuple[str, str], ...] = ()
    dhcp: bool = True


@dataclass(frozen=True, order=True)
class Route:
    """A route that a router has: ``destination`` (CIDR) via ``nexthop``."""

    destination: str
    nexthop: str


@dataclass(frozen=True)
class Router:
    id: str
    name: str
    external_network_id: str = ""
    routes: tuple[Route, ...] = ()
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, order=True)
class SourceAddress:
    """An address or CIDR that a port may send from besides its own; ``mac`` empty: with the port's own MAC."""

    address: str
    mac: str = ""


class PortUse(StrEnum):
    """What a port is there for."""

    NOTHING = ""
    MACHINE = "machine"
    #: The router's leg in a subnet; it goes by ``remove_router_interface``.
    ROUTER = "router"
    #: The cloud's own (DHCP, the router's leg outside …); it comes and goes with what it serves.
    CLOUD = "cloud"
    OTHER = "other"

    @property
    def deletable(self) -> bool:
        """Whether the cloud lets a user delete it."""
        return self not in (PortUse.ROUTER, PortUse.CLOUD)


@dataclass(frozen=True)
class Port:
    """``device_id``: the machine or router that owns it."""

    id: str
    name: str
    network_id: str
    status: str
    fixed_ips: tuple[str, ...] = ()
    subnet_ids: tuple[str, ...] = ()
    mac: str = ""
    device_id: str = ""
    use: PortUse = PortUse.NOTHING
    send_from: tuple[SourceAddress, ...] = ()
    security_group_ids: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class SecurityGroup:
    id: str
    name: str
    description: str = ""
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class SecurityGroupRule:
    """One allowance. ``protocol`` None means any; ports are inclusive, None means all; at most one remote is set."""

    group_id: str
    direction: Literal["ingress", "egress"] = "ingress"
    ethertype: Literal["IPv4", "IPv6"] = "IPv4"
    protocol: str | None = None
    port_min: int | None = None
    port_max: int | None = None
    remote_cidr: str | None = None
    remote_group_id: str | None = None
    description: str = ""
    id: str = ""


@dataclass(frozen=True)
class FloatingIP:
    id: str
    address: str
    status: str
    port_id: str = ""
    fixed_ip: str = ""
    network_id: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()


class DiskState(StrEnum):
    """What a volume or a snapshot is."""

    CREATING = "creating"
    AVAILABLE = "available"
    #: On its way to a server: reserved for it or being attached.
    ATTACHING = "attaching"
    IN_USE = "in use"
    DETACHING = "detaching"
    EXTENDING = "extending"
    #: The cloud works on it for somebody else (a backup, an image): it has its content, and takes changes again soon.
    BUSY = "busy"
    DELETING = "deleting"
    #: It came to nothing, or is lost.
    FAILED = "failed"
    #: The last thing that was done to it failed; it has its content.
    DEGRADED = "degraded"
    UNKNOWN = "unknown"

    @property
    def broken(self) -> bool:
        return self in (DiskState.FAILED, DiskState.DEGRADED)

    @property
    def moving(self) -> bool:
        """Whether it changes hands: what comes out is seen soon."""
        return self in (DiskState.ATTACHING, DiskState.DETACHING)


@dataclass(frozen=True)
class Attachment:
    """A volume at a server. ``id`` is the volume service's own word for it, empty where the cloud does not give it."""

    server_id: str
    id: str = ""
    device: str = ""


@dataclass(frozen=True)
class Volume:
    """A disk. ``multiattach``: several servers may have it. At most one of ``snapshot_id`` and ``source_volume_id`` is set."""

    id: str
    name: str
    status: str
    size_gb: int
    zone: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    attached_server_ids: tuple[str, ...] = ()
    type_name: str = ""
    multiattach: bool = False
    snapshot_id: str = ""
    source_volume_id: str = ""
    created: datetime = LONG_AGO
    attachments: tuple[Attachment, ...] = ()
    state: DiskState = DiskState.UNKNOWN


@dataclass(frozen=True)
class Snapshot:
    """A volume's content at one moment; ``size_gb`` is the size of the volume then."""

    id: str
    name: str
    status: str
    volume_id: str
    size_gb: int
    created: datetime = LONG_AGO
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    state: DiskState = DiskState.UNKNOWN


@dataclass(frozen=True)
class VolumeType:
    """``multiattach`` and ``zones`` are None where the cloud shows them to administrators only; no zones: all of them."""

    id: str
    name: str
    multiattach: bool | None = None
    zones: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Quota:
    """One limit: ``limit`` -1 means none. ``name``: the cloud's own word. ``kind``: what it counts, None for anything else."""

    name: str
    limit: int
    used: int = 0
    kind: Kind | None = None
