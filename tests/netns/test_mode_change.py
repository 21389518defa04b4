"""The mode of a pod network changes node by node on real kernels: no connection between pods breaks at any moment."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise, permutations
from pathlib import Path

import pytest

from moyai.agent.pod_network.node_files import NodeFilesController
from moyai.agent.pod_network.removal import pod_network_removal
from moyai.linux import netns
from moyai.linux.process import run
from moyai.plan.node_network import NetworkConf
from moyai.plan.pod_network import pod_network_of
from moyai.plan.pod_network.mode_change import live_files, stages, way
from moyai.spec.load import parse
from moyai.spec.model import ClusterSpec
from tests.netns.announce_world import inside
from tests.netns.pod_world import Machine, ip, machines, ping
from tests.netns.test_pod_networks import Agents, agents, until

#: More than any path carries in one packet.
_LARGE = b"x" * 20_000


@pytest.fixture
def three() -> Iterator[list[Machine]]:
    with machines(3) as made:
        for one in made:
            # a router leads to all pods, as the cloud's does in mode routes: here each machine knows the others by itself
            for other in made:
                if other != one:
                    ip(one.net, f"route add {other.pod_cidr} via {other.address} metric 500")
        yield made


def spec(mode: str) -> ClusterSpec:
    return parse(f"spec: {{network: {{mode: {mode}, nodeCIDR: 172.17.0.0/24}}}}").spec


class Talk:
    """A connection between each two pods, each way. An echo is asked for again and again."""

    def __init__(self, made: list[Machine]) -> None:
        self._made, self.errors, self.said = made, list[str](), 0
        self._tasks: list[asyncio.Task[None]] = []
        self._answering: set[asyncio.Task[object] | None] = set()

    @asynccontextmanager
    async def going_on(self) -> AsyncGenerator[Talk]:
        async with AsyncExitStack() as stack:
            for one in self._made:
                listening = inside(one.pod, socket.create_server)(("", 7000))
                await stack.enter_async_context(await asyncio.start_server(self._echo, sock=listening))
            for a, b in permutations(self._made, 2):
                made = inside(a.pod, socket.create_connection)((b.pod_address, 7000), 5)
                self._tasks.append(asyncio.create_task(self._ask(f"{a.name} to {b.name}", made)))
            try:
                yield self
            finally:
                for task in self._tasks:
                    task.cancel()
                await asyncio.gather(*self._tasks, *filter(None, self._answering), return_exceptions=True)

    async def _echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._answering.add(asyncio.current_task())
        try:
            while data := await reader.read(65536):
                writer.write(data)
        except OSError:
            pass  # the other side ended in the middle
        finally:
            writer.close()

    async def _ask(self, what: str, made: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=made)
        try:
            while True:
                writer.write(_LARGE)
                async with asyncio.timeout(5):
                    await reader.readexactly(len(_LARGE))
                self.said += 1
                await asyncio.sleep(0.01)
        except (OSError, EOFError, TimeoutError) as error:
            self.errors.append(f"{what}: {type(error).__name__} {error}")
        finally:
            writer.close()

    async def more(self) -> None:
        """Each connection has said something since."""
        before = self.said
        await until(lambda: bool(self.errors) or self.said >= before + 3 * len(self._tasks))
        assert self.errors == []


def confs(modes: list[str]) -> list[NetworkConf | None]:
    """What agents have in turn."""
    found: list[NetworkConf | None] = [pod_network_of(spec(modes[0])).conf]
    for begin, target in pairwise(modes):
        found += [one.conf for one in stages(spec(begin), spec(target))]
        found.append(pod_network_of(spec(target)).conf)
    return found


@pytest.mark.parametrize(("begin", "target"), [("host-gw", "vxlan"), ("vxlan", "host-gw"), ("host-gw", "routes")])
async def test_a_mode_changes_node_by_node_under_traffic(three: list[Machine], begin: str, target: str) -> None:
    first, *rest = confs([begin, *way(begin, target)])
    assert first is not None
    if target != "routes":
        for one in three:
            for other in three:
                if other != one:
                    ip(one.net, f"route delete {other.pod_cidr} via {other.address} metric 500")
    async with agents(three, first) as world:
        await until(lambda: all(ping(a, b) for a, b in permutations(three, 2)))
        async with Talk(three).going_on() as talk:
            await talk.more()
            for conf in rest:
                for one in three:
                    await another(world, one, conf=conf)
                    await talk.more()
                    assert all([await asyncio.to_thread(ping, a, b) for a, b in permutations(three, 2)])
    links = ip(three[0].net, "link show")
    assert ("flannel.1" in links) == (target == "vxlan")
    assert ("proto 77" in ip(three[0].net, "route show")) == (target != "routes")


async def another(world: Agents, one: Machine, *, conf: NetworkConf | None) -> None:
    """The agent of one machine ends, and another begins."""
    await world.stop_one(one)
    if conf is not None:
        world.start(one, conf)
        await until(lambda: not world.controllers[one.name].not_ready())
        return
    setup = pod_network_removal(one.net)
    await setup.part.reconcile("")


async def test_a_stage_that_is_cut_short_and_begun_again_breaks_nothing(three: list[Machine]) -> None:
    """One node is at the next stage, an agent is killed between its steps, and the same stage begins again."""
    _, first, second, _ = confs(["host-gw", "vxlan"])
    assert first is not None
    assert second is not None
    async with agents(three, confs(["host-gw"])[0] or first) as world, Talk(three).going_on() as talk:
        for conf in (first, second):
            for one in three:
                await world.stop_one(one)
                world.start(one, conf)
                # killed at once, wherever it is
                await asyncio.sleep(0.02)
                await world.kill_one(one)
                await talk.more()
                await another(world, one, conf=conf)
            await talk.more()
        device = ip(three[0].net, "route show proto 77")
        assert f"{three[1].pod_cidr} via 10.244.2.0 dev flannel.1" in device


async def test_the_files_of_a_node_follow(three: list[Machine], tmp_path: Path) -> None:
    one = three[0]
    for folder in ("etc/cni/net.d", "etc/moyai"):
        (tmp_path / folder).mkdir(parents=True)
    async with agents(three, confs(["vxlan"])[0] or NetworkConf("10.244.0.0/16", "vxlan")) as world:
        for mode, mtu in (("vxlan", 1450), ("host-gw", 1500)):
            made = NodeFilesController(
                nodes=world.nodes[one.name],
                node=one.name,
                files=live_files(spec(mode).network),
                root=tmp_path,
                namespace=one.net,
                apply=lambda text: inside(one.net, lambda: run(["nft", "-f", "-"], stdin=text, timeout=20))() and None,
            )
            await made.reconcile("")
            assert not made.not_ready()
            conflist = (tmp_path / "etc/cni/net.d/10-moyai.conflist").read_text()
            assert f'"mtu": {mtu}' in conflist
            assert one.pod_cidr in conflist
            rules = (tmp_path / "etc/moyai/masquerade.nft").read_text()
            assert ("172.17.0.0/24" in rules) == (mode == "host-gw")
            seen = run([*netns.prefix(one.net), "nft", "list", "table", "ip", "moyai"], timeout=20).stdout
            assert ("172.17.0.0/24" in seen) == (mode == "host-gw")
