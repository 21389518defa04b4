"""Nodes with pods in namespaces of the real kernel, a policy table on each node, and probes from pod to pod.

A switch joins the nodes; a node routes between the bridge of its pods and the switch, as in the mode host-gw.
"""

from __future__ import annotations

import errno
import select
import shlex
import socket
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.resources import files
from tempfile import NamedTemporaryFile
from typing import Any

from moyai.agent.policy.kernel import ThisKernel
from moyai.kube.objects.cluster_policy import parse_cluster_policy
from moyai.kube.objects.policy import parse_policy, parse_policy_pod
from moyai.linux import netns
from moyai.linux.process import run
from moyai.plan.network_policy.boot_gate import RULES, gate_rules
from moyai.plan.network_policy.index import PolicyIndex
from moyai.plan.network_policy.nft_commands import changes, removal, whole
from tests.network_policies import Cluster

NODES = ("n1", "n2")
PORTS = (80, 81)
#: (namespace, name, node) and the address's last number.
PODS = {
    ("red", "a", "n1"): 2,
    ("red", "b", "n1"): 3,
    ("blue", "c", "n1"): 4,
    ("red", "d", "n2"): 2,
    ("blue", "e", "n2"): 3,
}
_WAIT = 0.6


@dataclass
class Node:
    """A node's kernel and planner."""

    name: str
    kernel: ThisKernel
    index: PolicyIndex
    standing: bool = False

    def apply(self) -> int:
        """One transaction, then the connections that it forbids; returns how many were cut."""
        table = self.index.table
        self.kernel.apply(changes(table.take()) if self.standing else whole(table.everything()))
        self.standing = True
        wrong = [
            one
            for one in self.kernel.connections()
            if not self.index.permits(one.source, one.destination, protocol=one.protocol, port=one.port)
        ]
        return self.kernel.cut(wrong)


