"""The spec's sections ``networks`` and ``machines``: what stands beside a cluster, such as a router, a bastion or a client.

Always holds: the cluster's own network is called ``nodes``; a machine's place in a network is none that a node can get; no
machine has a name that a node could have.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network
from typing import Annotated, Literal, Protocol, Self

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from moyai.core.ids import is_dns_label
from moyai.spec.address_types import Cidr, Ip
from moyai.spec.base import Model, problem
from moyai.spec.bgp_network import Asn
from moyai.spec.forbidden_ranges import special_overlap
from moyai.spec.object_names import Choice, Name, is_new

#: What the cluster's own network is called, whose range is ``network.nodeCIDR``.
NODES = "nodes"
#: They would have the name of a cluster's own network, or mean it.
_TAKEN = (NODES, "network")
#: Modes of the pod network in which a node's next hop is another node.
ONE_NETWORK = ("host-gw", "bgp")
#: Address numbers that nodes get begin here; those before are the cloud's router's, the API's and machines'.
_FIRST_NODE, _API = 10, 4
_MOST_FILES = 1 << 15
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]{0,99}(=[A-Za-z0-9.+~:-]{1,99})?")
_PATH = re.compile(r"/[A-Za-z0-9_@%+=:.,/-]{1,254}")
_MODE = re.compile(r"0[0-7]{3}")
MachineRole = Literal["router", "bastion", "client", "plain"]


def _label(value: str) -> str:
    if not is_dns_label(value, max_length=20):
        raise problem("a DNS label (a-z, 0-9, '-'; begins with a letter, at most 20 characters)")
    return value


def _network_name(value: str) -> str:
    if value in _TAKEN:
        raise problem(f"another name: {value} means the cluster's own network")
    return _label(value)


def _package(value: str) -> str:
    if not _PACKAGE.fullmatch(value):
        raise problem("the name of a Debian package, such as tcpdump")
    return value


def _path(value: str) -> str:
    if not _PATH.fullmatch(value) or ".." in value.split("/") or value.endswith("/"):
        raise problem("the path of a file, such as /etc/motd")
    return value


def _mode(value: str) -> str:
    if not _MODE.fullmatch(value):
        raise problem("the mode of a file in quotes, such as '0644'")
    return value


class FurtherNetwork(Model):
    """A network beside the cluster's own one."""

    name: Annotated[str, AfterValidator(_network_name)] = Field(description="Name, by which pools and machines name it.")
    cidr: Cidr = Field(description="Range of its subnet (/16 to /28), apart from all others of the cluster.")
    gateway: str = Field(
        default="",
        description="Name of a machine with the role `router` that leads out of it. Empty: the cluster's router does.",
    )

    @model_validator(mode="after")
    def _check(self, info: ValidationInfo) -> Self:
        if not 16 <= self.cidr.prefixlen <= 28:
            raise problem("a range of /16 to /28", at=("cidr",))
        if special := special_overlap(self.cidr) if is_new(info) else "":
            raise problem(f"apart from {special}", at=("cidr",))
        return self


class PlaceSpec(Model):
    """A network that a machine is in."""

    network: str = Field(default=NODES, description="`nodes`, the cluster's own, or one of `networks`.")
    address: Ip = Field(description="The machine's address there, none that a node can get.")


class MachineFile(Model):
    """A file that the machine gets before anything of it starts."""

    path: Annotated[str, AfterValidator(_path)] = Field(description="Where.")
    content: str = Field(description="Its text. It is in the machine's user data, so it is no place for secrets.")
    mode: Annotated[str, AfterValidator(_mode)] = Field(default="0644", description="Its mode, in quotes.")


class MachineBgp(Model):
    """BGP of a router: FRR, which accepts a session from each node on the router's networks, and tells them the ranges that the
    router is the gateway of. It knows the nodes by `network.bgp.asn`."""

    asn: Asn = Field(description="Number of the router's autonomous system.")


