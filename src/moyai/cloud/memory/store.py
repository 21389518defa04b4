"""Everything that a cloud in memory holds, and what goes on in it as time passes.

Always holds: a thread that reads or writes has the lock; what is due by the clock has happened before a call sees anything.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from ipaddress import IPv4Network, ip_address, ip_network
from typing import Any
from uuid import UUID

from moyai.cloud.credentials import Use
from moyai.cloud.load_balancers import LoadBalancer
from moyai.cloud.memory import table
from moyai.cloud.memory.orders import Delays, Faults, Mortal
from moyai.cloud.memory.table import Table
from moyai.cloud.model import (
    Flavor,
    FloatingIP,
    Image,
    Network,
    Port,
    PortUse,
    RootDisk,
    Router,
    SecurityGroup,
    SecurityGroupRule,
    Server,
    Snapshot,
    SpreadGroup,
    Subnet,
    Volume,
    VolumeType,
)
from moyai.core.clock import Clock
from moyai.core.errors import QuotaExceeded
from moyai.core.keys import Kind

FLAVORS = (
    Flavor("1", "m1.tiny", 1, 512),
    Flavor("2", "m1.small", 1, 2048),
    Flavor("3", "m1.medium", 2, 4096),
)
VOLUME_TYPES = (
    VolumeType("t1", "files", multiattach=False, zones=()),
    VolumeType("t2", "files-multiattach", multiattach=True, zones=()),
)
#: The external network's addresses: none of them is in use anywhere (RFC 2544).
PUBLIC = IPv4Network("198.18.0.0/15")
#: Of machines and networks, and of disks: a quota's name, which is OpenStack's, and what it counts.
QUOTAS: Mapping[str, Kind | None] = {
    "cores": Kind.CPU,
    "ram": Kind.MEMORY,
    "instances": Kind.SERVER,
    "network": Kind.NETWORK,
    "subnet": Kind.SUBNET,
    "router": Kind.ROUTER,
    "port": Kind.PORT,
    "floatingip": Kind.FLOATING_IP,
    "security_group": Kind.SECURITY_GROUP,
    "security_group_rule": Kind.RULES,
}
DISK_QUOTAS: Mapping[str, Kind | None] = {"volumes": Kind.VOLUME, "gigabytes": None, "snapshots": Kind.SNAPSHOT}


class ServerTask(StrEnum):
    """What is being done to a server. The values are the words of refusals."""

    DELETING = "deleting"
    RESUMING = "resuming"
    REBOOTING = "rebooting"
    POWERING_ON = "powering-on"
    POWERING_OFF = "powering-off"


@dataclass(frozen=True)
class StoredCredential:
    """An application credential. It may make the calls of its use alone; one of the user's own has none, and may make all.
    ``unrestricted``: it may make and delete credentials. ``expires``: None for one that never ends."""

    id: str
    secret: str = field(repr=False)
    use: Use | None
    unrestricted: bool = False
    expires: datetime | None = None


class Store:
    """``limits``: quota's name → limit; -1 or not named: none. ``tags_later``: an object exists an instant before its tags."""

    def __init__(self, *, clock: Clock, delays: Delays, mortal: Mortal) -> None:
        self.lock = threading.RLock()
        self.clock, self.delays, self.mortal = clock, delays, mortal
        self.faults = Faults()
        self.calls: Counter[str] = Counter()
        #: How many objects the answers to those calls held.
        self.answered: Counter[str] = Counter()
        self.limits: dict[str, int] = {}
        self.tags_later = True
        self.sources_allowed = self.routers_allowed = self.addresses_allowed = True
        self.used: Counter[str] = Counter()
        self.zones: tuple[str, ...] = ("az1", "az2")
        self.volume_zones: tuple[str, ...] = ("az1", "az2")
        self.flavors: dict[str, Flavor] = {one.id: one for one in FLAVORS}
        self.volume_types: tuple[VolumeType, ...] = VOLUME_TYPES

        self.networks: Table[Network] = Table(tag=table.tags)
        self.subnets: Table[Subnet] = Table(tag=table.tags, network=lambda one: (one.network_id,))
        self.routers: Table[Router] = Table(tag=table.tags)
        self.ports: Table[Port] = Table(
            tag=table.tags,
            network=lambda one: (one.network_id,),
            subnet=lambda one: one.subnet_ids,
            device=lambda one: (one.device_id,) if one.device_id else (),
            group=lambda one: one.security_group_ids,
            interface=lambda one: one.subnet_ids if one.use is PortUse.ROUTER else (),
            address=lambda one: tuple(f"{one.network_id} {address}" for address in one.fixed_ips),
        )
        self.groups: Table[SecurityGroup] = Table(tag=table.tags)
        self.rules: Table[SecurityGroupRule] = Table(
            group=lambda one: (one.group_id,),
            remote=lambda one: (one.remote_group_id,) if one.remote_group_id else (),
            key=lambda one: (rule_key(one),),
        )
        self.floating_ips: Table[FloatingIP] = Table(
            tag=table.tags, port=lambda one: (one.port_id,) if one.port_id else (), address=lambda one: (one.address,)
        )
        self.servers: Table[Server] = Table(tag=table.tags)
        self.spread_groups: Table[SpreadGroup] = Table(name=table.name)
        #: Server → its root volume, and its group.
        self.roots: dict[str, RootDisk] = {}
        self.spread: dict[str, str] = {}
        self.images: Table[Image] = Table(name=table.name)
        self.volumes: Table[Volume] = Table(
            name=table.name,
            server=lambda one: one.attached_server_ids,
            attachment=lambda one: tuple(attachment.id for attachment in one.attachments),
            metadata=lambda one: tuple(f"{key}={value}" for key, value in one.metadata.items()),
        )
        self.snapshots: Table[Snapshot] = Table(name=table.name, volume=lambda one: (one.volume_id,))
        self.balancers: Table[LoadBalancer] = Table(tag=table.tags, name=table.name)
        #: Subnet's id → (first, last) address of each range that it gives out, and where the last search in the first ended.
        self.pools: dict[str, list[tuple[Any, Any]]] = {}
        self.cursors: dict[str, int] = {}
        #: Id of a load balancer's listener, pool or monitor → the load balancer's.
        self.balancer_parts: dict[str, str] = {}
        #: Id of a server → what is being done to it.
        self.tasks: dict[str, ServerTask] = {}
        self.keypairs: dict[str, str] = {}
        #: By name.
        self.credentials: dict[str, StoredCredential] = {}
        #: What the cloud says went wrong with a volume or snapshot.
        self.messages: dict[str, list[str]] = {}

        self._numbers = itertools.count(1)
        self._requests = itertools.count(1)
        self._public = itertools.count(2)
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count_use()

    def new_id(self) -> str:
        """A UUID; the same calls give the same ids, and no two ids have the same first digits."""
        number = next(self._numbers)
        return str(UUID(int=(number << 96) | (4 << 76) | (8 << 60) | number))

    def new_request(self) -> str:
        return f"req-{UUID(int=next(self._requests))}"

    def public_address(self) -> str:
        """A free address of the external network."""
        while True:
            address = str(PUBLIC[next(self._public)])
            if not self.floating_ips.count("address", address):
                return address

    def give_out(self, subnet_id: str, *, first: str, last: str) -> None:
        """Let a subnet choose addresses from this range."""
        self.pools[subnet_id] = [(ip_address(first), ip_address(last))]

    def later(self, seconds: float, happen: Callable[[], None]) -> None:
        """``happen`` in so many seconds of the clock. It looks itself whether its object is still there."""
        heapq.heappush(self._due, (self.clock.monotonic() + seconds, next(self._requests), happen))

    def catch_up(self) -> None:
        """Let happen what is due."""
        now = self.clock.monotonic()
        while self._due and self._due[0][0] <= now:
            heapq.heappop(self._due)[2]()

    def settle(self) -> None:
        """Let happen at once whatever was asked for."""
        with self.lock:
            while self._due:
                heapq.heappop(self._due)[2]()

    def take(self, name: str, number: int = 1) -> None:
        """Raises QuotaExceeded where the quota has not so much left; what is made counts itself."""
        limit = self.limits.get(name, -1)
        if limit >= 0 and self.used[name] + number > limit:
            raise QuotaExceeded(
                f"Quota exceeded for {name}: requested {number}, used {self.used[name]} of {limit}",
                hint=f"raise the project's quota of {name} or free some",
                request_id=self.new_request(),
            )

    def _count_use(self) -> None:
        for name, counted in (
            ("network", self.networks),
            ("subnet", self.subnets),
            ("router", self.routers),
            ("port", self.ports),
            ("floatingip", self.floating_ips),
            ("security_group", self.groups),
            ("security_group_rule", self.rules),
            ("instances", self.servers),
            ("volumes", self.volumes),
            ("snapshots", self.snapshots),
            ("load_balancer", self.balancers),
        ):
            counted.watch(self._counting(name))
        flavors = {one.name: one for one in self.flavors.values()}

        def machines(before: Server | None, after: Server | None) -> None:
            for server, sign in ((before, -1), (after, 1)):
                if server is not None and (flavor := flavors.get(server.flavor_name)):
                    self.used["cores"] += sign * flavor.vcpus
                    self.used["ram"] += sign * flavor.memory_mb

        def disks(before: Volume | None, after: Volume | None) -> None:
            self.used["gigabytes"] += (after.size_gb if after else 0) - (before.size_gb if before else 0)

        self.servers.watch(machines)
        self.volumes.watch(disks)

    def _counting(self, name: str) -> Callable[[object, object], None]:
        def count(before: object, after: object) -> None:
            self.used[name] += (after is not None) - (before is not None)

        return count


def rule_key(rule: SecurityGroupRule) -> str:
    """What makes two rules the same one: all but id and description; "from everywhere" has several spellings."""
    cidr = str(ip_network(rule.remote_cidr, strict=False)) if rule.remote_cidr else None
    if cidr in ("0.0.0.0/0", "::/0"):
        cidr = None
    protocol = None if rule.protocol in (None, "any", "0") else rule.protocol.lower()
    ports = rule.port_min, rule.port_max
    return repr((rule.group_id, rule.direction, rule.ethertype, protocol, *ports, cidr, rule.remote_group_id))
