"""A node's part of the pod network on real kernels: each backend, killed anywhere, healed, and beside what others made."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from moyai.agent.pod_network.controller import PodNetworkController
from moyai.agent.pod_network.kernel import apply, find_uplink, observe
from moyai.core.clock import SystemClock
from moyai.kube.events import EventRecorder
from moyai.kube.informer import Informer
from moyai.kube.objects import Node, parse_node
from moyai.kube.resources import NODES
from moyai.linux import netns
from moyai.linux.netlink import Netlink
from moyai.linux.process import run
from moyai.plan.node_network import (
    Backend,
    Me,
    NetworkConf,
    Peer,
    desired,
    difference,
    tunnel_name,
    without_obstacles,
)
from moyai.runtime.controllers import ControllerSet
from moyai.runtime.metrics import Metrics
from tests.fakes.kubernetes import Kubernetes
from tests.netns.pod_world import POD_CIDR, Machine, ip, machines, node_object, ping

VXLAN = NetworkConf(POD_CIDR, "vxlan")
DIRECT = NetworkConf(POD_CIDR, "vxlan", direct_routing=True)
HOST_GW = NetworkConf(POD_CIDR, "host-gw")
ON_DEMAND = NetworkConf(POD_CIDR, "vxlan", on_demand=True)
ALL = {"vxlan": VXLAN, "direct": DIRECT, "host-gw": HOST_GW, "on-demand": ON_DEMAND}


@pytest.fixture
def three() -> Iterator[list[Machine]]:
    with machines(3) as made:
        yield made


class Agents:
    """The agents of some machines over one Kubernetes in memory."""

    def __init__(self, kube: Kubernetes) -> None:
        self.kube = kube
        self.metrics: dict[str, Metrics] = {}
        self.controllers: dict[str, PodNetworkController] = {}
        self.nodes: dict[str, Informer[Node]] = {}
        self._running: dict[str, tuple[asyncio.Task[bool], asyncio.Event]] = {}

    def start(self, machine: Machine, conf: NetworkConf) -> None:
        metrics, stop = Metrics(), asyncio.Event()
        self.nodes[machine.name] = nodes = Informer(self.kube, NODES, parse=parse_node)
        recorder = EventRecorder(self.kube, component="agent")
        controller = PodNetworkController(
            kube=self.kube,
            nodes=nodes,
            node=machine.name,
            conf=conf,
            events=recorder,
            metrics=metrics,
            clock=SystemClock(),
            namespace=machine.net,
        )
        parts = ControllerSet(
            metrics=metrics,
            caches=[nodes],
            parts=[controller.part()],
            tasks={"events": recorder.run, "listen": controller.listen},
        )
        self.metrics[machine.name], self.controllers[machine.name] = metrics, controller
        self._running[machine.name] = (asyncio.create_task(parts.run(stop)), stop)

    async def stop_one(self, machine: Machine) -> None:
        task, stop = self._running.pop(machine.name)
        stop.set()
        assert await task, "a part of the agent ended by itself"

    async def kill_one(self, machine: Machine) -> None:
        task, _ = self._running[machine.name]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        self._running[machine.name] = (asyncio.create_task(asyncio.sleep(0, result=True)), asyncio.Event())

    async def stop(self) -> None:
        for task, stop in self._running.values():
            stop.set()
            assert await task, "a part of the agent ended by itself"
        self._running.clear()

    async def ready(self) -> None:
        await until(lambda: not any(one.not_ready() for one in self.controllers.values()))


@asynccontextmanager
async def agents(made: list[Machine], conf: NetworkConf) -> AsyncGenerator[Agents]:
    kube = Kubernetes()
    for one in made:
        kube.add("nodes", one.object(), namespace=None)
    world = Agents(kube)
    for one in made:
        world.start(one, conf)
    try:
        await world.ready()
        yield world
    finally:
        await world.stop()


async def until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not await asyncio.to_thread(true):
        assert time.monotonic() < end, "it did not come"
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("conf", "carries"),
    [(VXLAN, 1422), (DIRECT, 1472), (HOST_GW, 1472), (ON_DEMAND, 1422)],
    ids=["vxlan", "direct", "host-gw", "on-demand"],
)
async def test_pods_reach_each_other_with_the_whole_mtu(three: list[Machine], conf: NetworkConf, carries: int) -> None:
    async with agents(three, conf):
        await until(lambda: all(ping(a, b) for a in three for b in three if a != b))
        assert ping(three[0], three[2], size=carries)
        assert not ping(three[0], three[2], size=carries + 1)
        # a pod range without a node: an error at once, and never by the default route
        assert "unreachable" in ip(three[0].net, f"route show {POD_CIDR}")


async def test_vxlan_has_flannels_device_and_entries(three: list[Machine]) -> None:
    async with agents(three, VXLAN) as world:
        await until(lambda: ping(three[0], three[1]))
        device = json.loads(ip(three[0].net, "-d -j link show flannel.1"))[0]
        data = device["linkinfo"]["info_data"]
        assert (data["id"], data["port"], data["local"], data["learning"]) == (1, 8472, three[0].address, False)
        assert device["mtu"] == 1450
        told = {one["metadata"]["name"]: one["metadata"]["annotations"] for one in world.kube.all(NODES)}
        prefix = "flannel.alpha.coreos.com/"
        assert told["n1"][f"{prefix}kube-subnet-manager"] == "true"
        assert told["n1"][f"{prefix}backend-type"] == "vxlan"
        assert json.loads(told["n1"][f"{prefix}backend-data"]) == {"VNI": 1, "VtepMAC": device["address"]}
        mac = json.loads(told["n2"][f"{prefix}backend-data"])["VtepMAC"]
        assert f"10.244.2.0 lladdr {mac} PERMANENT" in ip(three[0].net, "neigh show dev flannel.1")
        table = run([*netns.prefix(three[0].net), "bridge", "fdb", "show", "dev", "flannel.1"], timeout=20).stdout
        assert f"{mac} dst {three[1].address} self permanent" in table
        assert "10.244.2.0/24 via 10.244.2.0 dev flannel.1 proto 77 onlink" in ip(three[0].net, "route show")


@pytest.mark.parametrize("conf", [VXLAN, HOST_GW], ids=["vxlan", "host-gw"])
async def test_what_is_deleted_comes_back_by_the_kernels_report_and_without_polling(
    three: list[Machine], conf: NetworkConf
) -> None:
    first = three[0]
    async with agents(three, conf) as world:
        await until(lambda: ping(first, three[1]))
        damage = ["route del 10.244.2.0/24", f"route del unreachable {POD_CIDR} metric 9999"]
        if conf.backend == "vxlan":
            damage += ["neigh del 10.244.2.0 dev flannel.1", "address flush dev flannel.1", "link del flannel.1"]
            damage += ["link set flannel.1 down", "link set flannel.1 mtu 1300"]
        for harm in damage:
            before = await state(first, conf, world=world)
            assert before == ()
            ip(first.net, harm)
            end = time.monotonic() + 5
            while await state(first, conf, world=world):
                assert time.monotonic() < end, harm
                await asyncio.sleep(0.05)
            assert ping(first, three[1]), harm
        await asyncio.sleep(0.5)
        reads = world.metrics["n1"].value("moyai_agent_kernel_reads_total")
        await asyncio.sleep(2)
        assert world.metrics["n1"].value("moyai_agent_kernel_reads_total") == reads, "it reads without a reason"


async def state(machine: Machine, conf: NetworkConf, *, world: Agents) -> tuple[object, ...]:
    """What is missing in the machine's kernel."""
    from moyai.plan.node_network import PeerReader, me_of

    nodes = [parse_node(one) for one in world.kube.all(NODES)]
    me = me_of(next(one for one in nodes if one.name == machine.name), conf)
    assert isinstance(me, Me)
    async with Netlink.open(machine.net) as netlink:
        uplink = await find_uplink(netlink, me.address)
        found, _ = await observe(netlink, tunnel=tunnel_name(conf.vni) if conf.backend == "vxlan" else None, uplink=uplink)
    want = desired(me, PeerReader(conf).peers(nodes, me).peers, uplink=uplink, conf=conf)
    return difference(without_obstacles(want.network, found)[0], found)


