"""The pod network goes from the agents' own routes to BGP and back, node by node, on real kernels with FRR: nothing breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from itertools import permutations
from pathlib import Path

import pytest

from moyai.agent.bgp.controller import BgpController
from moyai.agent.bgp.removal import bgp_removal
from moyai.core.clock import BootClock
from moyai.kube.events import EventRecorder
from moyai.kube.objects import parse_node
from moyai.kube.resources import NODES
from moyai.plan.bgp.bgp_conf import BgpConf
from moyai.plan.node_network import NetworkConf
from moyai.plan.pod_network import pod_network_of
from moyai.plan.pod_network.bgp import bgp_conf_of
from moyai.plan.pod_network.mode_change import stages
from moyai.runtime.controllers import ControllerSetup, cache, controller_set
from moyai.runtime.metrics import Metrics
from tests.netns.bgp_world import image_root, place
from tests.netns.pod_world import Machine, ip, machines, ping
from tests.netns.test_mode_change import Talk, spec
from tests.netns.test_pod_networks import Agents, agents, until


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    with image_root() as found:
        yield found


@pytest.fixture
def three() -> Iterator[list[Machine]]:
    with machines(3) as made:
        yield made


class Moving:
    """The agents of machines, each with its controller of the pod network and, where it speaks BGP, with FRR."""

    def __init__(self, world: Agents, root: Path) -> None:
        self.world, self._root = world, root
        self._speaking: dict[str, tuple[asyncio.Event, asyncio.Task[bool], BgpController]] = {}

    async def bring(self, one: Machine, conf: NetworkConf, *, bgp: BgpConf | None) -> None:
        """The agent's pod ends, and another begins, as in a rolling update: it is ready before the next node's turn."""
        await self.world.stop_one(one)
        await self.quiet(one)
        self.world.start(one, conf)
        if bgp is not None:
            self._speak(one, bgp)
        else:
            await bgp_removal(conf.network, namespace=one.net).part.reconcile("")
        await until(lambda: not self.world.controllers[one.name].not_ready(), 30)
        if bgp is not None:
            await until(lambda: not self._speaking[one.name][2].not_ready(), 30)

    def _speak(self, one: Machine, conf: BgpConf) -> None:
        metrics, stop, kube = Metrics(), asyncio.Event(), self.world.kube
        nodes = cache(kube, NODES, parse=parse_node, metrics=metrics)
        events = EventRecorder(kube, component="test")
        made = BgpController(
            kube=kube,
            node=one.name,
            nodes=nodes,
            conf=conf,
            events=events,
            metrics=metrics,
            clock=BootClock(),
            place=place(self._root, one),
            namespace=one.net,
        )
        wanted = ControllerSetup(made.part, caches=made.caches, tasks={"FRR": made.run, "routes": made.listen})
        parts = controller_set([wanted], metrics=metrics, events=events, bind="127.0.0.1:0", shared=[nodes])
        self._speaking[one.name] = (stop, asyncio.create_task(parts.run(stop)), made)

    async def quiet(self, one: Machine) -> None:
        if one.name in self._speaking:
            stop, task, _ = self._speaking.pop(one.name)
            stop.set()
            await task


def steps(begin: str, target: str) -> list[tuple[NetworkConf, BgpConf | None]]:
    """What agents have in turn, after the mode that they come from."""
    first, last = spec(begin), spec(target)
    found = [(one.conf, one.bgp) for one in stages(first, last)]
    conf = pod_network_of(last).conf
    assert conf is not None
    return [*found, (conf, bgp_conf_of(last))]


def by_bgp(one: Machine) -> set[str]:
    return {line.split()[0] for line in ip(one.net, "route show proto bgp").splitlines() if not line.startswith(("\t", " "))}


async def test_from_host_gw_to_bgp_and_back_node_by_node_under_traffic(three: list[Machine], root: Path) -> None:
    begin = pod_network_of(spec("host-gw")).conf
    assert begin is not None
    async with agents(three, begin) as world, AsyncExitStack() as stack:
        moving = Moving(world, root)
        for one in three:
            stack.push_async_callback(moving.quiet, one)
        await until(lambda: all(ping(a, b) for a, b in permutations(three, 2)))
        async with Talk(three).going_on() as talk:
            await talk.more()
            for conf, bgp in steps("host-gw", "bgp"):
                for one in three:
                    await moving.bring(one, conf, bgp=bgp)
                    await talk.more()
                    assert all([await asyncio.to_thread(ping, a, b) for a, b in permutations(three, 2)])
            await until(lambda: all(len(by_bgp(one)) == 2 for one in three))
            # the routes beside have gone
            assert all("via" not in ip(one.net, "route show proto 77") for one in three)
            await talk.more()
            for conf, bgp in steps("bgp", "host-gw"):
                for one in three:
                    await moving.bring(one, conf, bgp=bgp)
                    await talk.more()
                    assert all([await asyncio.to_thread(ping, a, b) for a, b in permutations(three, 2)])
            assert all(by_bgp(one) == set() for one in three)
            assert all(ip(one.net, "route show proto 77").count("via") == 2 for one in three)
