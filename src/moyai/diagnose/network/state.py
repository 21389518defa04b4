"""How a cluster's pod network stands: what each node's kernel and the cloud should have for its mode, and what is missing.

What a node should have is asked of the same planner that its agent uses, so that the two never disagree.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from moyai.diagnose.network.announcements import AnnouncedState
from moyai.diagnose.network.cloud_wire import CloudFacts
from moyai.diagnose.network.kernel_facts import MAIN, Kernel, LinkFacts
from moyai.diagnose.network.nft_rules import Ruleset
from moyai.kube.objects import Node
from moyai.plan.network_policy.table_names import GATE, TABLE
from moyai.plan.node_network import (
    ROUTE_PROTOCOL,
    AdjustTunnel,
    CreateTunnel,
    DeleteLink,
    Forwarding,
    KernelStep,
    LeftOut,
    Neighbour,
    NetworkConf,
    NodeNetwork,
    ObservedNetwork,
    PeerReader,
    PodRoute,
    Put,
    RouteDevice,
    Tunnel,
    TunnelAddress,
    Uplink,
    desired,
    difference,
    me_of,
    tunnel_name,
    without_obstacles,
)
from moyai.plan.pod_network import pod_network_of
from moyai.plan.route_budget import RouteBudget
from moyai.plan.route_table import desired_routes, within
from moyai.spec.model import ClusterSpec

#: So many things of a node are named; the others are counted.
_NAMED = 3


@dataclass(frozen=True)
class NodeState:
    """``uplink``, ``tunnel``: names of links, empty where there is none or nobody could look; their MTU in bytes. ``reached``:
    how many of ``others`` nodes this one has a way to, None where nobody knows."""

    name: str
    address: str
    pod_cidr: str
    ready: bool
    uplink: str = ""
    uplink_mtu: int = 0
    tunnel: str = ""
    tunnel_mtu: int = 0
    reached: int | None = None
    others: int = 0
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class NetworkState:
    """``why``: the reason for the mode, in a sentence. ``policy``: whether network policies are to be enforced. ``warnings``:
    what is no problem yet. ``announced``: Services whose addresses nodes announce."""

    cluster: str
    mode: str
    why: str
    policy: bool
    pod_range: str
    nodes: tuple[NodeState, ...]
    budget: RouteBudget
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    announced: tuple[AnnouncedState, ...] = ()

    def data(self) -> dict[str, Any]:
        limits = [{**asdict(one), "left": one.left} for one in self.budget.limits]
        budget = {"nodes_left": self.budget.nodes_left, "limits": limits}
        found = {**asdict(self), "budget": budget, "ok": not self.problems}
        if not self.announced:
            del found["announced"]
        return found


def node_states(
    spec: ClusterSpec, nodes: Sequence[Node], *, kernels: Mapping[str, Kernel], absent: Mapping[str, str], cloud: CloudFacts
) -> tuple[NodeState, ...]:
    """``kernels``: node → what its kernel has. ``absent``: node → why nobody knows it."""
    strategy = pod_network_of(spec)
    conf = strategy.conf
    routes = frozenset(cloud.router.routes if cloud.router else ())
    wanted = desired_routes(nodes, [str(spec.network.pod_cidr)]) if strategy.by_router and not cloud.unknown else {}
    lost = {name: route for route, name in wanted.items() if route not in routes}
    made: list[NodeState] = []
    for node in nodes:
        problems: list[str] = []
        kernel = kernels.get(node.name)
        address, pod_cidr = next(iter(node.internal_ips), ""), next(iter(node.pod_cidrs), "")
        if not node.ready:
            problems.append("it is not Ready")
        if not pod_cidr:
            problems.append("it has no pod range (spec.podCIDR): the cloud controller manager gives it one")
        if kernel is None:
            problems.append(f"its kernel cannot be read: {absent.get(node.name, 'no probe ran on it')}")
        if (route := lost.get(node.name)) is not None:
            problems.append(f"the router has no route {route.destination} via {route.nexthop}")
        for cidr in map(str, spec.services.announce.ranges):
            known = cloud.ports.get(node.name)
            if known is not None and not within(cidr, [one.address for one in known.send_from]):
                problems.append(f"port {known.name} may not send from {cidr}: the cloud drops answers for announced addresses")
        port = cloud.ports.get(node.name) if strategy.needs_sources and pod_cidr else None
        # the mode may have allowed a wider range
        if port is not None and not within(pod_cidr, [one.address for one in port.send_from]):
            problems.append(f"port {port.name} may not send from {pod_cidr}: the cloud drops what its pods send")
        reached = len(nodes) - 1 - len(set(lost) - {node.name}) if wanted else None
        if conf is not None and kernel is not None:
            reached, missing = _reached(node, nodes, kernel=kernel, conf=conf)
            problems += missing
        if kernel and not kernel.unreadable:
            rules = Ruleset(kernel.tables)
            if rules.has_policy(GATE):
                problems.append("its pods have no traffic: its agent has not applied network policies since it booted")
            elif spec.network.policy and not rules.has_table(TABLE):
                problems.append(f"network policies are not enforced: it has no table inet {TABLE}; does its agent run?")
        link = kernel.link_of(address) if kernel else None
        tunnel = _tunnel_link(kernel, conf) if kernel and conf and conf.backend == "vxlan" else None
        made.append(
            NodeState(
                name=node.name,
                address=address,
                pod_cidr=pod_cidr,
                ready=bool(node.ready),
                uplink=link.name if link else "",
                uplink_mtu=link.mtu if link else 0,
                tunnel=tunnel.name if tunnel else "",
                tunnel_mtu=tunnel.mtu if tunnel else 0,
                reached=reached,
                others=len(nodes) - 1,
                problems=tuple(problems),
            )
        )
    return tuple(made)


def _reached(node: Node, nodes: Sequence[Node], *, kernel: Kernel, conf: NetworkConf) -> tuple[int, list[str]]:
    """How many others the node's kernel has a way to, and what it lacks."""
    me = me_of(node, conf)
    if isinstance(me, LeftOut):
        return 0, [me.why]
    link = kernel.link_of(me.address)
    if link is None:
        return 0, [f"no link has its address {me.address}"]
    uplink = Uplink(link.name, link.index, link.mtu, kernel.subnets.get(link.index, ()))
    peers = PeerReader(conf).peers(nodes, me)
    want = desired(me, peers.peers, uplink=uplink, conf=conf)
    if want.failure:
        return 0, [want.failure]
    observed = _observed(kernel, conf, uplink=uplink)
    if conf.backend == "bgp":
        known = {route.destination for route in observed.foreign.values()}
        missing = [peer.name for peer in peers.peers if peer.pod_cidr not in known]
        problems = [f"it has no route to pods of {name}: `moyai bgp sessions` says more" for name in missing[:_NAMED]]
        return len(peers.peers) - len(missing), problems
    network, obstacles = without_obstacles(want.network, observed)
    lacking = tuple(difference(network, observed))
    short = {_key(step.entry) for step in lacking if isinstance(step, Put)}
    unreachable = {peer.name for peer in peers.peers if {peer.pod_cidr, peer.mac, _first(peer.pod_cidr)} & short}
    problems = [*_words(lacking), *(f"another program has a route to {route.destination}" for route in obstacles)]
    problems += [f"node {name} is left out: {why}" for name, why in {**peers.problems, **want.problems}.items()]
    waiting = len(nodes) - 1 - len(peers.peers) - len(peers.problems)
    if waiting:
        problems.append(f"{waiting} nodes have not announced themselves: does the agent run on them?")
    if any(isinstance(step, CreateTunnel | AdjustTunnel) for step in lacking):
        return 0, problems
    return len(peers.peers) - len(unreachable | set(want.problems)), problems


