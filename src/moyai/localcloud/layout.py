"""What a local cloud is: its name, its ranges, its zones, and every name and address that follows from them.

``LocalCloudConfig`` is checked when it is made: a wrong field is a ``UsageError`` of one line, before anything is touched. All
else here is computed from it and never stored.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from moyai.core.errors import UsageError
from moyai.core.ids import is_dns_label
from moyai.localcloud.profile import CloudProfile, from_data

#: API ports, all on the management address.
PORTS: Mapping[str, int] = {
    "keystone": 5000,
    "glance": 9292,
    "placement": 8778,
    "nova": 8774,
    "nova-metadata": 8775,
    "neutron": 9696,
    "cinder": 8776,
    "octavia": 9876,
    "registry": 5001,
    "registry-readonly": 5002,
    "rabbitmq": 5672,
    "nifcloud": 443,
}
#: The host of NIFCLOUD's API in the region that the local cloud is. Clients that know no endpoint reach the local cloud by it.
NIFCLOUD_HOST = "jp-east-1.computing.api.nifcloud.com"

#: The name of an adapter: commands would take the cloud for NIFCLOUD itself.
_TAKEN_NAME = "nifcloud"
#: Services that machines and pods may reach. Each of them changes nothing without a token, or nothing at all. Machines that
#: ask for the registry's port get the read-only registry.
REACHABLE_BY_MACHINES = (
    "keystone",
    "glance",
    "placement",
    "nova",
    "neutron",
    "cinder",
    "octavia",
    "registry-readonly",
    "nifcloud",
)

#: The bridge of the external network in the cloud's own namespace.
EXTERNAL_BRIDGE = "os-br-ex"
NO_PROFILE = CloudProfile()

#: UDP port of the tunnels between the hypervisors (the Linux kernel's and Neutron's default).
VXLAN_PORT = 8472

#: Neutron's and Nova's limits. Real ones, so that a cluster that cannot fit is refused as on any cloud; sized for a
#: laptop's clusters: 100 extra routes a router (Neutron: 30) carry a cluster of 100 nodes, address pairs stay Neutron's 10.
MAX_ROUTES = 100
MAX_ADDRESS_PAIRS = 10

FLAVORS: tuple[tuple[str, int, int, int], ...] = (
    ("m1.tiny", 1, 512, 10),
    ("m1.small", 1, 2048, 20),
    ("m1.medium", 2, 4096, 40),
    ("m1.large", 4, 8192, 80),
)


@dataclass(frozen=True)
class Hypervisor:
    """One compute host. ``netns`` is its network namespace inside the cloud, "" for the cloud's own."""

    host: str
    zone: str
    address: str
    netns: str


@dataclass(frozen=True)
class FlatNetwork:
    """A flat network of the cloud: its name, which Neutron's physical network has as well, and its bridge. ``shared``: machines
    are on it, so that it reaches all hypervisors."""

    name: str
    bridge: str
    network: ipaddress.IPv4Network
    shared: bool = False

    @property
    def gateway(self) -> str:
        return str(self.network[1])


