"""Mode ``vxlan``: packets between pods of different nodes travel inside of UDP packets between their machines.

Of the cloud it needs only that machines reach each other by UDP, which the cluster's security groups allow. With direct routing
it encapsulates nothing between machines of one subnet, and then needs what ``host-gw`` needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from moyai.cloud.capabilities import Capability
from moyai.cloud.model import SourceAddress
from moyai.plan import steps as s
from moyai.plan.existing import Existing
from moyai.plan.node_network import OVERHEAD, NetworkConf
from moyai.plan.nodes import PlannedNode
from moyai.plan.pod_network.node_files import node_files
from moyai.plan.pod_network.sources import allow_sources, besides_pods, own_range
from moyai.spec.cluster_network import NetworkSpec


@dataclass(frozen=True)
class TunnelledPods:
    network: NetworkSpec
    needs: Capability | None = None
    by_router: bool = False
    ready: bool = True

    @property
    def needs_sources(self) -> bool:
        return self.network.vxlan.direct_routing

    @property
    def bare(self) -> bool:
        return self.network.vxlan.direct_routing

    @property
    def conf(self) -> NetworkConf | None:
        given = self.network.vxlan
        return NetworkConf(
            str(self.network.pod_cidr),
            "vxlan",
            vni=given.vni,
            port=given.port,
            direct_routing=given.direct_routing,
            on_demand=given.resolve == "onDemand",
        )

    def send_from(self, node: PlannedNode) -> tuple[SourceAddress, ...]:
        return own_range(node) if self.bare else besides_pods(node)

    def routes(self, nodes: Sequence[PlannedNode]) -> int:
        return 0

    def steps(self, nodes: Sequence[PlannedNode], *, existing: Existing, leaving: Sequence[str]) -> Iterator[s.Step]:
        # without direct routing pods ask nothing of the ports, and others may have changed them
        yield from allow_sources(nodes, existing, send_from=self.send_from, keep=not self.bare)

    def files(self, node: PlannedNode, *, mtu: int) -> Mapping[str, str]:
        # with direct routing too: a pod has one MTU for all ways
        return node_files(node, self.network, mtu=mtu - OVERHEAD, bare=self.bare)