@dataclass
class World:
    """``addresses``: of the pods by ``namespace/name``."""

    cluster: Cluster
    nodes: dict[str, Node] = field(default_factory=dict[str, Node])
    addresses: dict[str, str] = field(default_factory=dict[str, str])
    servers: list[socket.socket] = field(default_factory=list[socket.socket])
    datagrams: dict[tuple[str, int], socket.socket] = field(default_factory=dict[tuple[str, int], socket.socket])
    listeners: dict[tuple[str, int], socket.socket] = field(default_factory=dict[tuple[str, int], socket.socket])

    def hear(self, *policies: dict[str, Any]) -> None:
        """These are the cluster's policies now, and every node has applied them."""
        wanted = {f"{one['metadata']['namespace']}/{one['metadata']['name']}": one for one in policies}
        for node in self.nodes.values():
            for key in {*self.cluster.policies, *wanted}:
                node.index.set_policy(key, parse_policy(wanted[key]) if key in wanted else None)
        self.cluster.policies = wanted
        for node in self.nodes.values():
            node.apply()

    def tier(self, *policies: dict[str, Any]) -> None:
        """These are the cluster's ClusterNetworkPolicy objects now, and every node has applied them."""
        wanted = {one["metadata"]["name"]: one for one in policies}
        for node in self.nodes.values():
            for name in {*self.cluster.tiers, *wanted}:
                node.index.set_cluster_policy(name, parse_cluster_policy(wanted[name]) if name in wanted else None)
            node.apply()
        self.cluster.tiers = wanted

    def flows(self, protocol: str) -> dict[tuple[str, str, int], bool]:
        """Which pod reaches which at which port now: all probes at the same time."""
        pairs = [(a, b, port) for a in self.addresses for b in self.addresses for port in PORTS]
        return self._tcp(pairs) if protocol == "TCP" else self._udp(pairs)

    def expected(self, protocol: str) -> dict[tuple[str, str, int], bool]:
        """The same by Kubernetes' definition."""
        return {
            (a, b, port): self.cluster.allowed(self.addresses[a], self.addresses[b], protocol=protocol, port=port, nodes=NODES)
            for a in self.addresses
            for b in self.addresses
            for port in PORTS
        }

    def connect(self, source: str, destination: str, *, port: int) -> tuple[socket.socket, socket.socket]:
        """A connection, both ends. An earlier one of the same port may lie in the listener's queue, reset by this one."""
        client = self.socket_in(source, socket.SOCK_STREAM)
        client.settimeout(3)
        client.connect((self.addresses[destination], port))
        listener = self.listeners[destination, port]
        listener.settimeout(3)
        client.sendall(b"?")
        while True:
            server, peer = listener.accept()
            server.settimeout(1)
            with suppress(ConnectionResetError):
                if peer == client.getsockname() and server.recv(1) == b"?":
                    client.settimeout(1)
                    return client, server
            server.close()

    def socket_in(self, pod: str, kind: socket.SocketKind) -> socket.socket:
        with netns.inside(_space(pod)):
            return socket.socket(socket.AF_INET, kind)

    def _tcp(self, pairs: Iterable[tuple[str, str, int]]) -> dict[tuple[str, str, int], bool]:
        started: dict[socket.socket, tuple[str, str, int]] = {}
        found: dict[tuple[str, str, int], bool] = {}
        for a, b, port in pairs:
            one = self.socket_in(a, socket.SOCK_STREAM)
            one.setblocking(False)
            assert one.connect_ex((self.addresses[b], port)) in (0, errno.EINPROGRESS)
            started[one] = (a, b, port)
            found[a, b, port] = False
        deadline, waiting = time.monotonic() + _WAIT, set(started)
        while waiting and (left := deadline - time.monotonic()) > 0:
            _, ready, _ = select.select([], list(waiting), [], left)
            for one in ready:
                found[started[one]] = one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
                waiting.discard(one)
        for one in started:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            one.close()
        return found

    def _udp(self, pairs: Iterable[tuple[str, str, int]]) -> dict[tuple[str, str, int], bool]:
        sent: dict[bytes, tuple[str, str, int]] = {}
        clients: list[socket.socket] = []
        for number, (a, b, port) in enumerate(pairs):
            one = self.socket_in(a, socket.SOCK_DGRAM)
            clients.append(one)
            word = f"{time.monotonic_ns()} {number}".encode()
            sent[word] = (a, b, port)
            one.sendto(word, (self.addresses[b], port))
        found = dict.fromkeys(sent.values(), False)
        deadline = time.monotonic() + _WAIT
        while not all(found.values()) and (left := deadline - time.monotonic()) > 0:
            ready, _, _ = select.select(list(self.datagrams.values()), [], [], left)
            for one in ready:
                word = one.recv(100)
                if word in sent:
                    found[sent[word]] = True
        for one in clients:
            one.close()
        return found


@contextmanager
def world() -> Generator[World]:
    """Everybody reaches everybody until there is a policy."""
    names = [_switch(), *(_space(node) for node in NODES), *(_space(f"{ns}/{name}") for ns, name, _ in PODS)]
    made = World(Cluster())
    try:
        for name in names:
            netns.remove(name)
            netns.add(name)
        _wire()
        for namespace in ("red", "blue"):
            made.cluster.namespaces[namespace] = {"metadata": {"name": namespace, "labels": {"name": namespace}}}
        for (namespace, name, node), last in PODS.items():
            key, address = f"{namespace}/{name}", f"10.244.{NODES.index(node) + 1}.{last}"
            made.addresses[key] = address
            made.cluster.pods[key] = {
                "metadata": {"namespace": namespace, "name": name, "labels": {"pod": name}},
                "spec": {"nodeName": node, "containers": [{"ports": [{"name": "web", "containerPort": 80}]}]},
                "status": {"podIP": address, "phase": "Running"},
            }
            for port in PORTS:
                listener, datagram = made.socket_in(key, socket.SOCK_STREAM), made.socket_in(key, socket.SOCK_DGRAM)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind((address, port))
                listener.listen(4096)
                datagram.bind((address, port))
                made.servers += [listener, datagram]
                made.listeners[key, port], made.datagrams[key, port] = listener, datagram
        for number, node in enumerate(NODES, 1):
            made.nodes[node] = planner(made, node, number=number)
            made.nodes[node].apply()
        yield made
    finally:
        for one in made.servers:
            one.close()
        for node in made.nodes.values():
            node.kernel.close()
        for name in names:
            netns.remove(name, empty=True)


