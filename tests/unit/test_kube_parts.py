"""Informer, work queue, election and events over a Kubernetes API in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from moyai.core.backoff import Backoff
from moyai.core.errors import Retriable
from moyai.kube.events import EventRecorder
from moyai.kube.informer import Informer
from moyai.kube.leader import LeaderElection, LeaseTimes
from moyai.kube.objects import Reference, Service, parse_node, parse_service
from moyai.kube.resources import EVENTS, LEASES, SERVICES, Json, Resource
from moyai.kube.workqueue import WorkQueue
from tests.fakes.clock import FakeClock
from tests.fakes.kubernetes import Kubernetes
from tests.unit.ccm_world import service_object

pytestmark = pytest.mark.virtual_time

QUICK = Backoff(base=0.01, ceiling=0.05)


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def running(informer: Informer[Service]) -> AsyncGenerator[list[str]]:
    seen: list[str] = []

    def told(key: str, old: Service | None, new: Service | None) -> None:
        seen.append(f"{'+' if old is None else '-' if new is None else '~'}{key}")

    informer.add_handler(told)
    task = asyncio.create_task(informer.run())
    try:
        await until(informer.synced.is_set)
        yield seen
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def informer(kube: Kubernetes, **options: Any) -> Informer[Service]:
    return Informer(kube, SERVICES, parse=parse_service, backoff=QUICK, **options)


# --- informer


async def test_handlers_hear_of_what_comes_changes_and_goes() -> None:
    kube = Kubernetes()
    kube.put(SERVICES, service_object("a"))
    async with running(informer(kube)) as seen:
        kube.put(SERVICES, service_object("b"))
        kube.put(SERVICES, service_object("a", type="ClusterIP"))
        await kube.delete(SERVICES, "b", namespace="default")
        await until(lambda: len(seen) == 4)
    assert seen == ["+default/a", "+default/b", "~default/a", "-default/b"]


async def test_after_a_break_no_deletion_is_lost() -> None:
    kube = Kubernetes()
    for name in ("a", "b"):
        kube.put(SERVICES, service_object(name))
    breaks: list[str] = []

    def broke(_name: str, why: str) -> None:
        breaks.append(why)

    watched = informer(kube, on_break=broke)
    async with running(watched) as seen:
        kube.vanish(SERVICES, "a", namespace="default")
        kube.forget_history()
        kube.break_watches.set()
        kube.put(SERVICES, service_object("b", type="ClusterIP"))
        await until(lambda: breaks)
        kube.break_watches.clear()
        await until(lambda: "-default/a" in seen)
        assert watched.get("default/a") is None
        assert [one.name for one in watched.all()] == ["b"]
        assert watched.healthy


async def test_a_version_that_is_too_old_is_listed_again() -> None:
    kube = Kubernetes()
    kube.put(SERVICES, service_object("a"))
    watched = informer(kube, silence_seconds=0.05)
    async with running(watched) as seen:
        kube.vanish(SERVICES, "a", namespace="default")
        kube.forget_history()
        await until(lambda: seen == ["+default/a", "-default/a"])


async def test_silence_is_a_break_and_what_is_broken_for_long_is_an_alarm() -> None:
    kube = Kubernetes()
    clock = FakeClock()
    breaks: list[str] = []

    def broke(_name: str, why: str) -> None:
        breaks.append(why)

    watched = informer(kube, silence_seconds=0.02, clock=clock, on_break=broke)
    async with running(watched):
        await until(lambda: len(breaks) > 1)
        assert "silence" in breaks[0]

        def fail(name: str, after: bool) -> None:
            raise Retriable("the API is away")

        kube.on_call = fail
        before = len(breaks)
        await until(lambda: len(breaks) > before + 1)
        clock.sleep(61)
        assert not watched.healthy
        kube.on_call = lambda _name, _after: None
        await until(lambda: watched.healthy)


async def test_a_handler_that_fails_does_not_stop_the_others() -> None:
    kube = Kubernetes()
    watched = informer(kube)

    def broken(key: str, old: Service | None, new: Service | None) -> None:
        raise ValueError(key)

    watched.add_handler(broken)
    async with running(watched) as seen:
        kube.put(SERVICES, service_object("a"))
        await until(lambda: seen == ["+default/a"])


async def test_an_object_that_cannot_be_read_ends_nothing_and_what_was_known_of_it_stays() -> None:
    kube = Kubernetes()
    told: list[str] = []

    def parse(found: Json) -> Service:
        if found["spec"].get("odd"):
            raise KeyError("ports")
        return parse_service(found)

    def unreadable(found: Json, why: Exception) -> None:
        told.append(f"{found['metadata']['name']} {why!r}")

    odd = service_object("odd", odd=True)
    kube.put(SERVICES, odd)
    kube.put(SERVICES, service_object("web"))
    cache = Informer(kube, SERVICES, parse=parse, backoff=QUICK, on_unreadable=unreadable)
    async with running(cache) as seen:
        assert [one.key for one in cache.all()] == ["default/web"]
        assert list(cache.unreadable) == ["default/odd"]
        kube.put(SERVICES, service_object("web", odd=True))
        await until(lambda: len(told) == 2)
        # listed again it is reported once
        kube.break_watches.set()
        kube.put(SERVICES, service_object("next"))
        await until(lambda: "+default/next" in seen)
        kube.break_watches.clear()
        assert told == ["odd KeyError('ports')", "web KeyError('ports')"]
        assert {one.key for one in cache.all()} == {"default/web", "default/next"}
        kube.put(SERVICES, service_object("odd"))
        kube.vanish(SERVICES, "web", namespace="default")
        await until(lambda: "-default/web" in seen and "+default/odd" in seen)
        assert not cache.unreadable


# --- work queue


async def test_a_key_added_twice_comes_once_and_again_when_added_meanwhile() -> None:
    queue = WorkQueue()
    for key in ("a", "b", "a"):
        queue.add(key)
    assert await queue.get() == "a"
    queue.add("a")
    assert await queue.get() == "b"
    assert queue.waiting == 0
    assert queue, "an empty queue counts as none"
    queue.done("a")
    assert await queue.get() == "a"
    assert not queue.idle
    queue.done("a")
    queue.done("b")
    assert queue.idle


async def test_the_earliest_time_counts() -> None:
    queue = WorkQueue()
    queue.add_later("a", 10)
    queue.add_later("a", 0.02)
    queue.add_later("a", 5)
    clock = FakeClock()
    assert await queue.get() == "a"
    assert clock.monotonic() == pytest.approx(0.02)
    queue.add_later("b", 10)
    queue.add("b")
    assert await queue.get() == "b"
    queue.close()


async def test_failures_come_later_and_later_until_forgotten() -> None:
    queue = WorkQueue(Backoff(base=1, ceiling=300, jitter=0))
    assert [queue.add_failed("a") for _ in range(4)] == [1, 2, 4, 8]
    queue.forget("a")
    assert queue.add_failed("a") == 1
    queue.close()


# --- election


def election(kube: Kubernetes, name: str, *, clock: FakeClock, **times: float) -> LeaderElection:
    chosen = LeaseTimes(**{"duration": 15, "deadline": 10, "retry": 0.01, **times})
    return LeaderElection(kube, name="lease", namespace="kube-system", identity=name, times=chosen, clock=clock)


async def test_a_holder_that_is_silent_is_followed_only_after_its_time_by_our_own_clock() -> None:
    kube, clock = Kubernetes(), FakeClock()
    first, second = election(kube, "one", clock=clock), election(kube, "two", clock=clock)
    await first.acquire()
    waiting = asyncio.create_task(second.acquire())
    await asyncio.sleep(0.1)
    clock.sleep(14)
    await asyncio.sleep(0.1)
    assert not second.leading
    clock.sleep(2)
    await until(lambda: second.leading)
    await waiting
    assert kube.find(LEASES, "lease", namespace="kube-system")["spec"]["leaseTransitions"] == 1


async def test_who_cannot_renew_stops_before_another_may_start() -> None:
    kube, clock = Kubernetes(), FakeClock()
    one = election(kube, "one", clock=clock)
    await one.acquire()

    def fail(name: str, after: bool) -> None:
        clock.sleep(3)
        raise Retriable("no answer")

    kube.on_call = fail
    await asyncio.wait_for(one.hold(), 60)
    assert not one.leading
    assert clock.monotonic() < 15


async def test_a_lease_handed_back_is_taken_at_once() -> None:
    kube, clock = Kubernetes(), FakeClock()
    first, second = election(kube, "one", clock=clock), election(kube, "two", clock=clock)
    await first.acquire()
    waiting = asyncio.create_task(second.acquire())
    await first.release()
    await asyncio.wait_for(waiting, 2)


# --- events

ABOUT = Reference("Service", "web", "uid-1", "default")


async def test_an_object_that_causes_too_many_events_is_cut_short() -> None:
    kube, clock = Kubernetes(), FakeClock()
    recorder = EventRecorder(kube, component="test", clock=clock)
    task = asyncio.create_task(recorder.run())
    for number in range(40):
        recorder.event(ABOUT, "Normal", reason="Busy", message=f"message {number}")
    recorder.event(Reference("Node", "n", "uid-2"), "Normal", reason="Other", message="of another object")
    await recorder.flush()
    assert len(kube.all(EVENTS)) == 26
    clock.sleep(300)
    recorder.event(ABOUT, "Normal", reason="Busy", message="after a rest")
    await recorder.flush()
    assert len(kube.all(EVENTS)) == 27
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    node_event = next(one for one in kube.all(EVENTS) if one["reason"] == "Other")
    assert node_event["metadata"]["namespace"] == "default"


async def test_an_event_that_the_api_forgot_is_recreated() -> None:
    kube = Kubernetes()
    recorder = EventRecorder(kube, component="test")
    task = asyncio.create_task(recorder.run())
    recorder.event(ABOUT, "Normal", reason="Same", message="again")
    await recorder.flush()
    (first,) = kube.all(EVENTS)
    kube.vanish(EVENTS, first["metadata"]["name"], namespace="default")
    recorder.event(ABOUT, "Normal", reason="Same", message="again")
    await recorder.flush()
    (second,) = kube.all(EVENTS)
    assert second["count"] == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


# --- facts


@pytest.mark.parametrize(("status", "ready"), [("True", True), ("False", False), ("Unknown", False), (None, None)])
def test_a_node_nobody_has_heard_of_is_not_ready(status: str | None, ready: bool | None) -> None:
    conditions: list[Json] = [] if status is None else [{"type": "Ready", "status": status}]
    found = parse_node({"metadata": {"name": "n"}, "status": {"conditions": conditions}})
    assert found.ready is ready
    assert found.taints == ()


def test_paths_of_resources() -> None:
    assert SERVICES.path() == "/api/v1/services"
    assert SERVICES.path("ns", "web", subresource="status") == "/api/v1/namespaces/ns/services/web/status"
    assert Resource("coordination.k8s.io", "v1", "leases", namespaced=True).path("ns", "x") == (
        "/apis/coordination.k8s.io/v1/namespaces/ns/leases/x"
    )
