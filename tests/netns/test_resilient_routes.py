"""A router beside a cluster on real kernels: kept connections of living nodes survive the death and the return of another."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from moyai.agent.resilient_routes import ResilientRoutes
from moyai.linux.nexthop_groups import NextHopGroups
from tests.netns.announce_world import inside
from tests.netns.bgp_world import ADDRESS, Speaking, image_root
from tests.netns.pod_world import Machine, ip, machines
from tests.netns.test_bgp import BFD

KEPT, PORT = 90, 8081


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    with image_root() as made:
        yield made


@asynccontextmanager
async def echoing(machine: Machine) -> AsyncGenerator[None]:
    """What the pods of a Service do: an echo with the machine's name."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.readline():
                writer.write(machine.name.encode() + b" " + data)
        except OSError:
            pass
        finally:
            writer.close()

    listening = inside(machine.net, socket.create_server)(("", PORT))
    async with await asyncio.start_server(answer, sock=listening):
        yield


class Kept:
    """Connections of the client that stay."""

    def __init__(self, world: Speaking) -> None:
        self._world = world
        self._made: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.nodes: list[str] = []

    async def open(self) -> None:
        for _ in range(KEPT):
            made = await asyncio.to_thread(inside(self._world.router.pod, socket.create_connection), (ADDRESS, PORT), 3)
            self._made.append(await asyncio.open_connection(sock=made))
        self.nodes = [str(one) for one in await self.asked()]

    async def asked(self, number: int = 0) -> list[str]:
        """Which node answers each; empty for one that is broken."""
        return await asyncio.gather(*(self._ask(reader, writer) for reader, writer in self._made))

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        try:
            writer.write(b"x\n")
            async with asyncio.timeout(4):
                return (await reader.readline()).split()[0].decode()
        except (OSError, TimeoutError, IndexError):
            return ""

    def close(self) -> None:
        for _, writer in self._made:
            writer.close()


async def test_connections_of_living_nodes_survive_the_death_and_the_return_of_another(root: Path) -> None:
    with machines(4) as four:
        world = Speaking(four, root)
        world.peer()
        world.service()
        world.endpoints(*world.nodes)
        async with world.running(*BFD), AsyncExitStack() as stack:
            for one in world.nodes:
                await stack.enter_async_context(echoing(one))
            mirror = asyncio.create_task(ResilientRoutes(namespace=world.router.net).run())
            stack.callback(mirror.cancel)
            await world.until(lambda: len(world.hops()) == 3)
            await world.settled()
            await world.until(lambda: len(shown(world.router)) == 3)
            kept = Kept(world)
            stack.callback(kept.close)
            await kept.open()
            assert all(kept.nodes.count(one.name) > KEPT / 8 for one in world.nodes)
            ip(f"pn{os.getpid()}-sw", "link set s1 down")
            await world.until(lambda: len(shown(world.router)) == 2)
            living = [(before, now) for before, now in zip(kept.nodes, await kept.asked(), strict=True) if before != "n1"]
            assert [now for before, now in living if now != before] == []
            ip(f"pn{os.getpid()}-sw", "link set s1 up")
            await world.until(lambda: len(shown(world.router)) == 3)
            await asyncio.sleep(1)
            living = [(before, now) for before, now in zip(kept.nodes, await kept.asked(), strict=True) if before != "n1"]
            assert [now for before, now in living if now != before] == []
            # another process takes the groups over as they are
            mirror.cancel()
            again = asyncio.create_task(ResilientRoutes(namespace=world.router.net).run())
            stack.callback(again.cancel)
            await asyncio.sleep(1)
            assert [now for before, now in zip(kept.nodes, await kept.asked(), strict=True) if before not in ("n1", now)] == []
            # no Service, no group
            world.service(address="")
            await world.until(lambda: not shown(world.router))
            with NextHopGroups(world.router.net) as kernel:
                assert (kernel.hops(), kernel.groups(), kernel.routes()) == ({}, {}, {})


def shown(router: Machine) -> frozenset[int]:
    """Next hops of the Service's group."""
    with NextHopGroups(router.net) as kernel:
        return kernel.groups().get(kernel.routes().get(f"{ADDRESS}/32", 0), frozenset())
