"""Egress addresses: which pods leave the cluster with which address, by which node, and what this node's kernel is to have.

Pure. Always holds: a pod has one egress address at most; while an address has no owner, its pods reach nothing outside, rather
than leave with another address; what stays within the cluster is never touched.

A node marks packets of its selected pods that leave the cluster, and sends them through the tunnel to the owner, untranslated.
The owner translates them to the address. Answers come to the owner, which sends them back through the tunnel. Without a tunnel
the machines' network would see foreign source addresses, which a cloud drops.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import Any, cast

from moyai.core.errors import UsageError
from moyai.kube.objects import Node
from moyai.kube.objects.egress import EgressAddress
from moyai.plan.load_balancer.eligibility import EXCLUDE_LABEL

#: The part of a packet's mark that says its egress address. kube-proxy has others.
MARK_SHIFT, MARK_MASK = 24, 0xFF000000
_OTHERS = ~MARK_MASK & 0xFFFFFFFF
MOST = 200
TABLE = "moyai-egress"


@dataclass(frozen=True)
class EgressWorld:
    """``pods``: namespace → addresses. ``services``: ``namespace/name`` → addresses of pods. ``holders``: address → the node
    that has its Lease. ``owned``: addresses that this node has. ``ranges``: that ports may send from. ``inside``: all ranges of
    the cluster. ``numbers``: address → its number on this node until now."""

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


@dataclass(frozen=True)
class EgressPlan:
    """``compete``: addresses whose Leases this node tries to have. ``problems``: object → why it has no effect."""

    flows: tuple[EgressFlow, ...]
    compete: frozenset[str]
    problems: Mapping[EgressAddress, str]


def plan_egress(world: EgressWorld) -> EgressPlan:
    problems: dict[EgressAddress, str] = {}
    usable = _usable(world, problems)
    nodes = {one.name: one for one in world.nodes}
    able = _able(nodes.get(world.node))
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
    compete = frozenset(one.address for one in usable) if able else frozenset[str]()
    return EgressPlan(tuple(sorted(flows, key=lambda each: each.number)), compete, problems)


def lease_of(address: str) -> str:
    """Name of the Lease that the owner of an egress address holds."""
    return f"egress-{address.replace('.', '-')}"


def _able(node: Node | None) -> bool:
    return (
        node is not None and bool(node.ready) and not node.cordoned and not node.deleting and EXCLUDE_LABEL not in node.labels
    )


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


def egress_rules(flows: Iterable[EgressFlow], inside: Iterable[str]) -> str:
    """The nftables table, in nft's language; its removal where there is no flow."""
    flows, ranges = tuple(flows), ", ".join(inside)
    if not flows:
        return f"table ip {TABLE}\ndelete table ip {TABLE}\n"
    lines = [f"table ip {TABLE}", f"delete table ip {TABLE}", f"table ip {TABLE} {{"]
    for one in flows:
        elements = f" elements = {{ {', '.join(sorted(one.pods, key=IPv4Address))} }};" if one.pods else ""
        lines.append(f" set pods{one.number} {{ type ipv4_addr;{elements} }}")
    lines += [" chain leaving {", "  type filter hook prerouting priority mangle; policy accept;"]
    for one in flows:
        chosen = f"  ip saddr @pods{one.number} ip daddr != {{ {ranges} }}"
        if one.mine:
            continue
        what = f"meta mark set meta mark & {_OTHERS:#010x} | {one.mark:#010x}" if one.through else "counter drop"
        lines.append(f"{chosen} {what}")
    # behind the routing: the tunnel would send its own packet by the mark, into itself
    lines += [" }", " chain routed {", "  type filter hook postrouting priority mangle; policy accept;"]
    lines += [f"  ip saddr @pods{one.number} meta mark set meta mark & {_OTHERS:#010x}" for one in flows if one.through]
    lines += [" }", " chain translated {", "  type nat hook postrouting priority srcnat - 5; policy accept;"]
    for one in flows:
        chosen = f"  ip saddr @pods{one.number} ip daddr != {{ {ranges} }}"
        # a translation to what it is already: no later chain gives it the node's address
        lines.append(f"{chosen} counter snat to {one.address if one.mine else 'ip saddr'}")
    return "\n".join([*lines, " }", "}", ""])


@dataclass(frozen=True)
class EgressConf:
    """What agents are told. ``ranges``: that ports may send from. ``inside``: all ranges of the cluster. ``tunnel``: name of
    the nodes' tunnel."""

    ranges: tuple[str, ...]
    inside: tuple[str, ...]
    tunnel: str


def write_egress_conf(conf: EgressConf) -> str:
    return json.dumps(asdict(conf))


def read_egress_conf(text: str) -> EgressConf:
    """Raises UsageError for a text that ``write_egress_conf`` has not written."""
    try:
        found = cast("dict[str, Any]", json.loads(text))
        return EgressConf(tuple(found["ranges"]), tuple(found["inside"]), str(found["tunnel"]))
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"MOYAI_EGRESS: should be what moyai writes ({type(error).__name__}: {error})") from None
