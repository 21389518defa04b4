"""BGP on real kernels with a real FRR: pods and Services reach a router outside, withdrawals, failures, refusals."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from moyai.agent.bgp.seen import read_bgp
from moyai.core.errors import Terminal
from moyai.kube.resources import BGP_ADVERTISEMENTS, BGP_PEERS, SERVICE_BGP_STATUSES
from moyai.linux import netns
from moyai.linux.process import run
from moyai.plan.announce.metallb_words import NAMESPACE
from moyai.plan.bgp.bgp_conf import BgpConf, PeerConf
from tests.netns.bgp_world import ADDRESS, CLIENTS, CLUSTER_AS, ROUTER_AS, Speaking, image_root, place
from tests.netns.pod_world import Machine, ip, machines, ping

BFD = ("bfd", "bfd profile fast")


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    with image_root() as made:
        yield made


@pytest.fixture
def four() -> Iterator[list[Machine]]:
    with machines(4) as made:
        yield made


def spec_router(four: list[Machine]) -> PeerConf:
    return PeerConf("rt-01", four[-1].address, ROUTER_AS, accept=(CLIENTS,))


def services(four: list[Machine], root: Path, *, local: bool = False) -> Speaking:
    """The router is the spec's; a Service has an endpoint on each node."""
    world = Speaking(four, root, peer=spec_router(four))
    world.service(local=local)
    world.endpoints(*world.nodes)
    return world


async def test_pods_reach_each_other_and_a_client_reaches_a_service_over_all_nodes(four: list[Machine], root: Path) -> None:
    world = services(four, root)
    async with world.running(*BFD):
        await world.until(lambda: world.hops() == world.addresses(*world.nodes))
        one, two, three = world.nodes
        await world.until(lambda: ping(one, two) and ping(three, one))
        # pods' ranges are at the router, and the clients' at the nodes; nothing else came in
        assert world.hops(two.pod_cidr) == {two.address}
        learned = {line.split()[0] for line in ip(one.net, "route show proto bgp").splitlines()}
        assert learned == {two.pod_cidr, three.pod_cidr, CLIENTS}
        assert {await world.asks() for _ in range(40)} == {one.name, two.name, three.name}
        # one path a node
        assert world.frr is not None
        paths = (await world.frr.show("bgpd", f"show bgp ipv4 unicast {ADDRESS}/32 json"))["paths"]
        assert {path["peer"]["peerId"] for path in paths} == world.addresses(*world.nodes)
        assert all(path["metric"] == 0 for path in paths)
        statuses = [status["status"] for status in world.kube.all(SERVICE_BGP_STATUSES)]
        assert sorted(status["node"] for status in statuses) == ["n1", "n2", "n3"]
        assert all(status["peers"] == ["rt-01"] for status in statuses)
        assert all(not agent.not_ready() for agent in world.agents.values())
        # no interface has the address
        assert ADDRESS not in ip(one.net, "address show")


async def test_a_service_comes_and_goes_without_a_change_of_configuration(four: list[Machine], root: Path) -> None:
    world = services(four, root)
    async with world.running():
        await world.until(lambda: len(world.hops()) == 3)
        world.endpoints(*world.nodes, name="more")
        world.service("more", "10.8.0.201")
        assert await world.until(lambda: len(world.hops("10.8.0.201")) == 3) < 2
        world.endpoints(name="more")
        assert await world.until(lambda: not world.hops("10.8.0.201")) < 2
        assert "BgpSessionDown" not in str(world.events())


async def test_with_the_local_policy_nodes_with_endpoints_are_next_hops(four: list[Machine], root: Path) -> None:
    world = services(four, root, local=True)
    one, two, three = world.nodes
    async with world.running():
        await world.until(lambda: world.hops() == world.addresses(one, two, three))
        world.endpoints(two, three)
        await world.until(lambda: world.hops() == world.addresses(two, three))
        assert {await world.asks() for _ in range(20)} <= {two.name, three.name}


async def test_a_drain_withdraws_first(four: list[Machine], root: Path) -> None:
    world = services(four, root)
    one, two, three = world.nodes
    async with world.running():
        await world.until(lambda: len(world.hops()) == 3)
        world.node(one, unschedulable=True)
        assert await world.until(lambda: world.hops() == world.addresses(two, three)) < 2
        # its pods are still reached, and it serves what still comes
        assert world.hops(one.pod_cidr) == {one.address}
        world.node(one)
        await world.until(lambda: len(world.hops()) == 3)


