"""Egress addresses on real kernels: pods leave with an address of their own, by a node whose place another takes."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

import pytest

from moyai.agent.egress.controller import EgressController
from moyai.core.clock import BootClock
from moyai.kube.events import EventRecorder
from moyai.kube.objects import parse_node
from moyai.kube.resources import EGRESS_ADDRESSES, EVENTS, NODES, PODS, Json
from moyai.linux import netns
from moyai.linux.arp import ArpResponder
from moyai.linux.egress_net import EgressNet, EgressTunnel, MarkedRoute, TunnelEnd
from moyai.linux.libnftables import Nftables, NftError
from moyai.linux.process import run
from moyai.plan.egress import TUNNEL, EgressConf, tunnel_mac
from moyai.plan.egress_rules import FENCE, fence_rules, hold, let_go, put_ticket
from moyai.plan.node_network import NetworkConf
from moyai.runtime.controllers import ControllerSetup, cache, controller_set
from moyai.runtime.metrics import Metrics
from tests.fakes.kubernetes import Kubernetes
from tests.netns.announce_world import inside
from tests.netns.pod_world import POD_CIDR, Machine, ip, machines, ping
from tests.netns.test_pod_networks import agents

ADDRESS = "172.17.0.97"
RANGES = ("172.17.0.96/28",)
OUTSIDE = "192.0.2.1"
PORT = 7001
#: Bytes of an answer: many full packets.
MUCH = 100_000


class NodeKernel:
    """Of a machine. ``stopped``: seconds for which the process stands still before each transaction."""

    def __init__(self, net: str) -> None:
        self._name, self.net = net, EgressNet(net)
        self._nft: Nftables = inside(net, Nftables)()
        self.stopped = 0.0

    def rules(self, text: str) -> None:
        time.sleep(self.stopped)
        self._nft.run_text(text)

    def responder(self, link: str, answers: Callable[[str], bool], *, contested: Callable[[str], None]) -> ArpResponder:
        return inside(self._name, ArpResponder)(link, answers, contested=contested)


class Leaving:
    """Three nodes, and a machine outside, the last, that says with which address somebody has called. As a cloud does, each
    node's port drops what comes from other addresses than the node's, its pods' and those of the ranges."""

    def __init__(self, made: list[Machine], kube: Kubernetes) -> None:
        *self.nodes, self.outside = made
        self.kube = kube
        self.agents: dict[str, EgressController] = {}
        self.stops: dict[str, tuple[asyncio.Event, asyncio.Task[bool]]] = {}
        self.kernels = {one.name: NodeKernel(one.net) for one in self.nodes}
        ip(self.outside.net, f"address add {OUTSIDE}/32 dev lo")
        for one in self.nodes:
            ready = {"conditions": [{"type": "Ready", "status": "True"}]}
            found = self.kube.find(NODES, one.name)
            self.kube.put(NODES, {**found, "status": {**found["status"], **ready}})
            ip(one.net, f"route add default via {self.outside.address}")
            rules = (
                "table ip moyai {\n chain post {\n type nat hook postrouting priority srcnat;\n"
                f" ip saddr {POD_CIDR} ip daddr != {{ {POD_CIDR}, 172.17.0.0/24 }} masquerade\n }}\n"
                " chain port {\n type filter hook postrouting priority 400;\n"
                f' oifname "eth0" ip saddr != {{ {one.address}, {one.pod_cidr}, {RANGES[0]} }} counter drop\n }}\n}}\n'
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
            conf=EgressConf(RANGES, (POD_CIDR, "172.17.0.0/24", "10.96.0.0/16")),
            kernel=self.kernels[machine.name],
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
        """The one node whose kernel lets packets with the address leave; never two."""
        found = [one for one in self.nodes if self.holds(one)]
        assert len(found) <= 1, found
        return found[0] if found else None

    def holds(self, machine: Machine) -> bool:
        words = [*netns.prefix(machine.net), "nft", "list", "set", "ip", FENCE, "held"]
        return ADDRESS in run(words, timeout=20, check=False).stdout

    async def seen(self, machine: Machine) -> str:
        """With which address the pod of a machine is seen outside; empty where it does not get there."""
        code = (
            f"import socket; made = socket.create_connection(('{OUTSIDE}', {PORT}), 1.5); data = b''\n"
            f"while len(data) < {MUCH}: data += made.recv({MUCH})\n"
            "print(data.decode(), end='')"
        )
        words = [*netns.prefix(machine.pod), "python3", "-c", code]
        return (await asyncio.to_thread(run, words, timeout=20, check=False)).stdout.strip()

    async def until_seen(self, machine: Machine, address: str, *, within: float = 5.0) -> None:
        end = time.monotonic() + within
        while await self.seen(machine) != address:
            assert time.monotonic() < end

    async def until(self, wanted: Callable[[], object], within: float = 20.0) -> float:
        start = time.monotonic()
        while not await asyncio.to_thread(wanted):
            assert time.monotonic() - start < within, self.kube.all(EVENTS)
            await asyncio.sleep(0.05)
        return time.monotonic() - start


@asynccontextmanager
async def pod_network(made: list[Machine], *, router: Machine, mode: str) -> AsyncGenerator[Kubernetes]:
    """In mode routes the machine outside is the cloud's router, too. Mode bgp gives a kernel the routes of host-gw."""
    if mode != "routes":
        async with agents(made, NetworkConf(POD_CIDR, "vxlan" if mode == "vxlan" else "host-gw")) as world:
            yield world.kube
        return
    kube = Kubernetes()
    for one in made:
        kube.add("nodes", one.object(), namespace=None)
        ip(router.net, f"route add {one.pod_cidr} via {one.address}")
    yield kube


@asynccontextmanager
async def leaving(mode: str = "vxlan") -> AsyncGenerator[Leaving]:
    with machines(4) as made:
        async with pod_network(made[:3], router=made[3], mode=mode) as kube, AsyncExitStack() as stack:
            found = Leaving(made, kube)
            listening = inside(found.outside.net, socket.create_server)(("", PORT))

            async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                writer.write(writer.get_extra_info("peername")[0].encode().ljust(MUCH))
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


@pytest.mark.parametrize("mode", ["vxlan", "host-gw", "routes"])
async def test_pods_of_a_namespace_leave_with_its_address_and_others_with_their_nodes(mode: str) -> None:
    async with leaving(mode) as world:
        one, two, three = world.nodes
        # as in many networks, nobody learns from ICMP how much the way carries
        deaf = "table ip t { chain c { type filter hook input priority 0; icmp type destination-unreachable drop; }; }"
        run([*netns.prefix(world.outside.net), "nft", deaf], timeout=20)
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
        await world.until(lambda: status(world) == {"node": owner.name, "address": ADDRESS})
        # nobody outside opens a connection to a pod by its address
        strange = [*netns.prefix(world.outside.net), "ping", "-c1", "-W1", ADDRESS]
        assert run(strange, timeout=20, check=False).returncode != 0
        await world.kube.delete(EGRESS_ADDRESSES, "shop", namespace="shop")
        await world.until(lambda: world.owner is None)
        await asyncio.sleep(0.5)
        assert await world.seen(two) == two.address
        for machine in world.nodes:
            assert "moyai-egress" not in run([*netns.prefix(machine.net), "nft", "list", "tables"], timeout=20).stdout
            assert "moyai-egress" not in ip(machine.net, "link show")
            assert "77" not in ip(machine.net, "rule show").replace("32767", "")


def status(world: Leaving) -> Json:
    return world.kube.find(EGRESS_ADDRESSES, "shop", namespace="shop").get("status", {"node": ""})


@pytest.mark.parametrize("mode", ["vxlan", "host-gw"])
async def test_another_node_takes_over_within_three_seconds_of_a_silent_death_and_never_two_have_the_address(mode: str) -> None:
    async with leaving(mode) as world:
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
        taken = time.monotonic() - began
        print(f"taken over after {taken:.2f} s")
        assert taken < 3
        other = next(one for one in world.nodes[:2] if one != owner)
        await world.until_seen(other, ADDRESS)
        stop.set()
        await task


async def test_what_cannot_be_used_is_said() -> None:
    async with leaving() as world:
        world.egress("far", address="198.51.100.9")
        await world.until(lambda: "is in none of services.announce.ranges (172.17.0.96/28)" in str(world.kube.all(EVENTS)))
        assert world.owner is None
        assert await world.seen(world.nodes[0]) == world.nodes[0].address


def test_the_kernel_lets_an_address_go_by_itself_and_a_process_that_stood_still_cannot_hold_it_again() -> None:
    with machines(1, pods=False) as made:
        kernel = NodeKernel(made[0].net)

        def held() -> bool:
            words = [*netns.prefix(made[0].net), "nft", "list", "set", "ip", FENCE, "held"]
            return ADDRESS in run(words, timeout=20).stdout

        kernel.rules(fence_rules([ADDRESS]))
        with pytest.raises(NftError, match="No such file"):
            # without a ticket
            kernel.rules(hold({ADDRESS: 1.5}))
        assert not held()
        kernel.rules(put_ticket())
        looked = time.monotonic()
        kernel.rules(hold({ADDRESS: 0.9}))
        assert held()
        while held():
            pass
        assert 0.4 < time.monotonic() - looked < 0.9
        kernel.rules(put_ticket())
        # stopped between the look at the clock and the transaction, it goes on too late
        time.sleep(0.25)
        with pytest.raises(NftError):
            kernel.rules(hold({ADDRESS: 1.5}))
        assert not held()
        # a guard that is put again takes nothing from what is held
        kernel.rules(put_ticket())
        kernel.rules(hold({ADDRESS: 1.5}))
        kernel.rules(fence_rules([ADDRESS, "172.17.0.98"]))
        assert held()
        kernel.rules(let_go())
        assert not held()


def test_the_tunnel_and_its_routes_follow_from_any_state() -> None:
    with machines(1, pods=False) as made:
        net, here = EgressNet(made[0].net), made[0]
        tunnel = EgressTunnel(TUNNEL, 7799, 8472, here.address, tunnel_mac(here.address), 50)
        one, two = (TunnelEnd(f"172.17.0.{n}", f"10.244.{n}.0", tunnel_mac(f"172.17.0.{n}")) for n in (31, 32))
        for ends in ([one], [one, two], [two], [TunnelEnd(two.address, one.gateway, two.mac)]):
            net.tunnel(tunnel, link="eth0", ends=ends)
            entries = run(["bridge", "-n", here.net, "fdb", "show", "dev", TUNNEL], timeout=20).stdout
            assert sorted(line.split()[2] for line in entries.splitlines()) == sorted(each.address for each in ends)
            neighbours = ip(here.net, f"neigh show dev {TUNNEL}")
            assert sorted(line.split()[0] for line in neighbours.splitlines()) == sorted(each.gateway for each in ends)
            assert "mtu 1450" in ip(here.net, f"link show {TUNNEL}")
        back = MarkedRoute(
            255, 0xFF000000, 0xFF000000, "", TUNNEL, (("10.244.31.0/24", one.gateway), ("10.244.32.0/24", two.gateway))
        )
        for routes in (
            [back],
            [replace(back, destinations=back.destinations[:1])],
            [MarkedRoute(1, 1 << 24, 0xFF000000, one.gateway, TUNNEL)],
        ):
            net.route(routes)
            (wanted,) = routes
            shown = ip(here.net, f"route show table {7700 + wanted.number}").splitlines()
            assert [line.split()[0] for line in shown] == [each for each, _ in wanted.destinations or (("default", ""),)]
        net.tunnel(replace(tunnel, port=8473), link="eth0", ends=[two])
        assert "dstport 8473" in ip(here.net, f"-d link show {TUNNEL}")
        net.route([])
        net.tunnel(tunnel, link="eth0", ends=[])
        assert TUNNEL not in ip(here.net, "link show")
