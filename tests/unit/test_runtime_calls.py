"""Calls in threads, and tasks side by side."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, cast

import pytest

from moyai.core.errors import CredentialsRefused, NotFound, Retriable
from moyai.runtime.calls import CloudCalls, Threads
from moyai.runtime.concurrency import side_by_side
from moyai.runtime.metrics import Metrics
from tests.fakes.clock import FakeClock


def calls(threads: Threads | None = None) -> CloudCalls:
    return CloudCalls(cast("Any", None), Metrics(), threads=threads or Threads("test", 2))


async def turns() -> None:
    """Let every task go on until it waits for a thread or for an event."""
    for _ in range(10):
        await asyncio.sleep(0)


# ---- calls


async def test_calls_are_counted_by_name_and_outcome() -> None:
    made = calls()

    def servers() -> str:
        return "list"

    def server() -> None:
        raise NotFound("gone")

    assert await made.call(servers) == "list"
    with pytest.raises(NotFound):
        await made.call(server)
    assert made.metrics.value("moyai_cloud_calls_total", call="servers", outcome="ok") == 1
    assert made.metrics.value("moyai_cloud_calls_total", call="server", outcome="notfound") == 1
    assert made.metrics.value("moyai_cloud_call_seconds_count", call="servers") == 1


async def test_credentials_that_were_refused_are_not_shown_again_by_everybody_at_once() -> None:
    clock, asked = FakeClock(), list[str]()
    made = CloudCalls(cast("Any", None), Metrics(), threads=Threads("test", 2), clock=clock)
    others = made.on(Threads("others", 2))

    def servers() -> str:
        asked.append("servers")
        if len(asked) < 3:
            raise CredentialsRefused("401")
        return "list"

    for caller in (made, others, made):
        with pytest.raises(CredentialsRefused):
            await caller.call(servers)
    assert asked == ["servers"]
    clock.sleep(1.1)
    with pytest.raises(CredentialsRefused):
        await others.call(servers)
    clock.sleep(1.1)
    assert await made.call(servers) == "list"
    assert await others.call(servers) == "list"
    assert made.metrics.value("moyai_cloud_credentials_refused_total") == 2


async def test_calls_that_hang_hold_only_those_who_share_their_threads() -> None:
    release = threading.Event()
    stuck = calls(Threads("stuck", 1))
    waiting = [asyncio.create_task(stuck.call(release.wait)) for _ in range(3)]
    try:
        assert await stuck.on(Threads("others", 1)).call(lambda: "answered") == "answered"
        assert not any(one.done() for one in waiting)
    finally:
        release.set()
        await asyncio.gather(*waiting)


async def test_a_call_under_way_is_waited_for_when_its_task_is_cancelled() -> None:
    began, release = threading.Event(), threading.Event()
    made: list[str] = []

    def create() -> None:
        began.set()
        release.wait()
        made.append("created")

    task = asyncio.create_task(calls().call(create))
    await asyncio.to_thread(began.wait)
    task.cancel()
    await turns()
    assert not task.done()
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert made == ["created"]


async def test_a_call_is_given_up_when_its_task_is_cancelled_twice_and_one_that_waits_at_once() -> None:
    began, release = threading.Event(), threading.Event()

    def hang() -> None:
        began.set()
        release.wait()

    made = calls(Threads("one", 1))
    running = asyncio.create_task(made.call(hang))
    await asyncio.to_thread(began.wait)
    queued = asyncio.create_task(made.call(hang))
    await turns()
    try:
        queued.cancel()
        running.cancel()
        await asyncio.wait([queued])
        await turns()
        running.cancel()
        await asyncio.wait([running])
    finally:
        release.set()


# ---- side by side


async def test_the_first_error_is_raised_itself_and_the_other_tasks_end() -> None:
    ended: list[str] = []

    async def long() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("long")

    async def fails() -> None:
        raise Retriable("busy")

    async def both() -> None:
        async with side_by_side() as group:
            group.create_task(long())
            await turns()
            group.create_task(fails())

    with pytest.raises(Retriable, match="busy"):
        await both()
    assert ended == ["long"]
