"""The deadline loop: what ends it, what it raises, and that both worlds agree."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from moyai.core.backoff import Backoff
from moyai.core.clock import SystemClock
from moyai.core.errors import NotFound, Retriable, Terminal
from moyai.core.waiting import NotYet, Stopped, auntil, until
from tests.fakes.clock import FakeClock

pytestmark = pytest.mark.virtual_time

Wait = Callable[..., Awaitable[Any]]


async def in_thread(check: Callable[[], Any], **options: Any) -> Any:
    return until(check, **options)


async def in_task(check: Callable[[], Any], **options: Any) -> Any:
    async def look() -> Any:
        return check()

    return await auntil(look, **options)


both = pytest.mark.parametrize("wait", [in_thread, in_task])


def answers(*given: Any) -> Callable[[], Any]:
    """Gives one after the other, the last for ever; exceptions are raised."""
    left = list(given)

    def check() -> Any:
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    return check


@both
async def test_the_first_result_is_returned(wait: Wait) -> None:
    clock = FakeClock()
    check = answers(NotYet("a"), Retriable("busy"), NotYet("a"), "done")
    assert await wait(check, clock=clock, timeout=10, pause=1) == "done"
    assert clock.monotonic() == pytest.approx(3)


@both
async def test_none_and_false_are_results(wait: Wait) -> None:
    for answer in (None, False):
        assert await wait(answers(NotYet("a"), answer), clock=FakeClock(), timeout=10, pause=1) is answer


@both
async def test_the_last_look_is_at_the_deadline_and_counts(wait: Wait) -> None:
    clock = FakeClock()

    def check() -> str | NotYet:
        return "done" if clock.monotonic() >= 10 else NotYet("a")

    assert await wait(check, clock=clock, timeout=10, pause=3) == "done"
    assert clock.monotonic() == pytest.approx(10)


@both
async def test_without_time_it_looks_once(wait: Wait) -> None:
    assert await wait(answers("done"), clock=FakeClock(), timeout=0, pause=1) == "done"
    with pytest.raises(Retriable, match="waited 0 s for a"):
        await wait(answers(NotYet("a")), clock=FakeClock(), timeout=0, pause=1)


@both
async def test_a_deadline_raises_the_last_error_or_names_what_is_missing(wait: Wait) -> None:
    with pytest.raises(Retriable, match="waited 2 s for the rest"):
        await wait(answers(NotYet("all"), Retriable("busy"), NotYet("the rest")), clock=FakeClock(), timeout=2, pause=1)
    with pytest.raises(Retriable, match=r"^busy$"):
        await wait(answers(NotYet("all"), Retriable("busy")), clock=FakeClock(), timeout=2, pause=1)


@both
async def test_so_many_looks_and_no_more(wait: Wait) -> None:
    clock = FakeClock()
    with pytest.raises(Retriable, match=r"^c$"):
        await wait(
            answers(Retriable("a"), Retriable("b"), Retriable("c"), "d"), clock=clock, timeout=math.inf, pause=1, tries=3
        )
    assert clock.monotonic() == pytest.approx(2)


@both
async def test_the_caller_words_a_deadline_and_keeps_the_cause(wait: Wait) -> None:
    def late(last: NotYet) -> Exception:
        return Terminal(f"too late: {last.missing}")

    with pytest.raises(Terminal, match="too late: busy") as caught:
        await wait(answers(Retriable("busy")), clock=FakeClock(), timeout=2, pause=1, late=late)
    assert isinstance(caught.value.__cause__, Retriable)


@both
async def test_other_errors_end_it_at_once(wait: Wait) -> None:
    clock = FakeClock()
    with pytest.raises(NotFound):
        await wait(answers(NotYet("a"), NotFound("gone")), clock=clock, timeout=10, pause=1)
    assert clock.monotonic() == pytest.approx(1)
    with pytest.raises(OSError, match="refused"):
        await wait(answers(OSError("refused")), clock=clock, timeout=10, pause=1)
    assert await wait(answers(OSError("refused"), 1), clock=clock, timeout=10, pause=1, retry=OSError) == 1


@both
async def test_pauses_follow_a_backoff_and_a_look_may_overrule_them(wait: Wait) -> None:
    clock = FakeClock()
    times: list[float] = []
    check = answers(NotYet("a"), NotYet("a", pause=10), NotYet("a"), "done")

    def timed() -> Any:
        times.append(round(clock.monotonic(), 3))
        return check()

    await wait(timed, clock=clock, timeout=100, pause=Backoff(base=1, factor=2, jitter=0))
    assert times == [0, 1, 11, 15]


@both
async def test_what_is_missing_is_reported_when_it_changes(wait: Wait) -> None:
    said: list[str] = []
    check = answers(NotYet("two"), NotYet("two"), Retriable("busy"), NotYet("two"), "done")
    await wait(check, clock=FakeClock(), timeout=10, pause=1, on_wait=said.append)
    assert said == ["two", "busy", "two"]


def test_an_abort_ends_it_but_not_before_a_look() -> None:
    abort = threading.Event()
    abort.set()
    assert until(answers("done"), clock=FakeClock(), timeout=10, pause=1, abort=abort) == "done"
    with pytest.raises(Stopped, match="a machine"):
        until(answers(NotYet("a machine")), clock=FakeClock(), timeout=10, pause=1, abort=abort)


def test_an_abort_interrupts_a_pause() -> None:
    abort = threading.Event()
    looked = threading.Event()

    def check() -> NotYet:
        looked.set()
        return NotYet("a machine")

    def stop() -> None:
        looked.wait()
        abort.set()

    other = threading.Thread(target=stop)
    other.start()
    with pytest.raises(Stopped):
        until(check, clock=SystemClock(), timeout=3600, pause=3600, abort=abort)
    other.join()


async def test_tasks_that_wait_side_by_side_wake_in_the_order_of_time() -> None:
    clock = FakeClock()
    woke: list[str] = []

    async def sleeper(name: str, seconds: float) -> None:
        await clock.asleep(seconds)
        woke.append(f"{name} {clock.monotonic():.0f}")

    async with asyncio.TaskGroup() as group:
        for name, seconds in (("c", 3600.0), ("a", 1.0), ("b", 60.0)):
            group.create_task(sleeper(name, seconds))
        await clock.advance(60)
        assert woke == ["a 1", "b 60"]
    assert woke[-1] == "c 3600"


async def test_virtual_time_stands_still_while_a_thread_works() -> None:
    clock = FakeClock()
    go = threading.Event()

    async def release() -> None:
        for _ in range(100):
            await asyncio.sleep(0)
        go.set()

    async def call() -> float:
        await asyncio.to_thread(go.wait)
        return clock.monotonic()

    async with asyncio.timeout(1):
        assert (await asyncio.gather(call(), release()))[0] == 0
