"""Two nodes never have one egress address, whatever their clocks, the API's delays and pauses of their processes do.

The electors are the agent's, with its times. The kernel is a model of what ``plan.egress_rules`` makes of it: an address is
held from a transaction on for the time-out in it, and the transaction fails where the ticket before it has ended.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from moyai.agent.address_elector import AddressElector, LeaseCallbacks
from moyai.agent.egress.controller import TIMES
from moyai.core.errors import Unreachable
from moyai.kube.resources import Json, Resource
from moyai.plan.egress_rules import TICKET, hold, put_ticket
from tests.fakes.clock import FakeClock
from tests.fakes.kubernetes import Kubernetes

pytestmark = pytest.mark.virtual_time

ADDRESS, REFRESH = "10.8.0.97", 0.3


def nothing(_address: str) -> None:
    return


class OwnClock(FakeClock):
    """Of one machine: it began at another moment, and goes at a rate of its own."""

    def __init__(self, rate: float, ahead: float) -> None:
        super().__init__()
        self.rate, self._ahead = rate, ahead

    def monotonic(self) -> float:
        return self._ahead + super().monotonic() * self.rate


class Way(Kubernetes):
    """A client of ``kube``. ``delay``: called before and after each request. ``cut``: nothing passes any more."""

    def __init__(self, kube: Kubernetes, delay: Callable[[], Awaitable[None]]) -> None:
        super().__init__()
        self._real, self._delay = kube, delay
        self.cut = False

    async def _pass(self) -> None:
        await self._delay()
        while self.cut:
            await asyncio.sleep(0.1)

    async def get(self, resource: Resource, name: str, *, namespace: str | None = None) -> Json:
        await self._pass()
        return await self._real.get(resource, name, namespace=namespace)

    async def create(self, resource: Resource, body: Json, *, namespace: str | None = None) -> Json:
        answer = await self._real.create(resource, body, namespace=namespace)
        await self._pass()
        return answer

    async def replace(self, resource: Resource, name: str, **change: Any) -> Json:
        await self._pass()
        answer = await self._real.replace(resource, name, **change)
        await self._pass()
        return answer


class Machine:
    """``held``: until when, by the world's clock, packets with the address leave it."""

    def __init__(self, name: str, kube: Way, *, clock: OwnClock, chance: random.Random, pauses: float) -> None:
        self.name, self.way, self._chance, self._pauses = name, kube, chance, pauses
        self.clock, self.held = clock, 0.0
        calls = LeaseCallbacks(announce=nothing, taken=nothing, lost=nothing)
        self.elector = AddressElector(
            ADDRESS, kube=kube, node=name, clock=clock, callbacks=calls, times=TIMES, lease="egress-10-8-0-97"
        )

    async def refresh(self, others: list[Machine]) -> None:
        world = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(REFRESH)
            if not self.elector.left:
                continue
            ticket = self.clock.monotonic()
            await self._pause()
            left = self.elector.left
            await self._pause()
            if not left or self.clock.monotonic() - ticket > TICKET:
                continue
            now = world.time()
            assert all(one.held <= now for one in others if one is not self), f"two have it at {now}"
            self.held = now + max(0.0, left - TICKET) / self.clock.rate

    async def _pause(self) -> None:
        if self._chance.random() < self._pauses:
            await asyncio.sleep(self._chance.choice([0.05, 0.19, 0.5, 3.0]))


@pytest.mark.parametrize("seed", range(12))
async def test_two_never_have_the_address(seed: int) -> None:
    chance, kube = random.Random(seed), Kubernetes()

    async def delay() -> None:
        await asyncio.sleep(chance.choice([0.0, 0.0, 0.01, 0.01, 0.05, 0.3, 1.6]))
        if chance.random() < 0.05:
            raise Unreachable("lost")

    # clocks differ by a tenth of a per cent, which is more than any machine's do
    made = [
        Machine(f"n{n}", Way(kube, delay), clock=OwnClock(rate, ahead), chance=chance, pauses=0.3)
        for n, (rate, ahead) in enumerate([(0.999, 5000.0), (1.0, 3.0), (1.001, 70.0)])
    ]
    tasks = [asyncio.create_task(one.refresh(made)) for one in made]
    for one in made:
        one.elector.start()
    owners: list[str] = []
    for _ in range(600):
        await asyncio.sleep(0.2)
        # some lose their way to the API for a while
        made[chance.randrange(3)].way.cut = chance.random() < 0.3
        owners += [one.name for one in made if one.held > asyncio.get_running_loop().time()]
        for task in tasks:
            assert not task.done() or task.exception() is None, task.exception()
    # the address was somebody's, and moved: else nothing was tried
    assert len(set(owners)) > 1
    for one, task in zip(made, tasks, strict=True):
        one.way.cut = False
        task.cancel()
    await asyncio.gather(*(one.elector.stop() for one in made))


@pytest.mark.parametrize("moment", [5.0 + part / 20 for part in range(20)])
async def test_another_node_has_the_address_within_three_seconds_of_a_silent_death(moment: float) -> None:
    kube, chance = Kubernetes(), random.Random(0)
    ways = [Way(kube, lambda: asyncio.sleep(0.01)) for _ in range(2)]
    made = [Machine(f"n{n}", way, clock=OwnClock(1.0, 9.0 * n), chance=chance, pauses=0.0) for n, way in enumerate(ways)]
    tasks = [asyncio.create_task(one.refresh(made)) for one in made]
    made[0].elector.start()
    await asyncio.sleep(1)
    made[1].elector.start()
    await asyncio.sleep(moment)
    loop = asyncio.get_running_loop()
    assert made[0].held > loop.time()
    ways[0].cut, died = True, loop.time()
    while made[1].held <= loop.time():
        await asyncio.sleep(0.01)
    assert loop.time() - died < 3.0
    ways[0].cut = False
    for task in tasks:
        task.cancel()
    await asyncio.gather(*(one.elector.stop() for one in made))


def test_what_the_kernel_is_told_ends_before_the_clock_says_so() -> None:
    assert TIMES.retry < TIMES.deadline < TIMES.duration
    assert "timeout 200ms" in put_ticket()
    text = hold({ADDRESS: 1.5, "10.8.0.98": 0.1})
    assert text.index("delete element") < text.index("add element")
    # less the longest time from the look at the clock to the kernel's answer
    assert f"{ADDRESS} timeout 1300ms" in text
    assert "10.8.0.98" not in text