class MachineSpec(Model):
    """A machine beside the cluster. It is made, kept and removed with the cluster and is no node of it."""

    name: Annotated[str, AfterValidator(_label)] = Field(description="Its name; in the cloud, the cluster's is in front.")
    role: MachineRole = Field(
        default="plain",
        description="`router`: forwards packets between its networks. `bastion`: has a floating IP, for SSH from `sshCIDRs`. "
        "`client` and `plain`: reached from the control plane alone.",
    )
    flavor: Name = Field(default="m1.small", description="The cloud's flavor.")
    zone: Choice = Field(default="", description="Its availability zone; empty: the cloud chooses.")
    image: Choice = Field(default="", description="Name or id of its image, one with cloud-init; empty: the node image.")
    networks: list[PlaceSpec] = Field(description="Its places in networks, 8 at most; the first leads out.")
    packages: list[Annotated[str, AfterValidator(_package)]] = Field(
        default_factory=list[str], description="Debian packages that it installs when it first starts."
    )
    files: list[MachineFile] = Field(default_factory=list[MachineFile], description="Files that it gets; 32 KiB in all.")
    bgp: MachineBgp | None = Field(default=None, description="For a router from the node image: BGP with the nodes.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not 1 <= len(self.networks) <= 8:
            raise problem("1 to 8 networks", at=("networks",))
        for number, place in enumerate(self.networks):
            if any(place.network == one.network for one in self.networks[:number]):
                raise problem("another network: the machine is in it already", at=("networks", number, "network"))
        paths = [one.path for one in self.files]
        for number, path in enumerate(paths):
            if path in paths[:number]:
                raise problem("another path: the list has it already", at=("files", number, "path"))
        if sum(len(one.content.encode()) for one in self.files) > _MOST_FILES:
            raise problem(f"files of at most {_MOST_FILES} bytes in all", at=("files",))
        if self.bgp and self.role != "router":
            raise problem("left out where the role is not router", at=("bgp",))
        if self.bgp and self.image:
            raise problem(
                "left out where the machine has an image of its own: files and packages configure its FRR", at=("bgp",)
            )
        return self


class _PoolInNetwork(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def network(self) -> str: ...


def check_beside(
    networks: Sequence[FurtherNetwork],
    machines: Sequence[MachineSpec],
    *,
    ranges: dict[str, IPv4Network],
    pools: Sequence[_PoolInNetwork],
    mode: str,
) -> None:
    """``ranges``: field of ``network`` → the cluster's range. Raises the validator's error, with its place below ``spec``."""
    _check_names(networks, machines, pools=pools)
    nodes = ranges["nodeCIDR"]
    for number, one in enumerate(networks):
        others = {**ranges, **{f"networks[{n}]": other.cidr for n, other in enumerate(networks[:number])}}
        for field, cidr in others.items():
            if one.cidr.overlaps(cidr):
                raise problem(f"apart from {field} {cidr}", at=("networks", number, "cidr"))
    known = {one.name: one for one in networks}
    for number, pool in enumerate(pools):
        if pool.network == NODES:
            continue
        at = ("nodePools", number, "network")
        if pool.network not in known:
            raise problem(_one_of(known), at=at)
        if known[pool.network].gateway:
            raise problem("a network that the cluster's router leads out of, not a machine", at=at)
        if known[pool.network].cidr.num_addresses < nodes.num_addresses:
            raise problem(f"a network with as many addresses as nodeCIDR {nodes}", at=at)
        if mode in ONE_NETWORK:
            raise problem(f"left out in mode {mode}, which needs all nodes on one network; vxlan and routes do not", at=at)
    homes = {pool.network for pool in pools} | {NODES}
    cidrs = {NODES: nodes, **{one.name: one.cidr for one in networks}}
    for number, machine in enumerate(machines):
        for index, place in enumerate(machine.networks):
            at = ("machines", number, "networks", index)
            if place.network not in cidrs:
                raise problem(_one_of(known), at=(*at, "network"))
            led = place.network in known and bool(known[place.network].gateway)
            free = place.network not in homes
            _check_address(place.address, cidrs[place.network], free=free, led=led, at=(*at, "address"))
            if index == 0 and led and machine.role == "bastion":
                raise problem("a network that the cluster's router leads out of, for the floating IP", at=(*at, "network"))
    _check_gateways(networks, machines)
    _check_twice(machines)


def _check_names(
    networks: Sequence[FurtherNetwork], machines: Sequence[MachineSpec], *, pools: Sequence[_PoolInNetwork]
) -> None:
    for field, names in (("networks", [one.name for one in networks]), ("machines", [one.name for one in machines])):
        for number, name in enumerate(names):
            if name in names[:number]:
                raise problem(f"a name of its own: {field}[{names.index(name)}] has it too", at=(field, number, "name"))
    taken = {"control-plane", *(pool.name for pool in pools)}
    for number, machine in enumerate(machines):
        stem, _, ordinal = machine.name.rpartition("-")
        if (ordinal.isdigit() and stem in taken) or machine.name == "api":
            raise problem("another name: the cluster itself may use it", at=("machines", number, "name"))


def _one_of(known: dict[str, FurtherNetwork]) -> str:
    return f"one of {', '.join((NODES, *known))}"


def _check_address(address: IPv4Address, cidr: IPv4Network, *, free: bool, led: bool, at: tuple[str | int, ...]) -> None:
    """``free``: no node gets an address of the range. ``led``: by a machine, so that the cloud's router has none either."""
    number = int(address) - int(cidr.network_address)
    if address not in cidr or number in (0, cidr.num_addresses - 1):
        raise problem(f"an address within {cidr}", at=at)
    if number == 1 and not led:
        raise problem(f"apart from {address}, which the cloud's router has", at=at)
    if not free and (_FIRST_NODE <= number < cidr.num_addresses // 2 or number == _API):
        last = cidr[cidr.num_addresses // 2 - 1]
        raise problem(f"apart from {cidr[_FIRST_NODE]} to {last}, which nodes get, and {cidr[_API]}, the API's", at=at)


def _check_gateways(networks: Sequence[FurtherNetwork], machines: Sequence[MachineSpec]) -> None:
    for number, one in enumerate(networks):
        if not one.gateway:
            continue
        machine = next((machine for machine in machines if machine.name == one.gateway), None)
        places = [place for place in machine.networks if place.network == one.name] if machine else []
        if machine is None or machine.role != "router" or not places:
            should = f"the name of a machine with the role router in network {one.name}"
            raise problem(should, at=("networks", number, "gateway"))
        if machine.networks[0].network == one.name:
            raise problem(
                "a router whose first network is another one, over which it leads out", at=("networks", number, "gateway")
            )


def _check_twice(machines: Sequence[MachineSpec]) -> None:
    seen: dict[IPv4Address, str] = {}
    for number, machine in enumerate(machines):
        for index, place in enumerate(machine.networks):
            if seen.setdefault(place.address, machine.name) != machine.name:
                raise problem(
                    f"another address: {seen[place.address]} has it", at=("machines", number, "networks", index, "address")
                )