async def test_a_silent_death_is_noticed_by_bfd_long_before_a_session_runs_out(four: list[Machine], root: Path) -> None:
    world = services(four, root)
    one, two, three = world.nodes
    async with world.running(*BFD):
        await world.until(lambda: len(world.hops()) == 3)
        await world.until(lambda: world.agents["n1"].sessions_up == 3)
        # BFD's first intervals are of a second
        await world.settled(*world.nodes)
        ip(f"pn{os.getpid()}-sw", "link set s1 down")
        # without BFD it takes the sessions' nine seconds; on an idle machine it takes less than one
        assert await world.until(lambda: world.hops() == world.addresses(two, three)) < 5
        assert await world.asks() in (two.name, three.name)
        await world.until(lambda: not ip(two.net, f"route show {one.pod_cidr} proto bgp"))
        ip(f"pn{os.getpid()}-sw", "link set s1 up")
        await world.until(lambda: len(world.hops()) == 3)


@pytest.mark.parametrize("daemon", ["bgpd", "zebra", "bfdd"])
async def test_a_daemon_that_dies_is_started_again_and_configured(four: list[Machine], root: Path, daemon: str) -> None:
    world = services(four, root)
    one = world.nodes[0]
    async with world.running(*BFD):
        await world.until(lambda: len(world.hops()) == 3 and world.agents["n1"].sessions_up == 3)
        before = world.agents["n1"].pid(daemon)
        os.kill(before, signal.SIGKILL)
        await world.until(lambda: world.agents["n1"].pid(daemon) not in (0, before))
        await world.until(lambda: len(world.hops()) == 3 and world.agents["n1"].sessions_up == 3)
        await world.until(lambda: ping(one, world.nodes[1]))
        assert world.metrics["n1"].text().count(f'moyai_frr_restarts_total{{daemon="{daemon}"}} 1.0') == 1


async def test_an_agent_that_restarts_loses_no_packet(four: list[Machine], root: Path) -> None:
    world = services(four, root)
    one, two, _ = world.nodes
    async with world.running(*BFD, "graceful-restart"):
        await world.until(lambda: len(world.hops()) == 3 and world.agents["n1"].sessions_up == 3)
        await world.until(lambda: ping(two, one))
        await world.settled()
        words = ["ping", "-i", "0.05", "-c", "240", "-W", "1", one.pod_address]
        pings = asyncio.create_task(asyncio.to_thread(run, [*netns.prefix(two.pod), *words], timeout=60, check=False))
        await asyncio.sleep(0.5)
        world.stops["n1"].set()
        await world.until(lambda: world.agents["n1"].pid("bgpd") == 0)
        # longer than BFD is patient
        for _ in range(20):
            assert len(world.hops()) == 3
            await asyncio.sleep(0.1)
        async with world.agent(one):
            await world.until(lambda: world.agents["n1"].sessions_up == 3)
            said = (await pings).stdout
            await world.until(lambda: len(world.hops()) == 3)
        assert " 0% packet loss" in said, said.splitlines()[-2:]


async def test_a_wrong_password_is_said(four: list[Machine], root: Path) -> None:
    world = Speaking(four, root)
    world.peer(password="wrong")
    async with world.running("password right"):
        await world.until(lambda: any("wrong password" in one for one in world.events()))
        assert not any("right" in one for one in world.events())
        # what is set right heals
        world.peer(password="right")
        world.service()
        world.endpoints(*world.nodes)
        await world.until(lambda: len(world.hops()) == 3)


async def test_a_router_that_does_not_answer_is_said(four: list[Machine], root: Path) -> None:
    world = Speaking(four, root, pods=False)
    world.peer(peerAddress="172.17.0.99")
    async with world.running():
        await world.until(lambda: any("no BGP session with router router (172.17.0.99)" in one for one in world.events()))
        assert all(not agent.not_ready() for agent in world.agents.values())


async def test_advertisements_give_attributes_and_a_change_keeps_the_route(four: list[Machine], root: Path) -> None:
    world = services(four, root)
    async with world.running():
        await world.until(lambda: len(world.hops()) == 3)
        world.metallb(BGP_ADVERTISEMENTS, "all", communities=["64512:100", "large:1:2:3"])
        seen: list[str] = []

        async def attributes() -> str:
            assert world.frr is not None
            found = await world.frr.show("bgpd", f"show bgp ipv4 unicast {ADDRESS}/32 json")
            return " ".join(sorted({path.get("community", {}).get("string", "-") for path in found["paths"]}))

        while not seen or seen[-1] != "64512:100":
            seen.append(await attributes())
            assert len(world.hops()) == 3
            assert len(seen) < 2000
        world.metallb(BGP_ADVERTISEMENTS, "all", aggregationLength=28)
        await world.until(lambda: len(world.hops("10.8.0.192/28")) == 3)
        assert not world.hops()