ME = Me("n1", "172.17.0.21", "10.244.1.0/24", "02:00:00:00:00:01")
BEFORE = tuple(Peer(f"n{n}", f"172.17.0.{20 + n}", f"10.244.{n}.0/24", f"02:00:00:00:00:0{n}") for n in (2, 3, 4))
#: One went, one has another address, one another MAC address, and one came.
AFTER = (
    Peer("n2", "172.17.0.52", "10.244.2.0/24", "02:00:00:00:00:02"),
    Peer("n3", "172.17.0.23", "10.244.3.0/24", "02:00:00:00:00:33"),
    Peer("n5", "172.17.0.25", "10.244.5.0/24", "02:00:00:00:00:05"),
)
FOREIGN = (
    "route add 192.0.2.0/24 via 172.17.0.99 proto static",
    "route add 10.244.200.0/24 via 172.17.0.98 proto static",
    "neigh add 172.17.0.99 lladdr 02:00:00:00:00:99 dev eth0 nud permanent",
    "link add vx9 type vxlan id 9 dstport 9999 local 172.17.0.21",
    "link set vx9 up",
    "rule add from 192.0.2.0/24 lookup 100",
)


def others(namespace: str) -> tuple[str, ...]:
    """What others made: all but the agent's routes and the agent's tunnel."""
    shown = ip(namespace, "route show").splitlines()
    links = [one for one in ip(namespace, "-br link show").splitlines() if not one.startswith("flannel.")]
    routes = [one.strip() for one in shown if "proto 77" not in one]
    return (*routes, *links, ip(namespace, "neigh show dev eth0 nud permanent"), ip(namespace, "rule show"))


