"""Mode ``host-gw``: each node's kernel has a route to each other node's pod range, with that node as the gateway.

Nothing is encapsulated and the cloud's router has no part in it. All machines must be on one subnet, and their ports must be
allowed to send from pods' addresses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from moyai.cloud.capabilities import Capability
from moyai.cloud.model import SourceAddress
from moyai.plan import steps as s
from moyai.plan.existing import Existing
from moyai.plan.node_network import NetworkConf
from moyai.plan.nodes import PlannedNode
from moyai.plan.pod_network.node_files import node_files
from moyai.plan.pod_network.sources import allow_sources, own_range
from moyai.spec.model import NetworkSpec


@dataclass(frozen=True)
class GatewayPods:
    network: NetworkSpec
    needs: Capability | None = None
    needs_sources: bool = True
    by_router: bool = False
    bare: bool = True
    ready: bool = True

    @property
    def conf(self) -> NetworkConf | None:
        return NetworkConf(str(self.network.pod_cidr), "host-gw")

    def send_from(self, node: PlannedNode) -> tuple[SourceAddress, ...]:
        return own_range(node)

    def routes(self, nodes: Sequence[PlannedNode]) -> int:
        return 0

    def steps(self, nodes: Sequence[PlannedNode], *, existing: Existing, leaving: Sequence[str]) -> Iterator[s.Step]:
        yield from allow_sources(nodes, existing)

    def files(self, node: PlannedNode, *, mtu: int) -> Mapping[str, str]:
        return node_files(node, self.network, mtu=mtu, bare=True)