def _key(entry: object) -> str:
    match entry:
        case PodRoute():
            return entry.destination
        case Neighbour():
            return entry.address
        case Forwarding():
            return entry.mac
        case _:
            return ""


def _first(cidr: str) -> str:
    return cidr.partition("/")[0]


def _words(steps: Iterable[KernelStep]) -> list[str]:
    found = list(_each(steps))
    rest = [f"and {len(found) - _NAMED} more differences"] if len(found) > _NAMED else []
    return [*found[:_NAMED], *rest]


def _each(steps: Iterable[KernelStep]) -> Iterator[str]:
    for step in steps:
        match step:
            case DeleteLink(name):
                yield f"device {name} is not as it should be"
            case CreateTunnel(tunnel):
                yield f"device {tunnel.name} is missing"
            case AdjustTunnel(tunnel):
                yield f"device {tunnel.name} should be up with an MTU of {tunnel.mtu}"
            case _:
                yield f"{_named(step.entry)} is {'missing' if isinstance(step, Put) else 'left over'}"


def _named(entry: TunnelAddress | Neighbour | Forwarding | PodRoute) -> str:
    match entry:
        case TunnelAddress(address):
            return f"the tunnel's address {address}"
        case Neighbour(address, mac):
            return f"the neighbour {address} ({mac})"
        case Forwarding(mac, address):
            return f"the forwarding entry {mac} → {address}"
        case PodRoute(destination, gateway):
            return f"the route {destination}{f' via {gateway}' if gateway else ' (unreachable)'}"


def _tunnel_link(kernel: Kernel, conf: NetworkConf) -> LinkFacts | None:
    return next((one for one in kernel.links.values() if one.name == tunnel_name(conf.vni) and one.vxlan), None)


def _observed(kernel: Kernel, conf: NetworkConf, *, uplink: Uplink) -> ObservedNetwork:
    """The kernel's facts in the planner's words. The probe does not read learning and marks: they count as right."""
    link = _tunnel_link(kernel, conf) if conf.backend == "vxlan" else None
    index = link.index if link else -1

    def device(number: int) -> RouteDevice:
        return "" if not number else "tunnel" if number == index else "uplink" if number == uplink.index else "other"

    entries: set[TunnelAddress | Neighbour | Forwarding | PodRoute] = set()
    foreign: dict[tuple[object, ...], PodRoute] = {}
    for one in kernel.routes:
        if one.table != MAIN or one.kind not in ("unicast", "unreachable"):
            continue
        nowhere = one.kind == "unreachable"
        route = PodRoute(one.destination, one.gateway, "" if nowhere else device(one.index), one.metric)
        if one.protocol == ROUTE_PROTOCOL:
            entries.add(route)
        else:
            foreign[route.key] = route
    entries |= {TunnelAddress(address) for address, number in kernel.addresses.items() if number == index}
    for one in kernel.neighbours:
        if one.index == index and one.state == "permanent":
            entries.add(Neighbour(one.address, one.mac))
    for one in kernel.entries:
        if one.index == index and one.address:
            entries.add(Forwarding(one.mac, one.address))
    tunnel = None
    if link and link.vxlan:
        found = link.vxlan
        tunnel = Tunnel(
            link.name, found.vni, found.port, local=found.local, parent=found.parent, mac=link.mac, mtu=link.mtu, up=link.up
        )
    return ObservedNetwork(NodeNetwork(tunnel, frozenset(entries)), foreign=foreign)
