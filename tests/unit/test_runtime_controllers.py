"""A set of controllers: in which order its parts start, when they run, and how they end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from moyai.core.errors import Retriable, Terminal, UsageError
from moyai.kube.events import EventRecorder
from moyai.kube.leader import LeaderElection
from moyai.kube.resources import Resource
from moyai.kube.workqueue import WorkQueue
from moyai.runtime.controllers import ControllerSet, ControllerSetup, Part, Periodic, Probes, controller_set
from moyai.runtime.metrics import Metrics
from moyai.runtime.reconciler import DONE, Result
from tests.fakes.kubernetes import Kubernetes

pytestmark = pytest.mark.virtual_time


class Cache:
    """An informer as a set knows it."""

    def __init__(self, plural: str) -> None:
        self.resource = Resource("", "v1", plural, namespaced=True)
        self.where = ""
        self.synced = asyncio.Event()
        self.healthy = True

    async def run(self) -> None:
        await asyncio.Event().wait()


class Election(LeaderElection):
    def __init__(self) -> None:
        self.lost = asyncio.Event()
        self.acquired = asyncio.Event()
        self.released = False

    async def acquire(self) -> None:
        await self.acquired.wait()

    async def hold(self) -> None:
        await self.lost.wait()

    async def release(self) -> None:
        self.released = True


class Recorder:
    """A controller that writes down what happened to it."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def part(self, *, periodic: tuple[Periodic, ...] = ()) -> Part:
        return Part("one", self.reconcile, self.watch, periodic=periodic)

    def watch(self, queue: WorkQueue) -> None:
        queue.add("key")

    async def reconcile(self, key: str) -> Result:
        self.log.append(f"reconcile {key}")
        return DONE

    async def task(self) -> None:
        self.log.append("task")
        await asyncio.Event().wait()

    async def warm_up(self) -> None:
        self.log.append("warm-up")
        raise Terminal("the cloud does not answer")

    async def end(self) -> None:
        self.log.append("end")


async def test_controllers_begin_when_caches_are_full_and_this_process_leads_and_end_when_it_does_not() -> None:
    cache: Any = Cache("nodes")
    election, seen = Election(), Recorder()
    parts = ControllerSet(
        metrics=Metrics(),
        caches=[cache],
        parts=[seen.part()],
        tasks={"task": seen.task},
        warm_ups=[seen.warm_up],
        election=election,
        probes=Probes("127.0.0.1:0"),
        at_end=seen.end,
    )
    running = asyncio.create_task(parts.run(asyncio.Event()))
    await asyncio.sleep(1)
    assert sorted(seen.log) == ["task", "warm-up"]
    cache.synced.set()
    await asyncio.sleep(1)
    assert "reconcile key" not in seen.log
    election.acquired.set()
    await asyncio.sleep(1)
    assert seen.log[-1] == "reconcile key"
    assert "moyai_leading 1.0" in parts.metrics.text()
    election.lost.set()
    assert await running is False
    assert seen.log[-1] == "end"
    assert election.released


def test_two_caches_of_the_same_objects_are_refused_and_one_cache_may_come_twice() -> None:
    first, second, other, elsewhere = (Cache("nodes") for _ in range(4))
    other.where, elsewhere.where = " in a", " in b"
    twins: list[Any] = [first, second]
    with pytest.raises(ValueError, match="two caches of nodes"):
        ControllerSet(metrics=Metrics(), caches=twins)
    apart: list[Any] = [first, other, elsewhere]
    ControllerSet(metrics=Metrics(), caches=apart)
    shared: Any = first
    wanted = [ControllerSetup(Recorder().part(), caches=(shared,)) for _ in range(2)]
    controller_set(wanted, metrics=Metrics(), events=EventRecorder(Kubernetes(), component="test"), bind="127.0.0.1:0")


async def test_a_periodic_task_comes_again_and_sooner_after_an_error_that_may_pass() -> None:
    times: list[float] = []

    async def run() -> None:
        times.append(asyncio.get_running_loop().time())
        if len(times) == 1:
            raise Retriable("busy")

    stop = asyncio.Event()
    seen = Recorder()
    parts = ControllerSet(metrics=Metrics(), parts=[seen.part(periodic=(Periodic("look", run, 3600.0),))])
    running = asyncio.create_task(parts.run(stop))
    await asyncio.sleep(4000)
    stop.set()
    assert await running is True
    assert [round(later - times[0]) for later in times] == [0, 60, 3660]


async def test_a_set_of_services_only_has_no_series_of_controllers() -> None:
    seen = Recorder()
    stop = asyncio.Event()
    services = ControllerSet(metrics=Metrics(), tasks={"task": seen.task})
    running = asyncio.create_task(services.run(stop))
    await asyncio.sleep(1)
    stop.set()
    assert await running is True
    assert services.metrics.text() == ""


async def test_probes_that_cannot_be_served_are_a_users_error() -> None:
    with pytest.raises(UsageError, match=r"probes cannot be served on 127\.0\.0\.1:http"):
        await ControllerSet(metrics=Metrics(), probes=Probes("127.0.0.1:http")).run(asyncio.Event())
