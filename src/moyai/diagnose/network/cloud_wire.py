"""What the cloud does with a packet between two machines: its ports, its firewall and its router, as it describes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, ip_network

from moyai.cloud.capabilities import Capability
from moyai.cloud.model import Port, Router, SecurityGroupRule
from moyai.diagnose.network.nft_rules import Packet


@dataclass(frozen=True)
class CloudFacts:
    """``ports``: node → its port. ``rules``: of the groups of these ports. ``unknown``: why there are none, empty where the
    cloud has answered. ``router``: None where the cluster has none. ``sources_allowed``: whether ports may be allowed to send
    from other addresses than their own."""

    ports: Mapping[str, Port] = field(default_factory=dict[str, Port])
    rules: tuple[SecurityGroupRule, ...] = ()
    router: Router | None = None
    unknown: str = ""
    capabilities: frozenset[Capability] = frozenset()
    sources_allowed: bool = True


def refused_to_send(cloud: CloudFacts, node: str, *, source: str) -> str:
    """Why the cloud drops what this node sends from ``source``, empty where it does not."""
    port = cloud.ports.get(node)
    if port is None or _is_from(port, source):
        return ""
    allowed = ", ".join((*port.fixed_ips, *(one.address for one in port.send_from)))
    return f"port {port.name} may send from {allowed} only, not from {source}"


def refused_by_firewall(cloud: CloudFacts, sender: str, *, receiver: str, packet: Packet) -> str:
    """Why the security groups of the two machines' ports drop the packet, empty where they do not."""
    source, target = cloud.ports.get(sender), cloud.ports.get(receiver)
    for port, direction, peer, remote in (
        (source, "egress", target, packet.destination),
        (target, "ingress", source, packet.source),
    ):
        if port is None or not port.security_group_ids:
            continue  # without groups the cloud filters nothing, or does not say it
        rules = [one for one in cloud.rules if one.group_id in port.security_group_ids and one.direction == direction]
        if not any(_allows(one, packet, peer=peer, remote=remote) for one in rules):
            way = "leave" if direction == "egress" else "reach"
            return f"no security group rule lets {packet.target} from {packet.source} {way} port {port.name}"
    return ""


def _allows(rule: SecurityGroupRule, packet: Packet, *, peer: Port | None, remote: str) -> bool:
    if rule.ethertype != "IPv4" or (rule.protocol not in (None, "any", packet.protocol)):
        return False
    if rule.port_min is not None and packet.protocol in ("tcp", "udp", "sctp"):
        last = rule.port_max if rule.port_max is not None else rule.port_min
        if not rule.port_min <= packet.port <= last:
            return False
    if rule.remote_group_id:
        # a group stands for its members' addresses and for those that they may send from
        member = peer is not None and rule.remote_group_id in peer.security_group_ids
        return member and peer is not None and _is_from(peer, remote)
    return not rule.remote_cidr or _within(remote, rule.remote_cidr)


def _is_from(port: Port, address: str) -> bool:
    return address in port.fixed_ips or contains((one.address for one in port.send_from), address)


def route_of(router: Router, destination: str) -> str:
    """The next hop of the router's own route to ``destination``, empty for none."""
    found = [one for one in router.routes if _within(destination, one.destination)]
    return max(((IPv4Network(one.destination).prefixlen, one.nexthop) for one in found), default=(0, ""))[1]


def contains(ranges: Iterable[str], address: str) -> bool:
    return any(_within(address, one) for one in ranges)


def _within(address: str, cidr: str) -> bool:
    network = ip_network(cidr, strict=False)
    return isinstance(network, IPv4Network) and IPv4Address(address) in network
