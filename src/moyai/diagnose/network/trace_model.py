"""What a trace is made of: the places that a packet can come from or go to, the facts, and the hops that are found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from moyai.diagnose.network.cloud_wire import CloudFacts
from moyai.diagnose.network.kernel_facts import Kernel
from moyai.kube.objects import NetworkPolicy, Node, Service
from moyai.kube.objects.cluster_policy import ClusterPolicy
from moyai.plan.network_policy.pod_index import PodIndex

EndKind = Literal["pod", "machine", "service", "outside"]
#: ``left``: for the world outside, where nobody can look. ``unknown``: a node whose kernel could not be read is on the way.
Outcome = Literal["delivered", "dropped", "left", "unknown"]


#: Where a hop is that no node has.
CLOUD = "cloud"


@dataclass(frozen=True)
class PacketEnd:
    """``name``: namespace/name, a node's name, or the address itself. ``node``: where it is, empty for Services and outside."""

    kind: EndKind
    name: str
    address: str
    node: str = ""

    @property
    def text(self) -> str:
        return self.address if self.kind == "outside" else f"{self.kind} {self.name} ({self.address})"


@dataclass(frozen=True)
class ServiceFacts:
    """``addresses``: its cluster IPs, then those outside that nodes translate, too. ``ports``: (protocol, number).
    ``node_ports``: the same of the ports that every node has for it."""

    namespace: str
    name: str
    addresses: tuple[str, ...]
    ports: tuple[tuple[str, int], ...]
    node_ports: tuple[tuple[str, int], ...] = ()

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True)
class World:
    """``kernels``: node → what its kernel has. ``absent``: node → why its kernel is not known. ``pods``: of all nodes.
    ``enforces``: whether the cluster's agents are to enforce network policies."""

    nodes: tuple[Node, ...]
    kernels: Mapping[str, Kernel]
    pod_range: str
    node_range: str
    absent: Mapping[str, str] = field(default_factory=dict[str, str])
    pods: PodIndex = field(default_factory=PodIndex)
    policies: tuple[NetworkPolicy, ...] = ()
    cluster_policies: tuple[ClusterPolicy, ...] = ()
    enforces: bool = True
    services: tuple[ServiceFacts, ...] = ()
    cloud: CloudFacts = field(default_factory=CloudFacts)

    def node_at(self, address: str) -> str:
        """The node with this address, empty for none."""
        return next((one.name for one in self.nodes if address in one.internal_ips), "")


@dataclass(frozen=True)
class Hop:
    """``where``: a node, or ``cloud``. ``kind``: a word for programs: leave, service, route, policy, masquerade, encapsulate,
    wire, decapsulate, deliver, filter, dropped."""

    where: str
    kind: str
    text: str


@dataclass(frozen=True)
class Trace:
    """``why``, ``hint``: where the packet does not arrive. ``mtu``: of the largest packet that fits through, in bytes; 0 where
    no link was passed. ``back``: the way of the answer, None where there is none to follow. ``notes``: sentences.

    ``unread``: the node whose kernel is missing, where that is why the trace ends."""

    hops: tuple[Hop, ...]
    outcome: Outcome
    why: str = ""
    hint: str = ""
    mtu: int = 0
    back: Trace | None = None
    notes: tuple[str, ...] = ()
    unread: str = ""

    @property
    def missing(self) -> str:
        """The node whose kernel the trace needs to go on, empty for none."""
        return self.unread or (self.back.missing if self.back else "")

    @property
    def arrives(self) -> bool:
        """Whether the packet arrives and its answer, too, as far as anybody can see."""
        return self.outcome in ("delivered", "left") and (self.back is None or self.back.outcome == "delivered")

    def data(self) -> dict[str, Any]:
        return {**asdict(self), "arrives": self.arrives}


def service_facts(service: Service) -> ServiceFacts:
    # a load balancer in mode Proxy is reached from inside as from outside
    balanced = (one.ip for one in service.ingress if one.ip_mode != "Proxy")
    addresses = (*service.cluster_ips, *service.external_ips, *balanced)
    ports = [(one.protocol.lower(), one) for one in service.ports]
    return ServiceFacts(
        service.namespace,
        service.name,
        tuple(one for one in addresses if one.count(".") == 3),
        tuple((protocol, one.port) for protocol, one in ports),
        tuple((protocol, one.node_port) for protocol, one in ports if one.node_port),
    )
