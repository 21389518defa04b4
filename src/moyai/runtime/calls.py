"""Blocking calls of the cloud's adapter, awaited in worker threads, counted and timed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from moyai.cloud.capabilities import Cloud
from moyai.core.errors import MoyaiError
from moyai.runtime.metrics import Metrics

P = ParamSpec("P")
T = TypeVar("T")


async def call_cloud(metrics: Metrics, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """``function`` in a worker thread; ``moyai_cloud_calls_total`` and ``moyai_cloud_call_seconds`` count it."""
    name = getattr(function, "__name__", "call")
    start = time.monotonic()
    outcome = "ok"
    try:
        return await asyncio.to_thread(function, *args, **kwargs)
    except MoyaiError as error:
        outcome = type(error).__name__.lower()
        raise
    finally:
        metrics.count("moyai_cloud_calls_total", call=name, outcome=outcome)
        metrics.observe("moyai_cloud_call_seconds", time.monotonic() - start, call=name)


@dataclass(frozen=True)
class CloudCalls:
    """A cloud as controllers use it: ``await calls.call(calls.cloud.machines.servers)``.

    ``region``: for the label of nodes, empty where the cloud has none.
    """

    cloud: Cloud
    metrics: Metrics
    region: str = ""

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """``function`` of the cloud, in a worker thread."""
        return await call_cloud(self.metrics, function, *args, **kwargs)