async def passed(namespace: str, peers: tuple[Peer, ...], *, conf: NetworkConf, most: int = 10**6) -> int:
    """One pass of the agent that ends after ``most`` steps; returns how many there were to do."""
    name = tunnel_name(conf.vni) if conf.backend == "vxlan" else None
    async with Netlink.open(namespace) as netlink:
        uplink = await find_uplink(netlink, ME.address)
        found, indices = await observe(netlink, tunnel=name, uplink=uplink)
        want = desired(ME, peers, uplink=uplink, conf=conf)
        steps = difference(without_obstacles(want.network, found)[0], found)
        await apply(netlink, steps[:most], indices=indices)
    return len(steps)


@pytest.mark.parametrize("backend", ALL)
async def test_killed_between_any_two_steps_the_next_pass_finishes_and_what_others_made_is_untouched(backend: str) -> None:
    conf = ALL[backend]
    tried = 0
    for begun in (False, True):
        most = 0
        while True:
            with machines(1, pods=False) as made:
                net = made[0].net
                ip(net, *FOREIGN)
                untouched = others(net)
                if begun:
                    assert await passed(net, BEFORE, conf=conf)
                peers = AFTER if begun else BEFORE
                whole = await passed(net, peers, conf=conf, most=most)
                left = await passed(net, peers, conf=conf)
                assert await passed(net, peers, conf=conf) == 0, f"{most} of {whole} steps, then {left}"
                assert others(net) == untouched
                tried += 1
            if most >= whole:
                break
            most += 1
    assert tried > (20 if conf.backend == "vxlan" and not conf.on_demand else 4)


@pytest.mark.parametrize(
    ("first", "second"),
    [("vxlan", "host-gw"), ("host-gw", "vxlan"), ("direct", "vxlan"), ("vxlan", "on-demand"), ("on-demand", "vxlan")],
)
async def test_another_backend_takes_over_what_the_one_before_has_left(first: str, second: str) -> None:
    with machines(1, pods=False) as made:
        net = made[0].net
        ip(net, *FOREIGN)
        untouched = others(net)
        await passed(net, BEFORE, conf=ALL[first])
        await passed(net, BEFORE, conf=ALL[second])
        assert await passed(net, BEFORE, conf=ALL[second]) == 0
        assert ("flannel.1" in ip(net, "-br link show")) == (second != "host-gw")
        assert others(net) == untouched


