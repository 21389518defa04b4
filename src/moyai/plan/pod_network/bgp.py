"""Mode ``bgp``: nodes announce their pod ranges by BGP, to each other and to routers outside.

Nothing is encapsulated and the cloud's router has no part in it. Ports must be allowed to send from pods' addresses. The agents
run FRR, which puts the routes into the kernel.
"""

from __future__ import annotations

from dataclasses import dataclass

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
        # a BGPPeer says the AS then
        return BgpConf(ranges=ranges) if ranges else None
    routers = tuple(
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
        )
        for one in network.bgp.routers
    )
    return BgpConf(
        network.bgp.asn,
        str(network.pod_cidr),
        ranges,
        mesh_up_to=network.bgp.mesh_up_to,
        reflector=network.bgp.reflector_label,
        peers=routers,
    )