def planner(made: World, node: str, *, number: int) -> Node:
    """What an agent has after its start on this node: caches, and a kernel of which it knows nothing yet."""
    with netns.inside(_space(node)):
        kernel = ThisKernel()
        assert kernel.see_bridged(), "br_netfilter is missing"
    index = PolicyIndex(node)
    index.set_ranges([f"10.244.{number}.0/24"])
    for namespace, one in made.cluster.namespaces.items():
        index.set_namespace(namespace, one["metadata"]["labels"])
    for key, one in made.cluster.pods.items():
        index.set_pod(key, parse_policy_pod(one))
    for key, one in made.cluster.policies.items():
        index.set_policy(key, parse_policy(one))
    return Node(node, kernel, index)


def ruleset(node: str) -> str:
    return run([*netns.prefix(_space(node)), "nft", "list", "ruleset"], timeout=20).stdout


def boot(node: Node) -> None:
    """What the node's service does when its machine boots."""
    unit = (files("moyai.bootstrap") / "data/moyai-policy-gate.service").read_text()
    (command,) = [line.partition("=")[2] for line in unit.splitlines() if line.startswith("ExecStart=")]
    with NamedTemporaryFile("w") as rules:
        rules.write(gate_rules("10.244.0.0/16"))
        rules.flush()
        words = shlex.split(command.replace(f"/{RULES}", rules.name))
        run([*netns.prefix(_space(node.name)), *words], timeout=20)


def switch_off(node: Node) -> None:
    node.kernel.apply(removal())


def ping(source: str, address: str) -> bool:
    """From a node's or a pod's namespace."""
    return run([*netns.prefix(_space(source)), "ping", "-c1", "-W1", address], timeout=10, check=False).returncode == 0


def _switch() -> str:
    return "pol-switch"


def _space(name: str) -> str:
    return f"pol-{name.replace('/', '-')}"


def _wire() -> None:
    _ip(_switch(), "link add br0 type bridge", "link set br0 up")
    for number, node in enumerate(NODES, 1):
        space, other = _space(node), 3 - number
        _ip(_switch(), f"link add to-{node} type veth peer name eth0 netns {space}", f"link set to-{node} master br0 up")
        _ip(
            space,
            "link set eth0 up",
            f"address add 172.17.0.2{number}/24 dev eth0",
            "link add cni0 type bridge",
            "link set cni0 up",
            f"address add 10.244.{number}.1/24 dev cni0",
            f"route add 10.244.{other}.0/24 via 172.17.0.2{other}",
        )
        netns.sysctl(space, "net/ipv4/ip_forward", value="1")
    for (namespace, name, node), last in PODS.items():
        space, subnet = _space(f"{namespace}/{name}"), NODES.index(node) + 1
        _ip(_space(node), f"link add pod-{name} type veth peer name eth0 netns {space}", f"link set pod-{name} master cni0 up")
        _ip(_space(node), f"link set pod-{name} type bridge_slave hairpin on")
        _ip(
            space,
            "link set eth0 up",
            f"address add 10.244.{subnet}.{last}/24 dev eth0",
            f"route add default via 10.244.{subnet}.1",
        )


def _ip(space: str, *lines: str) -> None:
    run(["ip", "-n", space, "-batch", "-"], stdin="\n".join(lines) + "\n", timeout=20)
