"""How pods of different nodes reach each other: a strategy for each mode, one module a mode.

A strategy says what it needs of the cloud (what ports may send from, routes), and what a node is configured with. It is pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from moyai.cloud.capabilities import Capability
from moyai.cloud.model import SourceAddress
from moyai.plan.existing import Existing
from moyai.plan.nodes import PlannedNode
from moyai.plan.pod_network.routes import RoutedPods
from moyai.plan.steps import Step
from moyai.spec.model import ClusterSpec


class PodNetwork(Protocol):
    @property
    def needs(self) -> Capability | None:
        """What the cloud must offer."""
        ...

    def send_from(self, node: PlannedNode) -> tuple[SourceAddress, ...]:
        """Ranges that the node's port must be allowed to send from."""
        ...

    def steps(self, nodes: Sequence[PlannedNode], *, existing: Existing, leaving: Sequence[str]) -> Iterator[Step]:
        """What is to be done in the cloud."""
        ...

    def routes(self, nodes: Sequence[PlannedNode]) -> int:
        """How many routes of the router it takes."""
        ...

    def files(self, node: PlannedNode, *, mtu: int) -> Mapping[str, str]:
        """What a node is configured with: path without the leading slash → text. ``mtu``: of the machines' network."""
        ...


def pod_network_of(spec: ClusterSpec) -> PodNetwork:
    """The strategy that ``spec.network.mode`` names."""
    return RoutedPods(spec.network)