async def test_a_tunnel_that_flannel_left_is_adopted_and_its_routes_taken_over() -> None:
    with machines(1, pods=False) as made:
        net = made[0].net
        ip(
            net,
            f"link add flannel.1 address {ME.mac} mtu 1450 type vxlan id 1 local {ME.address} dev eth0 dstport 8472 nolearning",
            "address add 10.244.1.0/32 dev flannel.1",
            "link set flannel.1 up",
            "route add 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink",
        )
        index = json.loads(ip(net, "-j link show flannel.1"))[0]["ifindex"]
        await passed(net, BEFORE, conf=VXLAN)
        assert await passed(net, BEFORE, conf=VXLAN) == 0
        assert json.loads(ip(net, "-j link show flannel.1"))[0]["ifindex"] == index
        assert ip(net, "route show 10.244.2.0/24").count("via") == 1
        assert "proto 77" in ip(net, "route show 10.244.2.0/24")


async def test_a_route_of_somebody_elses_in_the_place_of_ours_stays_and_is_reported(three: list[Machine]) -> None:
    ip(three[0].net, "route add 10.244.2.0/24 via 172.17.0.99 proto static")
    async with agents(three, HOST_GW) as world:
        await until(lambda: ping(three[1], three[2]))
        assert "via 172.17.0.99 dev eth0 proto static" in ip(three[0].net, "route show 10.244.2.0/24")
        text = world.metrics["n1"].text()
        assert 'moyai_agent_peers{state="left out"} 1.0' in text
        # its cause ends, and with it the obstacle
        ip(three[0].net, "route del 10.244.2.0/24")
        await until(lambda: ping(three[0], three[1]))


async def test_another_device_with_the_tunnels_name_is_left_alone_and_named(three: list[Machine]) -> None:
    ip(three[0].net, "link add flannel.1 type bridge")
    kube = Kubernetes()
    kube.add("nodes", three[0].object(), namespace=None)
    world = Agents(kube)
    world.start(three[0], VXLAN)
    try:
        await until(lambda: "bridge has the name flannel.1" in world.controllers["n1"].not_ready())
        assert "bridge" in ip(three[0].net, "-d link show flannel.1")
    finally:
        await world.stop()


@pytest.mark.parametrize("backend", ["vxlan", "host-gw"])
async def test_of_a_thousand_nodes_all_are_reached_and_one_that_leaves_takes_its_own_entries_alone(backend: Backend) -> None:
    conf = ALL[backend]
    with machines(1, pods=False) as made:
        kube = Kubernetes()
        prefix = "flannel.alpha.coreos.com/"
        for number in range(2, 1002):
            high, low = divmod(number, 250)
            mac = f"02:00:00:00:{high:02x}:{low:02x}"
            told = {
                f"{prefix}kube-subnet-manager": "true",
                f"{prefix}backend-type": backend,
                f"{prefix}backend-data": json.dumps({"VNI": 1, "VtepMAC": mac}) if backend == "vxlan" else "null",
                f"{prefix}public-ip": f"172.17.0.{20 + number}" if number < 200 else f"172.17.{high + 10}.{low + 1}",
            }
            pods = f"10.244.{number >> 4}.{(number & 15) << 4}/28"
            kube.add(
                "nodes", node_object(f"m{number}", told[f"{prefix}public-ip"], pod_cidr=pods, annotations=told), namespace=None
            )
        kube.add("nodes", node_object("n1", made[0].address, pod_cidr="10.244.255.0/28"), namespace=None)
        ip(made[0].net, "address add 172.17.0.21/16 dev eth0", "address del 172.17.0.21/24 dev eth0")
        world = Agents(kube)
        world.start(made[0], conf)
        try:
            await world.ready()
            before = ip(made[0].net, "route show").splitlines()
            assert sum("proto 77" in line for line in before) == 1001
            key, have = kube.existing("nodes", "m7", namespace=None)
            kube.remove(key, have)
            gone = next(line for line in before if "10.244.0.112/28" in line)
            await until(lambda: gone not in ip(made[0].net, "route show").splitlines())
            assert ip(made[0].net, "route show").splitlines() == [line for line in before if line != gone]
        finally:
            await world.stop()
