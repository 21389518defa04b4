"""Egress addresses: which pods leave the cluster with which address, and by which node. For nftables: ``egress_rules``.

Pure. Always holds: a pod has one egress address at most; while an address has no owner, its pods reach nothing outside, rather
than leave with another address; what stays within the cluster is never touched.

A node marks packets of its selected pods that leave the cluster, and sends them through the tunnel to the owner, untranslated.
The owner translates them to the address. Answers come to the owner, which sends them back through the tunnel. Without a tunnel
the machines' network would see foreign source addresses, which a cloud drops. The tunnel is for these packets alone, whatever
the mode of the pod network: so a change of the mode does not concern it. Its entries follow from the nodes' addresses, so that
no node has to announce anything.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import Any, cast

from moyai.core.errors import UsageError
from moyai.kube.objects import Node
from moyai.kube.objects.egress import EgressAddress
from moyai.kube.objects.node import EXCLUDE_LABEL
from moyai.plan.announce.speakers import CANDIDATES, ranked
from moyai.plan.node_network.net_conf import PORT

#: The part of a packet's mark that says its egress address. kube-proxy has others.
MARK_SHIFT, MARK_MASK = 24, 0xFF000000
MOST = 200
#: The mark of answers on the way from the owner to a pod of another node.
ANSWER_NUMBER = 255
#: Name and VXLAN id of the tunnel. The pod network's has a small id.
TUNNEL, TUNNEL_VNI = "moyai-egress", 7799


@dataclass(frozen=True)
class EgressWorld:
    """``pods``: namespace → addresses. ``services``: ``namespace/name`` → addresses of pods. ``holders``: address → the node
    that has its Lease. ``owned``: addresses that this node has. ``ranges``: that ports may send from. ``inside``: all ranges of
    the cluster. ``numbers``: address → its number on this node until now. ``home``: the range of the network that the addresses
    are of, empty for that of all nodes."""

    node: str
    addresses: Collection[EgressAddress]
    nodes: Collection[Node]
    pods: Mapping[str, frozenset[str]]
    services: Mapping[str, frozenset[str]]
    holders: Mapping[str, str]
    owned: frozenset[str]
    ranges: tuple[str, ...]
    inside: tuple[str, ...]
    numbers: Mapping[str, int] = field(default_factory=dict[str, int])
    home: str = ""


@dataclass(frozen=True)
class EgressFlow:
    """``mine``: this node translates. ``through``: the first address of the owner's pod range, by which its tunnel is known;
    empty where nobody owns the address, or this node does."""

    address: str
    number: int
    pods: frozenset[str]
    mine: bool
    through: str

    @property
    def mark(self) -> int:
        return self.number << MARK_SHIFT


@dataclass(frozen=True, order=True)
class TunnelPeer:
    """Another node's end. ``gateway``: the address by which its end of the tunnel is known, which nobody has."""

    address: str
    pod_cidr: str
    gateway: str
    mac: str


@dataclass(frozen=True)
class EgressPlan:
    """``compete``: addresses whose Leases this node tries to have. ``problems``: object → why it has no effect. ``peers``: the
    other ends of the tunnel, none where it is not needed."""

    flows: tuple[EgressFlow, ...]
    compete: frozenset[str]
    problems: Mapping[EgressAddress, str]
    peers: tuple[TunnelPeer, ...] = ()


def plan_egress(world: EgressWorld) -> EgressPlan:
    problems: dict[EgressAddress, str] = {}
    usable = _usable(world, problems)
    nodes = {one.name: one for one in world.nodes}
    able = {one.name for one in world.nodes if _able(one, world.home)}
    numbers = _numbered(usable, world.numbers)
    taken: set[str] = set()
    flows: list[EgressFlow] = []
    # those of a Service are the narrower ones
    for one in sorted(usable, key=lambda each: (not each.service, each.created, each.key)):
        found = world.services.get(f"{one.namespace}/{one.service}") if one.service else world.pods.get(one.namespace)
        pods = (found or frozenset()) - taken
        taken |= pods
        holder = nodes.get(world.holders.get(one.address, ""))
        mine = one.address in world.owned
        away = holder is not None and holder.name != world.node and bool(holder.pod_cidrs)
        through = str(IPv4Network(holder.pod_cidrs[0])[0]) if holder and away and not mine else ""
        flows.append(EgressFlow(one.address, numbers[one.address], pods, mine, through))
    compete = frozenset(
        one.address
        for one in usable
        # the owner keeps the address as long as it may: a new node moves none
        if world.node in able and (one.address in world.owned or world.node in ranked(one.address, able)[:CANDIDATES])
    )
    peers = tuple(sorted(_peers(world))) if flows else ()
    return EgressPlan(tuple(sorted(flows, key=lambda each: each.number)), compete, problems, peers)


