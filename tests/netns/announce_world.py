"""Machines that announce an address on one switch, and a client there that asks who has it.

The agents share a Kubernetes in memory. A machine dies silently when it loses its switch port and its way to the API at once.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from moyai.agent.announce.controller import AnnounceController, Ethernet
from moyai.core.clock import BootClock
from moyai.kube.events import EventRecorder
from moyai.kube.objects import parse_node
from moyai.kube.resources import ADDRESS_POOLS, L2_ADVERTISEMENTS, LEASES, NODES, SERVICES
from moyai.linux import arp, netns
from moyai.linux.process import run
from moyai.plan.announce.metallb_words import FROM_POOL, NAMESPACE
from moyai.runtime.controllers import ControllerSetup, cache, controller_set
from moyai.runtime.metrics import Metrics
from tests.fakes.kubernetes import Kubernetes, Way
from tests.netns.pod_world import Machine, ip

ADDRESS = "172.17.0.200"
PORT = 8080
#: Seconds. How long answers to one question are waited for; a machine that is busy answers late, and then to no question.
_PATIENCE = 0.1


def inside(net: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as it works in a namespace. Sockets stay where they were made."""

    def called(*words: Any, **fields: Any) -> Any:
        with netns.inside(net):
            return function(*words, **fields)

    return called


class Client:
    """``machine``: on which nothing announces."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._socket = inside(machine.net, socket.socket)(socket.AF_PACKET, socket.SOCK_RAW, 0)
        inside(machine.net, self._socket.bind)(("eth0", 0x0806))
        self._socket.setblocking(False)
        self._mac = self._socket.getsockname()[4]

    async def who_has(self, address: str = ADDRESS) -> set[bytes]:
        """The MAC addresses of those that answer one question."""
        self._drop()
        asked = arp.ArpPacket(1, self._mac, self.machine.address, b"\0" * 6, address)
        self._socket.send(arp.arp_frame(asked, to=b"\xff" * 6))
        await asyncio.sleep(_PATIENCE)
        heard = (arp.parse_arp(frame) for frame in self._drop())
        # announcements are no answers
        return {
            one.sender_mac
            for one in heard
            if one and one.operation == 2 and one.sender == address and one.target_mac == self._mac
        }

    def claim(self, address: str = ADDRESS) -> None:
        """Say that this machine has the address."""
        packet = arp.ArpPacket(2, self._mac, address, b"\xff" * 6, address)
        self._socket.send(arp.arp_frame(packet, to=b"\xff" * 6))

    def heard_claims(self, address: str = ADDRESS) -> set[bytes]:
        """Who announced the address since the last question."""
        heard = (arp.parse_arp(frame) for frame in self._drop())
        return {one.sender_mac for one in heard if one and one.sender == one.target == address}

    def known(self, address: str = ADDRESS) -> str:
        """The MAC address that this machine's kernel has for it."""
        words = ip(self.machine.net, f"neigh show {address}").split()
        return words[words.index("lladdr") + 1] if "lladdr" in words else ""

    async def connects(self, seconds: float = 3.0) -> str:
        """Who answers a new connection, empty for nobody."""
        words = ["timeout", str(seconds), "bash", "-c", f"exec 3<>/dev/tcp/{ADDRESS}/{PORT} && head -c 2 <&3"]
        done = await asyncio.to_thread(run, [*netns.prefix(self.machine.net), *words], timeout=30, check=False)
        return done.stdout

    def close(self) -> None:
        self._socket.close()

    def _drop(self) -> list[bytes]:
        found: list[bytes] = []
        while True:
            try:
                found.append(self._socket.recv(128))
            except BlockingIOError:
                return found


