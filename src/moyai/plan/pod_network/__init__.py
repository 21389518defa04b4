"""How pods of different nodes reach each other: a strategy for each mode, one module a mode.

A strategy says what it needs of the cloud (what ports may send from, routes), what a node is configured with, and what the
nodes' agents do. It is pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from moyai.cloud.capabilities import Capability
from moyai.cloud.model import SourceAddress
from moyai.plan.existing import Existing
from moyai.plan.node_network import NetworkConf
from moyai.plan.nodes import PlannedNode
from moyai.plan.pod_network.bgp import AnnouncedPods
from moyai.plan.pod_network.host_gw import GatewayPods
from moyai.plan.pod_network.routes import RoutedPods
from moyai.plan.pod_network.unmanaged import UnmanagedPods
from moyai.plan.pod_network.vxlan import TunnelledPods
from moyai.plan.steps import Step
from moyai.spec.model import ClusterSpec


class PodNetwork(Protocol):
    @property
    def needs(self) -> Capability | None:
        """What the cloud must offer."""
        ...

    @property
    def needs_sources(self) -> bool:
        """Whether ports must be allowed to send from other addresses than their own."""
        ...

    @property
    def by_router(self) -> bool:
        """Whether the cloud's router leads to pods, by routes that the route controller keeps."""
        ...

    @property
    def bare(self) -> bool:
        """Whether packets of pods are on the machines' network with the pods' own addresses."""
        ...

    @property
    def conf(self) -> NetworkConf | None:
        """The configuration of the nodes' agents; None where they have no part in it."""
        ...

    @property
    def ready(self) -> bool:
        """Whether nodes become Ready by what moyai does."""
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
    """The strategy that ``spec.network.mode`` names; ``auto`` has been decided before (``choice``)."""
    network = spec.network
    match network.mode:
        case "routes":
            return RoutedPods(network)
        case "host-gw":
            return GatewayPods(network=network)
        case "vxlan":
            return TunnelledPods(network)
        case "bgp":
            return AnnouncedPods(network=network)
        case "none":
            return UnmanagedPods(network)
        case "auto":
            raise ValueError("the mode of the pod network has not been decided")