async def test_reflectors_pass_routes_on_and_one_of_two_may_die(root: Path) -> None:
    with machines(5) as five:
        world = Speaking(five, root)
        world.conf = replace(world.conf, mesh_up_to=2)
        first, second, *clients = world.nodes
        async with world.running():
            # more nodes than a mesh should have, and none that reflects
            await world.until(lambda: any("BgpMeshLarge" in one for one in world.events()))
            await world.until(lambda: ping(clients[0], clients[1]))
            for one in (first, second):
                world.node(one, labels={world.conf.reflector: ""})
            await world.until(lambda: [world.agents[one.name].sessions_up for one in world.nodes] == [3, 3, 2, 2])
            await world.until(lambda: ping(clients[0], clients[1]) and ping(clients[1], first))
            ip(f"pn{os.getpid()}-sw", "link set s1 down")
            await world.until(lambda: [world.agents[one.name].sessions_up for one in clients] == [1, 1])
            assert ping(clients[0], clients[1], count=3)
            await world.until(lambda: not ip(clients[0].net, f"route show {first.pod_cidr} proto bgp"), within=5)


async def test_a_route_that_somebody_removes_comes_back(four: list[Machine], root: Path) -> None:
    world = services(four, root)
    one = world.nodes[0]
    async with world.running():
        await world.until(lambda: len(world.hops()) == 3)
        ip(one.net, f"route del {ADDRESS}/32")
        await world.until(lambda: f"{ADDRESS} dev lo proto 78" in ip(one.net, "route show table main"))
        await world.until(lambda: len(world.hops()) == 3)


async def test_metallbs_own_configuration_works_without_the_mode(four: list[Machine], root: Path) -> None:
    world = Speaking(four, root, pods=False)
    world.conf = BgpConf(ranges=world.conf.ranges)
    world.peer(bfdProfile="", holdTime="9s", keepaliveTime="3s")
    world.service()
    world.endpoints(*world.nodes)
    async with world.running():
        await world.until(lambda: len(world.hops()) == 3)
        # no pods are told, and no session is between nodes
        assert world.hops(world.nodes[0].pod_cidr) == set()
        assert CLUSTER_AS in [int(path["aspath"]["string"]) for path in await world.paths()]
        # an unserved port is refused by the node, and goes round nowhere
        done = run([*netns.prefix(world.router.pod), "ping", "-c1", "-W1", ADDRESS], timeout=20, check=False)
        assert done.returncode in (0, 1)


async def test_what_frr_knows_is_seen_from_outside(four: list[Machine], root: Path) -> None:
    world = services(four, root)
    one = world.nodes[0]
    async with world.running(*BFD):
        await world.until(lambda: len(world.hops()) == 3 and world.agents["n1"].sessions_up == 3)
        await world.until(lambda: len(ip(one.net, "route show proto bgp").splitlines()) == 3)
        await world.settled()
        # a session may stand a moment before its BFD does
        async with asyncio.timeout(30):
            while any(each.bfd != "up" for each in (await asyncio.to_thread(read_bgp, place(root, one))).sessions):
                await asyncio.sleep(0.1)
        seen = await asyncio.to_thread(read_bgp, place(root, one))
        assert {(each.about, each.asn, each.state) for each in seen.sessions} == {
            ("node n2", CLUSTER_AS, "Established"),
            ("node n3", CLUSTER_AS, "Established"),
            ("router rt-01", ROUTER_AS, "Established"),
        }
        assert {(each.prefix, each.gateway, each.asns) for each in seen.paths if each.used} == {
            ("10.244.1.0/24", "", ""),
            ("10.244.2.0/24", "172.17.0.22", ""),
            ("10.244.3.0/24", "172.17.0.23", ""),
            (f"{ADDRESS}/32", "", ""),
            (CLIENTS, world.router.address, str(ROUTER_AS)),
        }
    with pytest.raises(Terminal, match="FRR does not run"):
        await asyncio.to_thread(read_bgp, place(root, one))


async def test_a_node_with_nobody_to_speak_to_is_ready_without_frr_and_starts_it_with_the_first_peer(
    four: list[Machine], root: Path
) -> None:
    world = Speaking(four, root, pods=False)
    world.conf = BgpConf(ranges=world.conf.ranges)
    world.service()
    world.endpoints(*world.nodes)
    async with world.running():
        await world.until(lambda: all(not agent.not_ready() for agent in world.agents.values()))
        assert all(agent.pid("bgpd") == 0 for agent in world.agents.values())
        world.peer()
        await world.until(lambda: len(world.hops()) == 3)
        # the last peer takes all announcements along
        await world.kube.delete(BGP_PEERS, "router", namespace=NAMESPACE)
        await world.until(lambda: not world.hops())
        await world.until(lambda: not ip(world.nodes[0].net, "route show proto 78"))
