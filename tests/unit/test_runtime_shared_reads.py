"""Reads that several callers share: how often the source is read, and how old an answer may be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from moyai.core.errors import Retriable
from moyai.runtime.shared_reads import RecentList, SharedRead
from tests.fakes.clock import FakeClock

pytestmark = pytest.mark.virtual_time

#: Seconds that a read takes.
READ = 1.0


class Source:
    """A list in the cloud. A read returns the objects of the moment at which it began."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.objects = ["a"]
        self.reads = 0
        self.running = 0
        self.fail: list[Exception] = []

    async def read(self) -> list[str]:
        self.reads += 1
        self.running += 1
        assert self.running == 1
        found, fails = list(self.objects), self.fail.pop() if self.fail else None
        await self.clock.asleep(READ)
        self.running -= 1
        if fails:
            raise fails
        return found

    async def number(self) -> int:
        await self.read()
        return self.reads


async def _begun(reading: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """The read is under way."""
    task = asyncio.create_task(reading)
    await FakeClock().advance(READ / 2)
    return task


# ---- one value


async def test_callers_of_fresh_share_the_read_that_begins_after_they_asked() -> None:
    source = Source()
    shared = SharedRead(source.number, clock=source.clock)
    first = await _begun(shared.fresh())
    later = [asyncio.create_task(shared.fresh()) for _ in range(10)]
    assert await first == 1
    assert await asyncio.gather(*later) == [2] * 10
    assert await shared.fresh() == 3


async def test_a_read_goes_on_when_its_first_caller_is_cancelled() -> None:
    source = Source()
    shared = SharedRead(source.number, clock=source.clock)
    first = await _begun(shared.get(max_age=10))
    second = asyncio.create_task(shared.get(max_age=10))
    first.cancel()
    assert await second == 1
    assert first.cancelled()


async def test_a_value_is_read_again_when_it_is_too_old_or_forgotten() -> None:
    source = Source()
    shared = SharedRead(source.number, clock=source.clock)
    assert [await shared.get(max_age=60), await shared.get(max_age=60)] == [1, 1]
    await source.clock.asleep(61)
    assert await shared.get(max_age=60) == 2
    shared.forget()
    assert await shared.get(max_age=60) == 3


async def test_a_caller_waits_for_the_next_read_when_the_one_under_way_began_too_early() -> None:
    source = Source()
    shared = SharedRead(source.number, clock=source.clock)
    first = await _begun(shared.get(max_age=10))
    assert await asyncio.gather(first, shared.get(max_age=READ / 4), shared.get(max_age=READ / 4)) == [1, 2, 2]


async def test_an_error_reaches_all_callers_of_its_read_and_no_other() -> None:
    source = Source()
    shared = SharedRead(source.number, clock=source.clock)
    source.fail = [Retriable("busy")]
    first = await _begun(shared.get(max_age=10))
    answers = await asyncio.gather(first, shared.get(max_age=10), shared.fresh(), return_exceptions=True)
    assert [type(one) for one in answers] == [Retriable, Retriable, int]
    assert await shared.get(max_age=10) == 2


async def test_a_value_that_is_recent_enough_outlives_a_failed_read() -> None:
    source = Source()
    shared = SharedRead(source.number, clock=source.clock)
    await shared.get(max_age=10)
    source.fail = [Retriable("busy")]
    with pytest.raises(Retriable):
        await shared.fresh()
    assert await shared.get(max_age=10) == 1


# ---- lists


def listing() -> tuple[Source, RecentList[str]]:
    source = Source()
    return source, RecentList(source.read, key=lambda one: one.partition("=")[0], clock=source.clock)


async def test_one_list_serves_all_who_ask_within_its_age() -> None:
    source, shared = listing()
    answers = await asyncio.gather(*(shared.get(max_age=10) for _ in range(20)))
    assert (answers, source.reads) == ([["a"]] * 20, 1)
    await source.clock.asleep(8)
    await shared.get(max_age=10)
    assert source.reads == 1
    await source.clock.asleep(2)
    await shared.get(max_age=10)
    assert source.reads == 2


async def test_own_writes_are_in_the_list_at_once_also_those_made_while_it_was_read() -> None:
    source, shared = listing()
    reading = await _begun(shared.get(max_age=10))
    shared.put("b=1")
    shared.drop("a")
    assert await reading == ["b=1"]
    shared.put("b=2", "c")
    assert await shared.get(max_age=10) == ["b=2", "c"]
    assert source.reads == 1


async def test_a_new_list_shows_the_source_and_not_earlier_writes() -> None:
    source, shared = listing()
    await shared.get(max_age=10)
    shared.put("b")
    await source.clock.asleep(11)
    assert await shared.get(max_age=10) == ["a"]


def _written(shared: RecentList[str]) -> None:
    shared.put("b=own")


def _nothing(_: RecentList[str]) -> None:
    pass


@pytest.mark.parametrize("write", [_written, _nothing])
async def test_a_list_forgotten_while_it_is_read_serves_only_earlier_callers(write: Callable[[RecentList[str]], None]) -> None:
    source, shared = listing()
    reading = await _begun(shared.get(max_age=10))
    write(shared)
    shared.forget()
    source.objects.append("b=source")
    later = asyncio.create_task(shared.get(max_age=10))
    assert "a" in await reading
    assert await later == ["a", "b=source"]
    assert await shared.get(max_age=10) == ["a", "b=source"]
    assert source.reads == 2
