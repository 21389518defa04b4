"""Egress addresses on real kernels: pods leave with an address of their own, by a node whose place another takes."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from moyai.agent.egress.controller import EgressController
from moyai.core.clock import BootClock
from moyai.kube.events import EventRecorder
from moyai.kube.objects import parse_node
from moyai.kube.resources import EGRESS_ADDRESSES, EVENTS, NODES, PODS, Json
from moyai.linux import netns
from moyai.linux.arp import ArpResponder
from moyai.linux.egress_net import EgressNet
from moyai.linux.process import run
from moyai.plan.node_network import NetworkConf
from moyai.runtime.controllers import ControllerSetup, cache, controller_set
from moyai.runtime.metrics import Metrics
from tests.fakes.kubernetes import Kubernetes
from tests.netns.announce_world import inside
from tests.netns.pod_world import POD_CIDR, Machine, ip, machines, ping
from tests.netns.test_pod_networks import agents

ADDRESS = "172.17.0.97"
OUTSIDE = "192.0.2.1"
PORT = 7001


def _always(_address: str) -> bool:
    return True


class NodeKernel:
    """Of a machine."""

    def __init__(self, net: str) -> None:
        self._name, self.net = net, EgressNet(net)

    def rules(self, text: str) -> None:
        run([*netns.prefix(self._name), "nft", "-f", "-"], stdin=text, timeout=20)

    def announce(self, link: str, address: str) -> None:
        responder = inside(self._name, ArpResponder)(link, _always)
        responder.announce(address)
        responder.close()


class Leaving:
    """Three nodes in mode vxlan, and a machine outside, the last, that says with which address somebody has called."""

    def __init__(self, made: list[Machine], kube: Kubernetes) -> None:
        *self.nodes, self.outside = made
        self.kube = kube
        self.agents: dict[str, EgressController] = {}
        self.stops: dict[str, tuple[asyncio.Event, asyncio.Task[bool]]] = {}
        ip(self.outside.net, f"address add {OUTSIDE}/32 dev lo")
        for one in self.nodes:
            ready = {"conditions": [{"type": "Ready", "status": "True"}]}
            found = self.kube.find(NODES, one.name)
            self.kube.put(NODES, {**found, "status": {**found["status"], **ready}})
            ip(one.net, f"route add default via {self.outside.address}")
            rules = (
                "table ip moyai {\n chain post {\n type nat hook postrouting priority srcnat;\n"
                f" ip saddr {POD_CIDR} ip daddr != {{ {POD_CIDR}, 172.17.0.0/24 }} masquerade\n }}\n}}\n"
            )
            run([*netns.prefix(one.net), "nft", "-f", "-"], stdin=rules, timeout=20)
            self.pod(one, "shop" if one.number < 3 else "other")

    def pod(self, machine: Machine, namespace: str) -> None:
        status = {"phase": "Running", "podIP": machine.pod_address}
        meta = {"name": f"p{machine.number}", "namespace": namespace}
        self.kube.put(PODS, {"metadata": meta, "spec": {"nodeName": machine.name}, "status": status})

    def egress(self, name: str = "shop", *, namespace: str = "shop", **spec: str) -> None:
        meta = {"name": name, "namespace": namespace, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"}
        self.kube.put(EGRESS_ADDRESSES, {"metadata": meta, "spec": {"address": ADDRESS, **spec}})

    async def start(self, machine: Machine) -> None:
        metrics, stop = Metrics(), asyncio.Event()
        nodes = cache(self.kube, NODES, parse=parse_node, metrics=metrics)
        events = EventRecorder(self.kube, component="test")
        made = EgressController(
            kube=self.kube,
            node=machine.name,
            nodes=nodes,
            events=events,
            metrics=metrics,
            clock=BootClock(),
            ranges=("172.17.0.96/28",),
            inside=(POD_CIDR, "172.17.0.0/24", "10.96.0.0/16"),
            tunnel="flannel.1",
            kernel=NodeKernel(machine.net),
        )
        setup = ControllerSetup(made.part, caches=made.caches, tasks={"egress addresses": made.run})
        parts = controller_set([setup], metrics=metrics, events=events, bind="127.0.0.1:0", shared=[nodes])
        self.agents[machine.name] = made
        self.stops[machine.name] = (stop, asyncio.create_task(parts.run(stop)))

    async def stop(self, machine: Machine) -> None:
        stop, task = self.stops.pop(machine.name)
        stop.set()
        await task

    @property
    def owner(self) -> Machine | None:
        """The one node whose kernel has the address; never two."""
        found = [one for one in self.nodes if ADDRESS in ip(one.net, "-4 address show dev eth0")]
        assert len(found) <= 1, found
        return found[0] if found else None

    async def seen(self, machine: Machine) -> str:
        """With which address the pod of a machine is seen outside; empty where it does not get there."""
        code = f"import socket; print(socket.create_connection(('{OUTSIDE}', {PORT}), 1.5).recv(99).decode(), end='')"
        words = [*netns.prefix(machine.pod), "python3", "-c", code]
        return (await asyncio.to_thread(run, words, timeout=20, check=False)).stdout

    async def until(self, wanted: Callable[[], object], within: float = 20.0) -> float:
        start = time.monotonic()
        while not await asyncio.to_thread(wanted):
            assert time.monotonic() - start < within, self.kube.all(EVENTS)
            await asyncio.sleep(0.05)
        return time.monotonic() - start


@asynccontextmanager
async def leaving() -> AsyncGenerator[Leaving]:
    with machines(4) as made:
        async with agents(made[:3], NetworkConf(POD_CIDR, "vxlan")) as world, AsyncExitStack() as stack:
            found = Leaving(made, world.kube)
            listening = inside(found.outside.net, socket.create_server)(("", PORT))

            async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                writer.write(writer.get_extra_info("peername")[0].encode())
                await writer.drain()
                writer.close()

            await stack.enter_async_context(await asyncio.start_server(answer, sock=listening))
            for one in found.nodes:
                await found.start(one)
            try:
                await found.until(lambda: ping(found.nodes[0], found.nodes[1]))
                yield found
            finally:
                for one in found.nodes:
                    if one.name in found.stops:
                        await found.stop(one)


async def test_pods_of_a_namespace_leave_with_its_address_and_others_with_their_nodes() -> None:
    async with leaving() as world:
        one, two, three = world.nodes
        assert await world.seen(one) == one.address
        world.egress()
        await world.until(lambda: world.owner)
        await asyncio.sleep(0.5)
        assert (await world.seen(one), await world.seen(two)) == (ADDRESS, ADDRESS)
        assert await world.seen(three) == three.address
        # within the cluster nothing is translated
        assert ping(one, two)
        owner = world.owner
        assert owner is not None
        await world.until(lambda: status(world)["node"] == owner.name)
        await world.kube.delete(EGRESS_ADDRESSES, "shop", namespace="shop")
        await world.until(lambda: world.owner is None)
        await asyncio.sleep(0.5)
        assert await world.seen(two) == two.address
        for machine in world.nodes:
            assert "moyai-egress" not in run([*netns.prefix(machine.net), "nft", "list", "tables"], timeout=20).stdout
            assert "77" not in ip(machine.net, "rule show").replace("32767", "")


def status(world: Leaving) -> Json:
    return world.kube.find(EGRESS_ADDRESSES, "shop", namespace="shop").get("status", {"node": ""})


async def test_another_node_takes_over_when_the_owner_dies_silently_and_never_two_have_the_address() -> None:
    async with leaving() as world:
        world.egress()
        await world.until(lambda: world.owner)
        owner = world.owner
        assert owner is not None
        # the agent hangs: its tasks stand still, and nothing is handed back
        stop, task = world.stops.pop(owner.name)
        agent = world.agents[owner.name]
        for elector in agent._electors.all:  # pyright: ignore[reportPrivateUsage]
            assert elector._task is not None  # pyright: ignore[reportPrivateUsage]
            elector._task.cancel()  # pyright: ignore[reportPrivateUsage]
        began = time.monotonic()
        await world.until(lambda: world.owner not in (None, owner), within=10)
        assert time.monotonic() - began < 6
        other = next(one for one in world.nodes[:2] if one != owner)
        await asyncio.sleep(0.5)
        assert await world.seen(other) == ADDRESS
        stop.set()
        await task


async def test_what_cannot_be_used_is_said() -> None:
    async with leaving() as world:
        world.egress("far", address="198.51.100.9")
        await world.until(lambda: "is in none of services.announce.ranges (172.17.0.96/28)" in str(world.kube.all(EVENTS)))
        assert world.owner is None
        assert await world.seen(world.nodes[0]) == world.nodes[0].address


def test_the_kernel_takes_an_address_away_by_itself() -> None:
    with machines(1, pods=False) as made:
        net = EgressNet(made[0].net)
        net.keep_addresses("eth0", [ADDRESS])
        assert net.addresses("eth0") == {ADDRESS}
        end = time.monotonic() + 4
        while net.addresses("eth0"):
            assert time.monotonic() < end
            time.sleep(0.05)
        assert made[0].address in ip(made[0].net, "address show dev eth0")
