"""The loop and what surrounds it: what comes again when, probes, metrics, and logs without secrets."""

from __future__ import annotations

import asyncio
import json
import logging
from itertools import pairwise

import pytest

from moyai.core.backoff import Backoff
from moyai.core.errors import Conflict, CredentialsRefused, MoyaiError, NotFound, Retriable, Terminal, Unreachable, UsageError
from moyai.kube.workqueue import WorkQueue
from moyai.runtime.health import HealthServer
from moyai.runtime.logs import JsonFormatter
from moyai.runtime.manager import run_until_stopped
from moyai.runtime.metrics import Metrics
from moyai.runtime.reconciler import DONE, Controller, Result
from tests.fakes.clock import FakeClock

pytestmark = pytest.mark.virtual_time


async def drive(controller: Controller, seconds: float = 0.5) -> None:
    task = asyncio.create_task(controller.run())
    await asyncio.sleep(seconds)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (Retriable("later"), True),
        (Conflict("stale"), True),
        (NotFound("gone"), True),
        (ValueError("a bug"), True),
        (Terminal("no quota"), False),
        (UsageError("wrong"), False),
    ],
)
async def test_what_comes_again_soon_and_what_does_not(error: Exception, again: bool) -> None:
    tries: list[str] = []
    told: list[MoyaiError] = []

    async def reconcile(key: str) -> Result:
        tries.append(key)
        if len(tries) == 1:
            raise error
        return DONE

    queue = WorkQueue(Backoff(base=0.01))
    metrics = Metrics()
    controller = Controller("c", reconcile, metrics=metrics, queue=queue, on_error=lambda _key, one: told.append(one))
    queue.add("a")
    await drive(controller)
    assert tries == (["a", "a"] if again else ["a"])
    assert told == ([error] if isinstance(error, MoyaiError) else [])
    assert metrics.value("moyai_reconcile_total", controller="c", outcome="success") == (1 if again else 0)


async def test_refused_credentials_are_tried_again_within_seconds_however_long_they_are_refused() -> None:
    tries: list[float] = []

    async def reconcile(_key: str) -> Result:
        tries.append(asyncio.get_running_loop().time())
        raise CredentialsRefused("401")

    controller = Controller("c", reconcile, metrics=Metrics())
    controller.queue.add("a")
    await drive(controller, 300)
    assert tries[3] - tries[0] < 2
    assert max(after - before for before, after in pairwise(tries)) < 15.1
    assert len(tries) < 40


async def test_a_cloud_that_is_gone_for_long_is_asked_again_within_seconds_and_fills_no_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tries: dict[str, list[float]] = {}

    async def reconcile(key: str) -> Result:
        tries.setdefault(key, []).append(asyncio.get_running_loop().time())
        raise Unreachable("the cloud cannot be reached")

    controller = Controller("c", reconcile, metrics=Metrics(), clock=FakeClock())
    for number in range(50):
        controller.queue.add(str(number))
    await drive(controller, 600)
    for moments in tries.values():
        assert max(after - before for before, after in pairwise(moments)) < 20.1
    assert len([one for one in caplog.records if "cannot be reached" in one.message]) <= 11


async def test_keys_run_side_by_side_but_never_one_key_twice() -> None:
    running: list[str] = []
    most: list[int] = []

    async def reconcile(key: str) -> Result:
        assert key not in running
        running.append(key)
        most.append(len(running))
        controller.queue.add(key) if len(most) < 6 else None
        await asyncio.sleep(0.01)
        running.remove(key)
        return DONE

    controller = Controller("c", reconcile, metrics=Metrics(), workers=3)
    for key in ("a", "b"):
        controller.queue.add(key)
    await drive(controller)
    assert max(most) == 2


async def test_a_key_comes_again_by_itself_when_it_asks_to() -> None:
    times: list[float] = []

    async def reconcile(key: str) -> Result:
        times.append(asyncio.get_running_loop().time())
        return Result(requeue_after=0.05)

    controller = Controller("c", reconcile, metrics=Metrics())
    controller.queue.add("a")
    await drive(controller)
    assert len(times) > 1
    assert all(later - earlier > 0.04 for earlier, later in pairwise(times))


async def test_everything_ends_when_one_part_ends() -> None:
    ended: list[str] = []

    async def short() -> None:
        await asyncio.sleep(0.01)
        raise RuntimeError("no more")

    async def long() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("long")

    assert await run_until_stopped({"short": short, "long": long}, stop=asyncio.Event()) is False
    assert ended == ["long"]
    stop = asyncio.Event()
    stop.set()
    assert await run_until_stopped({"long": long}, stop=stop) is True


async def test_probes_say_what_is_wrong() -> None:
    wrong = {"caches": "not filled yet"}
    metrics = Metrics()
    metrics.count("hits_total", kind='a"b')
    server = HealthServer(live={}, ready={"caches": lambda: wrong.get("caches", "")}, metrics=metrics.text)
    port = await server.start("127.0.0.1", 0)

    async def get(path: str, method: str = "GET") -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        text = (await reader.read()).decode()
        writer.close()
        await writer.wait_closed()
        return text

    assert "200 OK" in await get("/healthz")
    assert "caches: not filled yet" in await get("/readyz")
    wrong.clear()
    assert "200 OK" in await get("/readyz?verbose")
    assert 'hits_total{kind="a\\"b"} 1.0' in await get("/metrics")
    assert "404" in await get("/secrets")
    assert "405" in await get("/healthz", "POST")
    await server.stop()


def test_metrics_are_in_the_format_that_scrapers_read() -> None:
    metrics = Metrics()
    metrics.describe("x_total", "How many")
    metrics.count("x_total", a="1")
    metrics.count("x_total", a="1")
    metrics.observe("y_seconds", 0.2)
    metrics.gauge("z", lambda: {(): 2.5})
    lines = metrics.text().splitlines()
    assert lines[:3] == ["# HELP x_total How many", "# TYPE x_total counter", 'x_total{a="1"} 2.0']
    assert 'y_seconds_bucket{le="0.1"} 0.0' in lines
    assert 'y_seconds_bucket{le="0.25"} 1.0' in lines
    assert 'y_seconds_bucket{le="+Inf"} 1.0' in lines
    assert "y_seconds_count 1.0" in lines
    assert "z 2.5" in lines


def test_no_secret_reaches_a_log_line_not_even_in_a_traceback() -> None:
    formatter = JsonFormatter(['hid"qzx', ""])
    try:
        raise ValueError('refused: hid"qzx')
    except ValueError as error:
        info = (ValueError, error, error.__traceback__)
    record = logging.LogRecord("moyai.x", logging.ERROR, "f", 1, 'the secret is hid"qzx', None, info)
    text = formatter.format(record)
    assert "qzx" not in text
    found = json.loads(text)
    assert found["msg"] == "the secret is ***"
    assert found["logger"] == "x"