class Announcers:
    def __init__(self, machines: list[Machine], switch: str) -> None:
        *self.nodes, last = machines
        self.client = Client(last)
        self.kube = Kubernetes()
        self._switch = switch
        self._ways: dict[str, Way] = {}
        self._stops: dict[str, asyncio.Event] = {}
        for one in self.nodes:
            body = one.object()
            self.kube.put(NODES, {**body, "status": {**body["status"], "conditions": [{"type": "Ready", "status": "True"}]}})
        pool = {"metadata": {"name": "main", "namespace": NAMESPACE}, "spec": {"addresses": [f"{ADDRESS}/32"]}}
        self.kube.put(ADDRESS_POOLS, pool)
        self.kube.put(L2_ADVERTISEMENTS, {"metadata": {"name": "all", "namespace": NAMESPACE}, "spec": {}})
        meta = {"name": "web", "namespace": "default", "annotations": {FROM_POOL: "main"}}
        spec = {"type": "LoadBalancer", "ports": [{"port": PORT}]}
        status = {"loadBalancer": {"ingress": [{"ip": ADDRESS}]}}
        self.kube.put(SERVICES, {"metadata": meta, "spec": spec, "status": status})

    def mac(self, machine: Machine) -> bytes:
        words = ip(machine.net, "link show eth0").split()
        return bytes.fromhex(words[words.index("link/ether") + 1].replace(":", ""))

    @property
    def holder(self) -> Machine:
        """The owner by the Lease."""
        (lease,) = self.kube.all(LEASES)
        return next(one for one in self.nodes if one.name == lease["spec"]["holderIdentity"])

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        async with AsyncExitStack() as stack:
            stack.callback(self.client.close)
            for one in self.nodes:
                await stack.enter_async_context(self._served(one))
                await stack.enter_async_context(self._agent(one))
            await self.until(lambda answers: len(answers) == 1)
            yield

    async def until(self, wanted: Callable[[set[bytes]], bool], within: float = 30.0) -> set[bytes]:
        """Ask until the answers are as wanted. Fails as soon as two answer one question."""
        end, answers = time.monotonic() + within, set[bytes]()
        while time.monotonic() < end:
            answers = await self.client.who_has()
            assert len(answers) <= 1, "two owners"
            if wanted(answers):
                return answers
        raise AssertionError(f"not within {within} s; the last answers: {answers}")

    def die(self, machine: Machine) -> None:
        """Silently, as a machine without power does."""
        self._ways[machine.name].cut = True
        ip(self._switch, f"link set s{machine.number} down")

    def revive(self, machine: Machine) -> None:
        ip(self._switch, f"link set s{machine.number} up")
        self._ways[machine.name].cut = False

    def stop(self, machine: Machine) -> None:
        """The agent alone ends, in order."""
        self._stops[machine.name].set()

    @asynccontextmanager
    async def _agent(self, machine: Machine) -> AsyncGenerator[None]:
        way: Any = Way(self.kube)
        self._ways[machine.name], stop = way, asyncio.Event()
        self._stops[machine.name] = stop
        metrics = Metrics()
        nodes = cache(way, NODES, parse=parse_node, metrics=metrics)
        events = EventRecorder(way, component="test")
        network = Ethernet(*(inside(machine.net, one) for one in (arp.ArpResponder, arp.interface_of, arp.interfaces)))
        made = AnnounceController(
            kube=way, node=machine.name, nodes=nodes, events=events, metrics=metrics, clock=BootClock(), network=network
        )
        wanted = ControllerSetup(made.part, caches=made.caches, tasks={"addresses": made.run})
        parts = controller_set([wanted], metrics=metrics, events=events, bind="127.0.0.1:0", shared=[nodes])
        task = asyncio.create_task(parts.run(stop))
        try:
            yield
        finally:
            stop.set()
            await task

    @asynccontextmanager
    async def _served(self, machine: Machine) -> AsyncGenerator[None]:
        """What kube-proxy does: whatever comes for the address goes to a process, which says the machine's name."""
        rules = f"table ip t {{ chain c {{ type nat hook prerouting priority dstnat; ip daddr {ADDRESS} redirect; }}; }}"
        run([*netns.prefix(machine.net), "nft", rules], timeout=20)

        async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(machine.name.encode())
            writer.close()

        listening = inside(machine.net, socket.create_server)(("", PORT))
        server = await asyncio.start_server(answer, sock=listening)
        async with server:
            yield