@dataclass(frozen=True)
class LocalCloudConfig:
    """A local cloud, as asked for. ``outbound``: whether machines may reach what the host reaches (by NAT on the host).
    ``profile``: what makes it like a company's cloud."""

    name: str = "moyai"
    management_cidr: str = "10.255.0.0/24"
    external_cidr: str = "198.51.100.0/24"
    zones: tuple[str, ...] = ("az1", "az2")
    outbound: bool = False
    profile: CloudProfile = NO_PROFILE

    def __post_init__(self) -> None:
        if not is_dns_label(self.name, max_length=24):
            raise UsageError(f"cloud name {self.name!r}", hint="lower-case letters, digits and '-', 24 at most, a letter first")
        if self.name == _TAKEN_NAME:
            raise UsageError(f"cloud name {self.name!r}: commands take it for NIFCLOUD itself", hint="choose another name")
        management = _network("management range", self.management_cidr)
        external = _network("external range", self.external_cidr)
        if management.overlaps(external):
            raise UsageError(
                f"ranges {management} and {external} overlap", hint="the management and the external range must differ"
            )
        taken = {"management": management, "external": external}
        for one in self.profile.networks:
            for what, other in taken.items():
                if one.network.overlaps(other):
                    raise UsageError(
                        f"network {one.name} {one.cidr} overlaps {what} {other}", hint="give the profile another range"
                    )
            taken[one.name] = one.network
        if not self.zones or len(self.zones) > 8:
            raise UsageError(f"{len(self.zones)} zones", hint="a local cloud has 1 to 8 zones")
        if len(set(self.zones)) != len(self.zones):
            raise UsageError(f"zones {', '.join(self.zones)}: a name is given twice")
        for zone in self.zones:
            # sections of cinder.conf are named by the zones; these names are taken there
            if not is_dns_label(zone, max_length=32) or zone in {"nova", "internal", "coordination", "database"}:
                raise UsageError(
                    f"zone {zone!r}", hint="lower-case letters, digits and '-', a letter first, not a reserved name"
                )

    @classmethod
    def from_json(cls, text: str) -> LocalCloudConfig:
        data: dict[str, Any] = json.loads(text)
        data["zones"] = tuple(data["zones"])
        data["profile"] = from_data(data.get("profile", {}), source=data["name"])
        return cls(**data)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"

    @property
    def management(self) -> ipaddress.IPv4Network:
        return ipaddress.IPv4Network(self.management_cidr)

    @property
    def external(self) -> ipaddress.IPv4Network:
        return ipaddress.IPv4Network(self.external_cidr)

    @property
    def wires(self) -> tuple[FlatNetwork, ...]:
        """The networks that the host reaches besides the management one: ``public``, then those of the profile."""
        more = (
            FlatNetwork(one.name, f"os-br-x{number}", one.network, shared=one.kind == "provider")
            for number, one in enumerate(self.profile.networks, start=1)
        )
        return (FlatNetwork("public", EXTERNAL_BRIDGE, self.external), *more)

    @property
    def address(self) -> str:
        """The cloud's own address: every API listens there and nowhere else."""
        return str(self.management[1])

    @property
    def external_gateway(self) -> str:
        return self.wires[0].gateway

    @property
    def host_address(self) -> str:
        """The host's address on the management network: its last one."""
        return str(self.management[-2])

    @property
    def link(self) -> str:
        """The host's end of the veth; the kernel allows 15 characters."""
        plain = f"mc-{self.name}"
        return plain if len(plain) <= 15 else f"mc-{self.name[:5]}-{hashlib.sha256(self.name.encode()).hexdigest()[:6]}"

    @property
    def cgroup(self) -> str:
        return f"moyai-{self.name}"

    @property
    def hypervisors(self) -> tuple[Hypervisor, ...]:
        """One a zone; the first lives in the cloud's own network namespace, beside the network agents."""
        return tuple(
            Hypervisor(host=f"hv{n}", zone=zone, address=str(self.management[n]), netns="" if n == 1 else f"hv{n}")
            for n, zone in enumerate(self.zones, start=1)
        )

    def url(self, service: str, path: str = "") -> str:
        return f"http://{self.address}:{PORTS[service]}{path}"

    @property
    def region(self) -> str:
        return "RegionOne"

    @property
    def auth_url(self) -> str:
        return self.url("keystone", "/v3")


def _network(what: str, text: str) -> ipaddress.IPv4Network:
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError as error:
        raise UsageError(f"{what} {text!r}", hint=f"an IPv4 network such as 10.255.0.0/24 ({error})") from None
    if not 16 <= network.prefixlen <= 26:
        raise UsageError(f"{what} {network}", hint="between /16 and /26")
    if network.is_loopback or network.is_link_local or network.is_multicast or network.is_unspecified:
        raise UsageError(f"{what} {network}", hint="not a loopback, link-local or multicast range")
    return network


#: A Unix socket's path may have 107 characters; the longest of ours is this one.
LONGEST_SOCKET = "run/tmp/tmpabcdefgh/privsep.sock"


@dataclass(frozen=True)
class CloudPaths:
    """The folders of one cloud, below ``<state>/clouds/NAME``. All are root's alone."""

    root: Path

    @property
    def run(self) -> Path:
        """Sockets and process records: worthless once the cloud is not running."""
        return self.root / "run"

    @property
    def log(self) -> Path:
        return self.root / "log"

    @property
    def conf(self) -> Path:
        return self.root / "conf"

    @property
    def python(self) -> Path:
        """What OpenStack's services import from moyai."""
        return self.root / "python"

    @property
    def state(self) -> Path:
        """Databases, keys, volumes: what makes the cloud the same one after a reboot."""
        return self.root / "state"

    @property
    def nifcloud(self) -> Path:
        """Certificates and access key of NIFCLOUD's API; there if the cloud speaks it."""
        return self.root / "nifcloud"

    @property
    def machines(self) -> Path:
        return self.root / "machines"

    @property
    def record(self) -> Path:
        """The configuration this cloud was made with; there as long as the cloud is."""
        return self.root / "cloud.json"

    @property
    def secrets(self) -> Path:
        return self.root / "secrets.json"

    @property
    def init_record(self) -> Path:
        return self.run / "init.json"

    @property
    def services_file(self) -> Path:
        return self.run / "services.json"

    @property
    def control_socket(self) -> Path:
        return self.run / "supervisor.sock"

    @property
    def mysql_socket(self) -> Path:
        return self.run / "mysql.sock"

    def check(self) -> None:
        longest = self.root / LONGEST_SOCKET
        if len(str(longest)) > 107:
            raise UsageError(
                f"the state folder's path is too long for sockets ({longest})", hint="set MOYAI_STATE_DIR to a shorter one"
            )
