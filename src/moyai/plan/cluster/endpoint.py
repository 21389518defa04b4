"""Where the Kubernetes API is reached: a strategy, chosen by the spec and by what the cloud offers. From outside it is a
floating IP; on the machines' network it is the address of the only control plane, or a virtual one that control planes take in
turns. On a network that is reached as it is, nothing is added to that.

Where a cloud has no floating IPs, it is an entrance: a public address of the cloud's that leads to the control planes.
A load balancer of the cloud may have the address on the machines' network instead (``api_balancer``).
Another way (balancers of our own, a public address on the machine itself) is another class here, and one more case of
``endpoint_of``. It says which steps make it, what a control plane's machine must know before
it is made, and what must be done before anybody can reach the API.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from moyai.cloud.capabilities import Capability
from moyai.core.errors import Terminal
from moyai.plan import keys
from moyai.plan import steps as s
from moyai.plan.cluster.api_balancer import plan_balancer
from moyai.plan.cluster.network import MachineNetwork
from moyai.plan.cluster.situation import Situation
from moyai.plan.graph import Made
from moyai.plan.nodes import PlannedNode, virtual_address
from moyai.plan.rules import API_PORT
from moyai.spec.model import Cluster


class Endpoint(Protocol):
    def steps(self, now: Situation, network: MachineNetwork) -> Iterator[s.Step]:
        """What makes the endpoint. ``network``: the machines'."""
        ...

    def known_by(self) -> tuple[s.StepId, ...]:
        """What must be done before the endpoint's address is known, and with it certificates and kubeconfig."""
        ...

    def reachable_by(self) -> tuple[s.StepId, ...]:
        """What must be done before the API can answer there."""
        ...

    def names(self, made: Made) -> tuple[str, ...]:
        """Names and addresses that the API's certificate must carry for it."""
        ...

    @property
    def inside(self) -> str:
        """The address at which nodes reach the API."""
        ...

    @property
    def fixed(self) -> str:
        """The address at which everybody reaches it, where no object of the cloud gives it one; else empty."""
        ...


@dataclass(frozen=True)
class FloatingIPEndpoint:
    """``node``: the control plane whose port has the floating IP. ``inside``: its address."""

    node: str
    inside: str
    fixed: str = ""

    def steps(self, now: Situation, network: MachineNetwork) -> Iterator[s.Step]:
        found = now.existing.floating_ip
        if found is None:
            yield s.CreateFloatingIP(
                key=keys.FLOATING_IP,
                network_id=now.external_network.id,
                description=keys.api_address_description(now.recorded.uid),
            )
        port = now.existing.ports.get(self.node)
        if found is None or not found.port_id or port is None or found.port_id != port.id:
            # a cloud attaches it only where the network leads out
            after = (s.created(keys.FLOATING_IP), s.created(keys.port(self.node)), *network.leads_out())
            yield s.AttachFloatingIP(key=keys.FLOATING_IP, after=after, node=self.node)
        yield from _kubeconfig(now, found.address if found else "", made=s.created(keys.FLOATING_IP))

    def known_by(self) -> tuple[s.StepId, ...]:
        return (s.created(keys.FLOATING_IP),)

    def reachable_by(self) -> tuple[s.StepId, ...]:
        attached = s.StepId(s.Verb.ATTACH, keys.FLOATING_IP)
        return (*self.known_by(), attached, s.StepId(s.Verb.WRITE, keys.KUBECONFIG))

    def names(self, made: Made) -> tuple[str, ...]:
        return (made.api_address,)


@dataclass(frozen=True)
class VirtualEndpoint(FloatingIPEndpoint):
    """``node``: the name of the port that keeps the virtual address; it has no machine, and the cloud's router learns from
    whichever machine holds the address where that is. ``inside``: the virtual address."""

    def steps(self, now: Situation, network: MachineNetwork) -> Iterator[s.Step]:
        yield from _reserve(now, self.node, address=self.inside)
        yield from super().steps(now, network)

    def known_by(self) -> tuple[s.StepId, ...]:
        # the address is reserved before a machine can take it
        return (*super().known_by(), s.created(keys.port(self.node)))

    def names(self, made: Made) -> tuple[str, ...]:
        return (*super().names(made), self.inside)


@dataclass(frozen=True)
class BalancedEndpoint(VirtualEndpoint):
    """``node``: the name of the port that keeps the address, and that a load balancer of the cloud uses. ``inside``: that
    address. It is known before the load balancer is built, so machines boot meanwhile."""

    def steps(self, now: Situation, network: MachineNetwork) -> Iterator[s.Step]:
        yield from super().steps(now, network)
        yield from plan_balancer(now, port=self.node)

    def reachable_by(self) -> tuple[s.StepId, ...]:
        return (*super().reachable_by(), s.created(keys.API_BALANCER), s.StepId(s.Verb.SET, keys.API_BALANCER))


