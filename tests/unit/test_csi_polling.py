"""The poller and serial work: how often the cloud is asked, how late a change is seen, and in which order work runs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from moyai.core.errors import NotFound, Retriable
from moyai.csi.controller.polling import POLL, Poller
from moyai.csi.errors import Refused
from moyai.csi.grpc.serial import Serial
from tests.fakes.clock import FakeClock

pytestmark = pytest.mark.virtual_time

#: What a look at the cloud takes.
LOOK = 0.04


class Things:
    """Objects of the cloud: each is ready at its moment; the looks are counted."""

    def __init__(self, **ready_at: float) -> None:
        self.clock = FakeClock()
        self.ready_at = ready_at
        self.looks: list[str] = []
        self.fail: list[Exception] = []
        self.poller: Poller[bool] = Poller(show=self.show, list_all=self.list_all)

    async def show(self, name: str) -> bool:
        self.looks.append(name)
        await self.clock.asleep(LOOK)
        if self.fail:
            raise self.fail.pop()
        if name not in self.ready_at:
            raise NotFound(name)
        return self.clock.monotonic() >= self.ready_at[name]

    async def list_all(self) -> Mapping[str, bool]:
        self.looks.append("all")
        await self.clock.asleep(LOOK)
        return {name: self.clock.monotonic() >= moment for name, moment in self.ready_at.items()}

    async def ready(self, name: str, within: float = 100.0) -> float:
        """Seconds until it was seen."""

        def done(seen: bool | None) -> bool | None:
            if seen is None:
                raise Refused("NOT_FOUND", name)
            return seen or None

        await self.poller.until(name, done, within=within, what=name)
        return self.clock.monotonic()


@pytest.mark.parametrize("moment", [0.1, 0.3, 0.45, 1.0, 3.0])
async def test_a_change_is_seen_soon_after_it_came(moment: float) -> None:
    things = Things(a=moment)
    assert await things.ready("a") - moment < LOOK + min(1.1 * POLL.ceiling, max(2 * POLL.base, moment / 3))


async def test_many_who_wait_share_one_list_a_second() -> None:
    things = Things(**{f"v{number}": 5.0 for number in range(50)})
    seen = await asyncio.gather(*(things.ready(name) for name in things.ready_at))
    assert max(seen) < 5.0 + 2 * LOOK + POLL.ceiling
    assert things.looks == ["all"] * len(things.looks)
    assert len(things.looks) <= 7


async def test_a_cloud_that_fails_for_a_moment_is_looked_at_again() -> None:
    things = Things(a=0.2)
    things.fail = [Retriable("busy"), Retriable("busy")]
    assert await things.ready("a") < 1.0


async def test_patience_ends_for_each_alone() -> None:
    things = Things(a=2.0, b=60.0)
    first, second = await asyncio.gather(things.ready("a"), things.ready("b", within=3.0), return_exceptions=True)
    assert isinstance(first, float)
    assert isinstance(second, Refused)
    assert second.code == "DEADLINE_EXCEEDED"
    assert len(things.poller) == 0


async def test_an_object_that_is_gone_is_none_to_who_waits() -> None:
    with pytest.raises(Refused) as refused:
        await Things().ready("a")
    assert refused.value.code == "NOT_FOUND"


async def test_one_at_a_time_for_a_key() -> None:
    serial, order = Serial(), list[str]()

    async def work(name: str) -> None:
        order.append(f"+{name}")
        await asyncio.sleep(0.005)
        order.append(f"-{name}")

    await asyncio.gather(
        serial.run("a", lambda: work("a1")), serial.run("a", lambda: work("a2")), serial.run("b", lambda: work("b"))
    )
    assert order.index("-a1") < order.index("+a2")
    assert order.index("+b") < order.index("-a1")
    assert len(serial) == 0
