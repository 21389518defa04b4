"""What modes have in common whose packets are on the machines' network with the pods' own addresses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from moyai.cloud.capabilities import Capability
from moyai.cloud.model import SourceAddress
from moyai.plan import steps as s
from moyai.plan.existing import Existing
from moyai.plan.node_network import Backend, NetworkConf
from moyai.plan.nodes import PlannedNode
from moyai.plan.pod_network.node_files import node_files
from moyai.plan.pod_network.sources import allow_sources, own_range
from moyai.spec.cluster_network import NetworkSpec


@dataclass(frozen=True, kw_only=True)
class BarePods:
    """``backend``: who makes the routes, as the agents' configuration says it."""

    network: NetworkSpec
    backend: Backend
    needs: Capability | None = None
    needs_sources: bool = True
    by_router: bool = False
    bare: bool = True
    ready: bool = True

    @property
    def conf(self) -> NetworkConf | None:
        return NetworkConf(str(self.network.pod_cidr), self.backend)

    def send_from(self, node: PlannedNode) -> tuple[SourceAddress, ...]:
        return own_range(node)

    def routes(self, nodes: Sequence[PlannedNode]) -> int:
        return 0

    def steps(self, nodes: Sequence[PlannedNode], *, existing: Existing, leaving: Sequence[str]) -> Iterator[s.Step]:
        yield from allow_sources(nodes, existing)

    def files(self, node: PlannedNode, *, mtu: int) -> Mapping[str, str]:
        return node_files(node, self.network, mtu=mtu, bare=True)