@dataclass(frozen=True)
class EntranceEndpoint:
    """``nodes``: all control planes. ``inside``: the address of the only one, or the virtual one, which is below all addresses
    of nodes: the plan gives it to nobody else."""

    nodes: tuple[str, ...]
    inside: str
    fixed: str = ""

    def steps(self, now: Situation, network: MachineNetwork) -> Iterator[s.Step]:
        found = now.existing.entrance
        if found is None:
            name = keys.object_name(now.cluster.name, keys.ENTRANCE)
            yield s.CreateEntrance(key=keys.ENTRANCE, name=name, port=API_PORT)
        servers = {name: server.id for name, server in now.existing.servers.items() if name in self.nodes and now.lives(name)}
        if found is None or len(servers) < len(self.nodes) or found.server_ids != frozenset(servers.values()):
            made = (s.created(keys.server(name)) for name in self.nodes)
            # a cloud may leave out a machine that does not run yet
            after = (s.created(keys.ENTRANCE), *made, s.reached(s.MACHINES))
            yield s.LeadEntrance(key=keys.ENTRANCE, after=after, nodes=self.nodes)
        yield from _kubeconfig(now, found.address if found else "", made=s.created(keys.ENTRANCE))

    def known_by(self) -> tuple[s.StepId, ...]:
        return (s.created(keys.ENTRANCE),)

    def reachable_by(self) -> tuple[s.StepId, ...]:
        return (*self.known_by(), s.StepId(s.Verb.SET, keys.ENTRANCE), s.StepId(s.Verb.WRITE, keys.KUBECONFIG))

    def names(self, made: Made) -> tuple[str, ...]:
        return tuple(dict.fromkeys((made.api_address, self.inside)))


@dataclass(frozen=True)
class NodeEndpoint:
    """On a network that is reached as it is: the address ``inside`` of the control plane ``node``, or a virtual one, whose port
    ``node`` is. The port of a virtual address keeps it from others. On another project's network nobody may choose an address,
    and the virtual one is among those that the cloud gives to nobody."""

    node: str
    inside: str
    virtual: bool

    @property
    def fixed(self) -> str:
        return self.inside

    def steps(self, now: Situation, network: MachineNetwork) -> Iterator[s.Step]:
        if self.virtual and not now.given.foreign:
            yield from _reserve(now, self.node, address=self.inside)
        yield from _kubeconfig(now, self.inside, made=s.created(keys.port(self.node)))

    def known_by(self) -> tuple[s.StepId, ...]:
        return (s.created(keys.port(self.node)),)

    def reachable_by(self) -> tuple[s.StepId, ...]:
        return (*self.known_by(), s.StepId(s.Verb.WRITE, keys.KUBECONFIG))

    def names(self, made: Made) -> tuple[str, ...]:
        return (self.inside,)


def _reserve(now: Situation, name: str, *, address: str) -> Iterator[s.Step]:
    if name not in now.existing.ports:
        after = (s.created(keys.NETWORK), s.created(keys.SUBNET))
        yield s.ReserveAddress(key=keys.port(name), after=after, name=name, address=address)


def _kubeconfig(now: Situation, address: str, *, made: s.StepId) -> Iterator[s.Step]:
    """``address``: that the API has, empty for none yet. ``made``: what gives it one."""
    due = now.recorded.kubeconfig_due
    if not address or address != now.recorded.api_address:
        moved = "the API gets another address" if now.recorded.api_address else ""
        yield s.WriteKubeconfig(key=keys.KUBECONFIG, after=(made,), why=moved)
    elif due is not None:
        yield s.WriteKubeconfig(key=keys.KUBECONFIG, why=f"its certificate ends on {due.end_day}")


def endpoint_of(cluster: Cluster, planes: Sequence[PlannedNode], *, capabilities: frozenset[Capability]) -> Endpoint:
    """The endpoint of a cluster with these control planes, on a cloud that offers this. Raises Terminal where there is none."""
    check_endpoint(cluster, capabilities)
    if cluster.spec.network.disable_external_network:
        address = virtual_address(cluster.spec)
        port = keys.virtual_port(cluster.name).name if address else planes[0].name
        return NodeEndpoint(port, address or planes[0].address, virtual=bool(address))
    if Capability.FLOATING_IPS not in capabilities:
        return EntranceEndpoint(tuple(node.name for node in planes), virtual_address(cluster.spec) or planes[0].address)
    if address := virtual_address(cluster.spec):
        kind = BalancedEndpoint if cluster.spec.control_plane.balanced else VirtualEndpoint
        return kind(keys.virtual_port(cluster.name).name, address)
    return FloatingIPEndpoint(planes[0].name, planes[0].address)


def check_endpoint(cluster: Cluster, capabilities: frozenset[Capability]) -> None:
    """Raises Terminal where no strategy leads to the API of a cluster on a cloud that offers this."""
    cloud = cluster.spec.cloud
    if not cluster.spec.network.disable_external_network and not {Capability.FLOATING_IPS, Capability.ENTRANCES} & capabilities:
        raise Terminal(
            f"cloud {cloud} has no {Capability.FLOATING_IPS}: moyai leads to the Kubernetes API in no other way",
            hint="set spec.network.disableExternalNetwork and name a network of yours in spec.network.existing, or use a cloud "
            "with floating IPs",
        )


def renewal_notes(steps: Iterable[s.Step]) -> Iterator[str]:
    """What a user does about a kubeconfig that is written again, of which copies may exist elsewhere."""
    if any(isinstance(step, s.WriteKubeconfig) and step.why for step in steps):
        moved = any(isinstance(step, s.CreateFloatingIP | s.CreateEntrance) for step in steps)
        ends = "lead to the old address" if moved else "end soon"
        yield f"copies of the old kubeconfig {ends}: `moyai kubeconfig --write` puts the renewed one into your own"
