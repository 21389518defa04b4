"""Mode ``bgp``: nodes announce their pod ranges by BGP, to each other and to routers outside.

Nothing is encapsulated and the cloud's router has no part in it. Ports must be allowed to send from pods' addresses. The agents
run FRR, which puts the routes into the kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address

from moyai.plan.bgp.bgp_conf import BgpConf, PeerConf
from moyai.plan.node_network import Backend
from moyai.plan.pod_network.bare_pods import BarePods
from moyai.spec.model import ClusterSpec


@dataclass(frozen=True, kw_only=True)
class AnnouncedPods(BarePods):
    backend: Backend = "bgp"


def bgp_conf_of(spec: ClusterSpec) -> BgpConf | None:
    """What the agents do with BGP; None for nothing."""
    ranges = tuple(map(str, spec.services.announce.ranges))
    network = spec.network
    if network.mode != "bgp":
        # without a router in the spec, a BGPPeer says the AS
        named = _routers(spec)
        return BgpConf(network.bgp.asn if named else 0, ranges=ranges, peers=named) if ranges else None
    return BgpConf(
        network.bgp.asn,
        str(network.pod_cidr),
        ranges,
        mesh_up_to=network.bgp.mesh_up_to,
        reflector=network.bgp.reflector_label,
        peers=_routers(spec),
    )


def _routers(spec: ClusterSpec) -> tuple[PeerConf, ...]:
    return tuple(
        PeerConf(
            one.name,
            str(one.address),
            one.asn,
            secret=one.password_secret,
            bfd=one.bfd,
            multihop=one.multihop,
            pods=one.announce_pods,
            accept=tuple(map(str, one.accept)),
            most=one.maximum_prefixes,
            within="" if one.multihop else _network_of(spec, one.address),
        )
        for one in spec.network.bgp.routers
    )


def _network_of(spec: ClusterSpec, address: IPv4Address) -> str:
    """Range of the network that a router is in; empty where all nodes are in one, or the router is in none of theirs."""
    homes = (spec.network.node_cidr, *(one.cidr for one in spec.networks))
    return next((str(cidr) for cidr in homes if address in cidr), "") if spec.networks else ""
