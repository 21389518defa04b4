"""Mode ``bgp``: nodes tell each other, and routers outside, their pod ranges by BGP.

Nothing is encapsulated and the cloud's router has no part in it. Ports must be allowed to send from pods' addresses. The agents
run FRR, which puts the routes into the kernel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from moyai.cloud.capabilities import Capability
from moyai.cloud.model import SourceAddress
from moyai.plan import steps as s
from moyai.plan.bgp.bgp_conf import BgpConf, PeerConf
from moyai.plan.existing import Existing
from moyai.plan.node_network import NetworkConf
from moyai.plan.nodes import PlannedNode
from moyai.plan.pod_network.node_files import node_files
from moyai.plan.pod_network.sources import allow_sources, own_range
from moyai.spec.model import ClusterSpec, NetworkSpec


@dataclass(frozen=True)
class AnnouncedPods:
    network: NetworkSpec
    needs: Capability | None = None
    needs_sources: bool = True
    by_router: bool = False
    bare: bool = True
    ready: bool = True

    @property
    def conf(self) -> NetworkConf | None:
        return NetworkConf(str(self.network.pod_cidr), "bgp")

    def send_from(self, node: PlannedNode) -> tuple[SourceAddress, ...]:
        return own_range(node)

    def routes(self, nodes: Sequence[PlannedNode]) -> int:
        return 0

    def steps(self, nodes: Sequence[PlannedNode], *, existing: Existing, leaving: Sequence[str]) -> Iterator[s.Step]:
        yield from allow_sources(nodes, existing)

    def files(self, node: PlannedNode, *, mtu: int) -> Mapping[str, str]:
        return node_files(node, self.network, mtu=mtu, bare=True)


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