def lease_of(address: str) -> str:
    """Name of the Lease that the owner of an egress address holds."""
    return f"egress-{address.replace('.', '-')}"


def tunnel_mac(address: str) -> str:
    """Of the tunnel's end on the node with this address: the same by every node's reckoning."""
    return ":".join(["0a", "59", *(f"{byte:02x}" for byte in IPv4Address(address).packed)])


def _peers(world: EgressWorld) -> Iterator[TunnelPeer]:
    for one in world.nodes:
        address = _address(one)
        if one.name != world.node and address and one.pod_cidrs:
            cidr = one.pod_cidrs[0]
            yield TunnelPeer(address, cidr, str(IPv4Network(cidr)[0]), tunnel_mac(address))


def _address(node: Node) -> str:
    return next((one for one in node.internal_ips if ":" not in one), "")


def _able(node: Node, home: str) -> bool:
    address = _address(node)
    near = not home or (bool(address) and IPv4Address(address) in IPv4Network(home))
    return bool(node.ready) and not node.cordoned and not node.deleting and EXCLUDE_LABEL not in node.labels and near


def _usable(world: EgressWorld, problems: dict[EgressAddress, str]) -> list[EgressAddress]:
    usable: list[EgressAddress] = []
    nodes = {ip for one in world.nodes for ip in one.internal_ips}
    for one in sorted(world.addresses, key=lambda each: (each.created, each.key)):
        other = next((each for each in usable if each.address == one.address), None)
        if one.problem:
            problems[one] = one.problem
        elif not any(IPv4Address(one.address) in IPv4Network(cidr) for cidr in world.ranges):
            problems[one] = f"spec.address: {one.address} is in none of services.announce.ranges ({', '.join(world.ranges)})"
        elif one.address in nodes:
            problems[one] = f"spec.address: {one.address} is a node's"
        elif other is not None:
            problems[one] = f"spec.address: {one.address} is that of {other.key}, which is older"
        elif len(usable) >= MOST:
            problems[one] = f"there are {MOST} egress addresses already"
        else:
            usable.append(one)
    return usable


def _numbered(usable: Iterable[EgressAddress], before: Mapping[str, int]) -> dict[str, int]:
    """A number stays as long as its address does: rules and tables of the kernel have it."""
    wanted = sorted({one.address for one in usable})
    found = {address: before[address] for address in wanted if address in before}
    free = (number for number in range(1, MOST + 1) if number not in found.values())
    return found | {address: next(free) for address in wanted if address not in found}


@dataclass(frozen=True)
class EgressConf:
    """What agents are told. ``ranges``: that ports may send from. ``inside``: all ranges of the cluster. ``port``: UDP's,
    of the tunnel. ``home``: range of the network that the addresses are of, empty for that of all nodes."""

    ranges: tuple[str, ...]
    inside: tuple[str, ...]
    port: int = PORT
    home: str = ""


def write_egress_conf(conf: EgressConf) -> str:
    return json.dumps(asdict(conf))


def read_egress_conf(text: str) -> EgressConf:
    """Raises UsageError for a text that ``write_egress_conf`` has not written."""
    try:
        found = cast("dict[str, Any]", json.loads(text))
        # an older moyai named the pod network's tunnel, and neither of the others
        port, home = int(found.get("port", PORT)), str(found.get("home", ""))
        return EgressConf(tuple(found["ranges"]), tuple(found["inside"]), port, home)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UsageError(f"MOYAI_EGRESS: should be what moyai writes ({type(error).__name__}: {error})") from None
