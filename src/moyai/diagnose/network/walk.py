"""The way of one packet, hop by hop, by what the kernels of the nodes and the cloud have. Pure.

At a node the order is the kernel's: translation of Services, the route, the chains at hook forward, masquerading, the link. A
packet that a node sends itself does not pass hook forward. Always holds: a hop is reported before the packet is dropped there;
the walk ends, also where routes lead in a circle.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NoReturn

from moyai.core.ids import AGENT
from moyai.diagnose.network.cloud_wire import contains, refused_by_firewall, refused_to_send, route_of
from moyai.diagnose.network.kernel_facts import Kernel, LinkFacts, RouteFacts, best
from moyai.diagnose.network.nft_rules import OWN, PROXY, Packet, Ruleset
from moyai.diagnose.network.trace_model import CLOUD, Hop, Outcome, PacketEnd, Trace, World
from moyai.plan.network_policy.evaluation import Policies, evaluate
from moyai.plan.network_policy.table_names import GATE, TABLE, policy_chain
from moyai.plan.node_network import OVERHEAD

_MOST_NODES = 6
_AGENT = f"does the node's agent run? `moyai kubectl -n kube-system get pods -l app.kubernetes.io/name={AGENT} -o wide`"
_SWITCHED_OFF = "this cluster enforces no network policies: `moyai up` with `spec.network.policy: true` switches them on"
_GATED = "has booted, and its agent has not applied network policies since: until then its pods have no traffic"
_PROXY_HINT = "does kube-proxy run there? `moyai kubectl -n kube-system get pods -l k8s-app=kube-proxy -o wide`"


class _WayEnds(Exception):
    def __init__(self, outcome: Outcome, why: str = "", *, hint: str = "", unread: str = "", where: str = "") -> None:
        super().__init__(why)
        self.outcome: Outcome = outcome
        self.why, self.hint, self.unread, self.where = why, hint, unread, where


def follow(world: World, source: PacketEnd, *, packet: Packet) -> Trace:
    """The way of a connection's first packet from ``source``, and of its answer. ``packet.source`` is chosen by the kernel
    where the source is a machine."""
    there = _Walk(world)
    found = there.walk(source, packet)
    if found.outcome != "delivered" or there.at is None:
        return found
    place, arrived = there.at, there.packet
    back = _Walk(world, answer=True, masqueraded=there.masqueraded)
    answer = replace(arrived, source=arrived.destination, destination=arrived.source, port=0)
    return replace(found, back=back.walk(place, answer))


class _Walk:
    """``answer``: of a connection that exists, so that policies, Services and the firewall have decided already.
    ``masqueraded``: whether the packet is, or that of the answer was."""

    def __init__(self, world: World, *, answer: bool = False, masqueraded: bool = False) -> None:
        self.masqueraded = masqueraded
        self._world, self._answer = world, answer
        self._hops: list[Hop] = []
        self._notes: list[str] = []
        self._mtu = 0
        self._marked = False
        self._rulesets: dict[str, Ruleset] = {}
        self.packet = Packet("", "")
        #: Where the packet was delivered.
        self.at: PacketEnd | None = None

    def walk(self, source: PacketEnd, packet: Packet) -> Trace:
        self.packet = packet
        try:
            self._begin(source)
        except _WayEnds as end:
            if end.outcome == "dropped":
                self._hop(end.where or (self._hops[-1].where if self._hops else source.node), "dropped", text=end.why)
            return Trace(
                tuple(self._hops),
                end.outcome,
                end.why,
                end.hint,
                mtu=self._mtu,
                notes=tuple(self._notes),
                unread=end.unread,
            )

    def _begin(self, source: PacketEnd) -> NoReturn:
        node, kernel = source.node, self._kernel(source.node)
        device, own = "", source.kind == "machine"
        if own:
            route = kernel.lookup(self.packet.destination)
            if not self.packet.source:
                self.packet = replace(self.packet, source=kernel.source_for(route) if route else source.address)
            self._service(node)
        else:
            device = self._leave(source, kernel)
        passed: list[tuple[str, str]] = []
        while True:
            if (node, self.packet.destination) in passed or len(passed) > _MOST_NODES:
                ways = " → ".join(one for one, _ in passed)
                raise _WayEnds("dropped", f"routes lead in a circle: {ways} → {node}", where=node)
            passed.append((node, self.packet.destination))
            node, device = self._forward(node, device, own=own)
            own = False

    def _leave(self, source: PacketEnd, kernel: Kernel) -> str:
        """Out of the pod; returns the device by which the packet comes to the node."""
        pod = kernel.pods.get(source.address)
        if pod is None:
            if kernel.searched:
                raise _WayEnds("dropped", f"no pod on {source.node} has the address {source.address}: is the pod running?")
            self._note(f"the pods' namespaces on {source.node} could not be looked through")
            self._service(source.node)
            return ""
        self._through(pod.link)
        veth = kernel.veth_of(pod)
        bridge = kernel.links.get(veth.master) if veth and veth.master else veth
        route = best(pod.routes, self.packet.destination)
        if not pod.link.up or veth is None or not veth.up:
            raise _WayEnds("dropped", f"the link {pod.link.name} of {source.text} is down")
        if route is None:
            raise _WayEnds("dropped", f"{source.text} has no route to {self.packet.destination}")
        device = bridge.name if bridge else veth.name
        on = f" of bridge {device}" if bridge is not veth else ""
        self._hop(
            source.node, "leave", text=f"{source.text}: {pod.link.name} (MTU {pod.link.mtu}) → {veth.name}{on}; {route.text}"
        )
        self._service(source.node)
        return device

    def _service(self, node: str) -> None:
        """Before the route is looked up: does kube-proxy translate the packet?"""
        if self._answer:
            return
        wanted = (self.packet.protocol, self.packet.port)
        service = next((one for one in self._world.services if self.packet.destination in one.addresses), None)
        if service is None:
            by_port = next((one for one in self._world.services if wanted in one.node_ports), None)
            if by_port and self._world.node_at(self.packet.destination):
                raise _WayEnds("unknown", f"port {wanted[1]} is a node port of Service {by_port.key}, which is not followed")
            return
        if wanted not in service.ports:
            known = ", ".join(f"{number}/{protocol}" for protocol, number in service.ports)
            raise _WayEnds("dropped", f"Service {service.key} has no port {wanted[1]}/{wanted[0]}, it has {known or 'none'}")
        if self._world.kernels[node].unreadable:
            raise _WayEnds("unknown", f"nftables of {node} cannot be read: {self._world.kernels[node].unreadable}")
        rules = self._rules(node)
        if not rules.has_table(PROXY):
            raise _WayEnds("dropped", f"kube-proxy has no table in nftables on {node}", hint=_PROXY_HINT)
        found = rules.translate(self.packet)
        if found.lack == "empty":
            hint = f"`moyai kubectl -n {service.namespace} get endpointslices,pods` shows why"
            raise _WayEnds(
                "dropped", f"kube-proxy on {node} refuses it: Service {service.key} has no ready endpoint", hint=hint
            )
        if found.lack:
            raise _WayEnds(
                "dropped", f"kube-proxy on {node} does not know Service {service.key} {self.packet.target}", hint=_PROXY_HINT
            )
        address, port = found.endpoints[0]
        listed = ", ".join(f"{one}:{number}" for one, number in found.endpoints)
        chosen = f"one of {len(found.endpoints)} endpoints, {listed}; followed: {address}:{port}"
        only = f"its only endpoint {address}:{port}"
        choice = chosen if len(found.endpoints) > 1 else only
        self._hop(node, "service", text=f"Service {service.key} {self.packet.target}: kube-proxy chooses {choice}")
        self._marked = found.masqueraded
        self.packet = replace(self.packet, destination=address, port=port)

    def _forward(self, node: str, device: str, *, own: bool) -> tuple[str, str]:
        """Through one node. Returns the next one, and the device by which the packet comes there."""
        kernel, packet = self._kernel(node), self.packet
        route = kernel.lookup(packet.destination, source=packet.source, device=device)
        if route is None:
            raise _WayEnds("dropped", f"{node} has no route to {packet.destination}", where=node)
        if route.kind == "local":
            beyond = ", which hands the answer on to whom it has masqueraded" if self._answer and self.masqueraded else ""
            self._hop(node, "deliver", text=f"{packet.destination} is an address of {node} itself{beyond}")
            self.at = PacketEnd("machine", node, packet.destination, node)
            raise _WayEnds("delivered")
        link = kernel.links.get(route.index)
        if route.kind != "unicast" or link is None:
            self._hop(node, "route", text=f"route {route.text}")
            hint = _AGENT if contains((self._world.pod_range,), packet.destination) else ""
            raise _WayEnds("dropped", f"{node} has no route to {packet.destination} but {route.text}", hint=hint)
        self._hop(node, "route", text=f"route {route.text} dev {link.name} (MTU {link.mtu})")
        if not link.up:
            raise _WayEnds("dropped", f"{link.name} of {node} is down", where=node)
        if not own:
            if not kernel.forwards:
                raise _WayEnds("dropped", f"{node} forwards nothing: net.ipv4.ip_forward is 0", where=node)
            self._policies(node, kernel)
        self._masquerade(node, kernel, route=route)
        self._through(link)
        if link.kind == "vxlan":
            return self._encapsulate(node, kernel, route=route, link=link)
        pod = kernel.pods.get(self.packet.destination)
        if not route.gateway and (link.kind == "bridge" or (pod is not None and pod.link.peer == link.index)):
            self._deliver(node, kernel, link=link)
        return self._wire(node, kernel, route=route, link=link)

    def _policies(self, node: str, kernel: Kernel) -> None:
        if self._answer:
            return
        packet, pods, rules = self.packet, self._world.pods, self._rules(node)
        if rules.rejects(packet):
            why = f"table ip {OWN} of {node} rejects it: no pod reaches {packet.destination}, where clouds have their metadata"
            raise _WayEnds("dropped", why, where=node)
        of_pods = any(contains((self._world.pod_range,), one) for one in (packet.source, packet.destination))
        if of_pods and rules.has_policy(GATE):
            raise _WayEnds("dropped", f"{node} {_GATED}", hint=_AGENT, where=node)
        for incoming, subject in ((False, packet.source), (True, packet.destination)):
            pod = pods.owner(subject)
            if pod is None or pod.node != node:
                continue
            found = evaluate(
                Policies(self._world.policies, self._world.cluster_policies),
                pods,
                source=packet.source,
                destination=packet.destination,
                port=(packet.protocol, packet.port),
                incoming=incoming,
            )
            decided = found.decided
            if not found.selecting and not decided:
                continue
            what = f"{'ingress' if incoming else 'egress'} of pod {pod.key}"
            tier = f"rule {decided.rule} of ClusterNetworkPolicy {decided.policy}" if decided else ""
            selecting = tier or ", ".join(found.selecting)
            if not kernel.unreadable and not rules.has_table(TABLE):
                self._hop(node, "policy", text=f"{what}: {selecting} has no effect, {node} has no table inet {TABLE}")
                self._note(f"{node}: {_AGENT}" if self._world.enforces else _SWITCHED_OFF)
            elif found.permitted:
                self._hop(node, "policy", text=f"{what}: permitted by {tier or ', '.join(found.permitting)}")
            elif tier:
                self._hop(node, "policy", text=f"{what}: denied by {tier}")
                raise _WayEnds("dropped", f"{tier} denies {packet.target} from {packet.source}")
            else:
                late = [key for key in found.selecting if not rules.has_policy(policy_chain(incoming, key))]
                waits = f" ({', '.join(late)} is not in the kernel yet)" if late and not kernel.unreadable else ""
                self._hop(node, "policy", text=f"{what}: selected by {selecting}{waits}")
                raise _WayEnds(
                    "dropped", f"no NetworkPolicy permits {packet.target} from {packet.source}: {selecting} selects it"
                )
        for chain in rules.closed("forward"):
            self._note(f"{node}: {chain} drops what its rules do not accept; they were not looked at")

    def _masquerade(self, node: str, kernel: Kernel, *, route: RouteFacts) -> None:
        if self._answer:
            return
        table = PROXY if self._marked else OWN
        if not self._marked and not self._rules(node).masquerades(self.packet):
            return
        self._marked = False
        source = kernel.source_for(route)
        if source and source != self.packet.source:
            self._hop(node, "masquerade", text=f"{self.packet.source} becomes {source} (table ip {table})")
            self.packet, self.masqueraded = replace(self.packet, source=source), True

    def _deliver(self, node: str, kernel: Kernel, *, link: LinkFacts) -> NoReturn:
        address = self.packet.destination
        owner, pod = self._world.pods.owner(address), kernel.pods.get(address)
        name = owner.key if owner else "of no name"
        if pod is None and kernel.searched:
            known = f"; Kubernetes has pod {owner.key} with it on {owner.node}" if owner else ""
            raise _WayEnds("dropped", f"no pod on {node} has the address {address}{known}", where=node)
        veth = kernel.veth_of(pod) if pod else None
        if pod:
            self._through(pod.link)
            if not pod.link.up or (veth and not veth.up):
                raise _WayEnds("dropped", f"the link of pod {name} is down on {node}", where=node)
        way = f"{link.name} → {veth.name}" if veth and veth is not link else link.name
        inside = f" → {pod.link.name} of pod {name} (MTU {pod.link.mtu})" if pod else f" → pod {name}"
        self._hop(node, "deliver", text=way + inside)
        self.at = PacketEnd("pod", name, address, node)
        raise _WayEnds("delivered")

    def _encapsulate(self, node: str, kernel: Kernel, *, route: RouteFacts, link: LinkFacts) -> tuple[str, str]:
        tunnel = link.vxlan
        assert tunnel is not None, "its kind says so"
        gateway = route.gateway or self.packet.destination
        neighbour = kernel.neighbour(link.index, gateway)
        if neighbour is None or not neighbour.mac:
            raise _WayEnds("dropped", f"{link.name} of {node} has no neighbour entry for {gateway}", hint=_AGENT)
        entry = kernel.entry(link.index, neighbour.mac)
        if entry is None:
            raise _WayEnds(
                "dropped", f"{link.name} of {node} has no forwarding entry for {neighbour.mac} ({gateway})", hint=_AGENT
            )
        outer = Packet(tunnel.local, entry.address, "udp", port=tunnel.port)
        way = kernel.lookup(outer.destination, source=outer.source)
        beneath = kernel.links.get(way.index) if way else None
        if way is None or beneath is None or not beneath.up:
            raise _WayEnds("dropped", f"{node} has no way to {outer.destination}, the other end of {link.name}")
        text = f"{link.name} puts it into VXLAN: VNI {tunnel.vni}, {outer.source} → {outer.destination} UDP {tunnel.port}"
        self._hop(node, "encapsulate", text=f"{text}, dev {beneath.name} (MTU {beneath.mtu})")
        self._fits(beneath.mtu - OVERHEAD)
        peer = self._world.node_at(outer.destination)
        if not peer:
            raise _WayEnds(
                "dropped", f"no node has the address {outer.destination} that {link.name} of {node} sends to", hint=_AGENT
            )
        self._cross(node, peer, kernel=kernel, link=beneath, packet=outer, hop=way.gateway or outer.destination)
        far = self._kernel(peer)
        same = [one for one in far.links.values() if one.vxlan and one.vxlan.port == tunnel.port]
        there = next((one for one in same if one.vxlan and one.vxlan.vni == tunnel.vni), None)
        if there is None:
            others = f", it has VNI {', '.join(str(one.vxlan.vni) for one in same if one.vxlan)}" if same else ""
            raise _WayEnds(
                "dropped",
                f"{peer} has no VXLAN device with VNI {tunnel.vni} on UDP {tunnel.port}{others}",
                hint=_AGENT,
                where=peer,
            )
        if not there.up:
            raise _WayEnds("dropped", f"{there.name} of {peer} is down", hint=_AGENT, where=peer)
        if there.mac != neighbour.mac:
            raise _WayEnds(
                "dropped", f"the frame is for {neighbour.mac}, {there.name} of {peer} has {there.mac}", hint=_AGENT, where=peer
            )
        self._hop(peer, "decapsulate", text=f"{there.name} (MTU {there.mtu}) takes it out of VXLAN, VNI {tunnel.vni}")
        return peer, there.name

    def _wire(self, node: str, kernel: Kernel, *, route: RouteFacts, link: LinkFacts) -> tuple[str, str]:
        packet, cloud = self.packet, self._world.cloud
        hop = route.gateway or packet.destination
        peer = self._world.node_at(hop)
        if peer:
            self._cross(node, peer, kernel=kernel, link=link, packet=packet, hop=hop)
            return peer, self._arrival(peer, hop)
        inside = contains((self._world.pod_range, self._world.node_range), packet.destination)
        if inside and route.gateway and cloud.unknown:
            raise _WayEnds("unknown", f"the cloud, whose router has the next route, was not asked: {cloud.unknown}")
        if not route.gateway or not inside or cloud.router is None:
            self._sent(node, packet)
            self._hop(node, "wire", text=f"leaves the cluster by {hop} on {link.name}")
            raise _WayEnds("left")
        self._sent(node, packet)
        router = cloud.router
        near = contains((self._world.node_range,), packet.destination)
        beyond = packet.destination if near else route_of(router, packet.destination)
        if not beyond:
            hint = "the cloud controller manager keeps the routes; `moyai net status` compares them with the nodes"
            raise _WayEnds("dropped", f"router {router.name} has no route to {packet.destination}", hint=hint, where=CLOUD)
        self._hop(CLOUD, "route", text=f"router {router.name}: {packet.destination} via {beyond}")
        peer = self._world.node_at(beyond)
        if not peer:
            raise _WayEnds("dropped", f"no node has the address {beyond} that router {router.name} sends to", where=CLOUD)
        self._guard(node, peer, packet=packet)
        self._hop(CLOUD, "wire", text=f"machines' network: router {router.name} → {peer}")
        return peer, self._arrival(peer, beyond)

    def _cross(self, node: str, peer: str, *, kernel: Kernel, link: LinkFacts, packet: Packet, hop: str) -> None:
        """From machine to machine: what the cloud lets pass."""
        known = kernel.neighbour(link.index, hop)
        if known is not None and known.state == "failed":
            raise _WayEnds("dropped", f"nobody answers {node}'s ARP requests for {hop} ({peer}): does the machine run?")
        self._sent(node, packet)
        self._guard(node, peer, packet=packet)
        asked = (
            f"the cloud was not asked: {self._world.cloud.unknown}" if self._world.cloud.unknown else "security groups allow it"
        )
        self._hop(CLOUD, "wire", text=f"machines' network: {node} → {peer}{'' if self._answer else f' ({asked})'}")

    def _sent(self, node: str, packet: Packet) -> None:
        if why := refused_to_send(self._world.cloud, node, source=packet.source):
            hint = "`moyai up` brings the ports to what the mode needs"
            raise _WayEnds("dropped", f"the cloud drops it: {why}", hint=hint, where=CLOUD)

    def _guard(self, node: str, peer: str, *, packet: Packet) -> None:
        # an answer belongs to a connection that the firewall knows; what carries it through a tunnel does not
        known = self._answer and packet is self.packet
        if not known and (why := refused_by_firewall(self._world.cloud, node, receiver=peer, packet=packet)):
            raise _WayEnds("dropped", f"the cloud drops it: {why}", where=CLOUD)

    def _arrival(self, node: str, address: str) -> str:
        link = self._kernel(node).link_of(address)
        if link is None:
            raise _WayEnds("dropped", f"no link of {node} has its address {address}", where=node)
        self._through(link)
        return link.name

    def _rules(self, node: str) -> Ruleset:
        if node not in self._rulesets:
            self._rulesets[node] = Ruleset(self._world.kernels[node].tables)
        return self._rulesets[node]

    def _kernel(self, node: str) -> Kernel:
        kernel = self._world.kernels.get(node)
        if kernel is None:
            why = self._world.absent.get(node, "no probe ran on it")
            raise _WayEnds("unknown", f"the kernel of {node} cannot be read: {why}", unread=node)
        return kernel

    def _through(self, link: LinkFacts) -> None:
        self._fits(link.mtu)

    def _fits(self, mtu: int) -> None:
        self._mtu = min(self._mtu or mtu, mtu)

    def _hop(self, where: str, kind: str, *, text: str) -> None:
        self._hops.append(Hop(where, kind, text))

    def _note(self, text: str) -> None:
        if text not in self._notes:
            self._notes.append(text)
