"""Mode ``none``: the user brings the pod network, a CNI plugin of their own.

The cloud lets every node send from the whole pod range, because a plugin may divide it in its own way. A node gets no CNI
configuration and no address translation; only the cloud's metadata service stays out of pods' reach.
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
from moyai.plan.pod_network.node_files import RULES, rules
from moyai.plan.pod_network.sources import allow_sources, besides_pods
from moyai.spec.cluster_network import NetworkSpec


@dataclass(frozen=True)
class UnmanagedPods:
    network: NetworkSpec
    needs: Capability | None = None
    needs_sources: bool = True
    by_router: bool = False
    bare: bool = True
    conf: NetworkConf | None = None
    ready: bool = False

    def send_from(self, node: PlannedNode) -> tuple[SourceAddress, ...]:
        return (SourceAddress(str(self.network.pod_cidr)), *besides_pods(node))

    def routes(self, nodes: Sequence[PlannedNode]) -> int:
        return 0

    def steps(self, nodes: Sequence[PlannedNode], *, existing: Existing, leaving: Sequence[str]) -> Iterator[s.Step]:
        # what the user changes in the ports for their plugin stays
        yield from allow_sources(nodes, existing, send_from=besides_pods, keep=True)

    def files(self, node: PlannedNode, *, mtu: int) -> Mapping[str, str]:
        return {RULES: rules(self.network, masquerade=False)}
