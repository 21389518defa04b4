"""What a node's kernel is to have, for each backend."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network

from moyai.plan.node_network.net_conf import LEAST_MTU, OVERHEAD, NetworkConf, tunnel_name
from moyai.plan.node_network.node_state import (
    BESIDE_METRIC,
    UNREACHABLE_METRIC,
    Entry,
    Forwarding,
    Me,
    Neighbour,
    NodeNetwork,
    ObservedNetwork,
    Peer,
    PodRoute,
    Tunnel,
    TunnelAddress,
    Uplink,
)


@dataclass(frozen=True)
class Desired:
    """``problems``: name of a peer that cannot be reached in this way → why. ``failure``: why there is no network at all."""

    network: NodeNetwork = field(default_factory=NodeNetwork)
    problems: Mapping[str, str] = field(default_factory=dict[str, str])
    failure: str = ""


def desired(me: Me, peers: Iterable[Peer], *, uplink: Uplink, conf: NetworkConf, entries: PeerEntries | None = None) -> Desired:
    """``entries``: of the calls before, where there were some."""
    base: set[Entry] = {PodRoute(conf.network, metric=UNREACHABLE_METRIC)}
    if conf.on_demand:
        # each pod is a neighbour, whom the kernel asks for
        base.add(PodRoute(conf.network, device="tunnel"))
    tunnel: Tunnel | None = None
    if conf.backend == "vxlan":
        mtu = (conf.mtu or uplink.mtu) - OVERHEAD
        if mtu < LEAST_MTU:
            return Desired(
                failure=f"the machines' network carries {conf.mtu or uplink.mtu} bytes ({uplink.name}), which leaves {mtu} to "
                f"pods in VXLAN: it should carry {LEAST_MTU + OVERHEAD} at least"
            )
        base.add(TunnelAddress(_first(me.pod_cidr)))
        tunnel = Tunnel(
            tunnel_name(conf.vni),
            vni=conf.vni,
            port=conf.port,
            local=me.address,
            parent=uplink.index,
            mac=me.mac,
            mtu=mtu,
            misses=conf.on_demand,
        )
    problems: dict[str, str] = {}
    parts: list[frozenset[Entry]] = [frozenset(base)]
    if conf.backend == "bgp":
        return Desired(NodeNetwork(entries=parts[0]))
    for peer, part in (entries or PeerEntries()).of(peers, uplink.subnets, conf=conf).items():
        parts.append(part)
        if not part and not (peer.mac and conf.on_demand):
            problems[peer.name] = (
                f"its address {peer.address} is on none of this node's subnets ({', '.join(uplink.subnets)}): "
                "host-gw reaches only machines of the same subnet, vxlan reaches all"
            )
    return Desired(NodeNetwork(tunnel, frozenset[Entry]().union(*parts)), problems)


def until_bgp(wanted: NodeNetwork, observed: ObservedNetwork, *, ranges: Collection[str]) -> NodeNetwork:
    """With the routes that stand beside those of BGP, for as long as BGP has none to the same ``ranges`` of other nodes: on the
    way to mode bgp a session may come later than the agent."""
    others = {one.destination for one in observed.foreign.values()}
    kept = {
        one
        for one in observed.network.entries
        if isinstance(one, PodRoute) and one.metric == BESIDE_METRIC and one.destination in ranges
    }
    return replace(wanted, entries=wanted.entries | {one for one in kept if one.destination not in others})


class PeerEntries:
    """The entries of all peers, as they were at the last call: a change of one node among many makes those of one peer."""

    def __init__(self) -> None:
        self._way: tuple[tuple[str, ...], NetworkConf] | None = None
        self._held: Mapping[Peer, frozenset[Entry]] = {}

    def of(self, peers: Iterable[Peer], subnets: tuple[str, ...], *, conf: NetworkConf) -> Mapping[Peer, frozenset[Entry]]:
        """Peer → its entries, empty where it cannot be reached."""
        before = self._held if self._way == (subnets, conf) else dict[Peer, frozenset[Entry]]()
        found = {one: before[one] if one in before else _entries(one, subnets, conf=conf) for one in peers}
        self._way, self._held = (subnets, conf), found
        return found


def _entries(peer: Peer, subnets: tuple[str, ...], *, conf: NetworkConf) -> frozenset[Entry]:
    near = any(IPv4Address(peer.address) in IPv4Network(subnet, strict=False) for subnet in subnets)
    direct = PodRoute(peer.pod_cidr, peer.address, "uplink", BESIDE_METRIC if conf.beside else 0)
    if conf.backend == "host-gw":
        return frozenset({direct} if near else ())
    if not peer.mac:
        return frozenset({direct} if near else ())
    # with a direct route too: then only a route differs between the two ways
    gateway = _first(peer.pod_cidr)
    straight = near and conf.direct_routing
    if conf.on_demand:
        return frozenset({direct} if straight else ())
    route = direct if straight else PodRoute(peer.pod_cidr, gateway, "tunnel")
    return frozenset({Neighbour(gateway, peer.mac), Forwarding(peer.mac, peer.address), route})


def _first(cidr: str) -> str:
    return str(IPv4Network(cidr).network_address)
