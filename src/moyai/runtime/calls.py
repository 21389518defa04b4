"""Blocking calls of the cloud's adapter, awaited in worker threads, counted and timed.

What always holds: a caller has threads of its own (``CloudCalls.on``), so that calls that hang hold nobody else's; a call that
is under way when its task is cancelled is waited for, because it cannot be taken back and the next look must see its effect.
A task that is cancelled a second time gives the call up. Credentials that the cloud refused are not shown to it again by
everybody at once: for a second all callers get the same answer.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ParamSpec, TypeVar

from moyai.cloud.capabilities import Cloud
from moyai.core.clock import Clock, SystemClock
from moyai.core.errors import CredentialsRefused, MoyaiError
from moyai.runtime.metrics import Metrics

P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    """At most ``most`` blocking calls at the same time. A call that waits for a thread can be cancelled at once."""

    def __init__(self, name: str, most: int) -> None:
        self._executor = ThreadPoolExecutor(max_workers=most, thread_name_prefix=name)
        self._free = asyncio.Semaphore(most)

    async def run(self, function: Callable[[], T]) -> T:
        async with self._free:
            context = contextvars.copy_context()
            future = asyncio.get_running_loop().run_in_executor(self._executor, partial(context.run, function))
            try:
                return await asyncio.shield(future)
            except asyncio.CancelledError:
                await asyncio.wait([future])
                if not future.cancelled():
                    future.exception()  # seen: nobody else will ask for it
                raise


#: So long the cloud is not asked again after it refused the credentials.
_REFUSED_SECONDS = 1.0


@dataclass
class _LoginRefusal:
    """``until``: by the clock, when the cloud may be asked again."""

    error: CredentialsRefused | None = None
    until: float = 0.0


def _threads() -> Threads:
    return Threads("cloud", 8)


@dataclass(frozen=True)
class CloudCalls:
    """A cloud as controllers use it: ``await calls.call(calls.cloud.machines.servers)``.

    ``region``: for the label of nodes, empty where the cloud has none. ``moyai_cloud_calls_total`` and
    ``moyai_cloud_call_seconds`` count the calls, ``moyai_cloud_credentials_refused_total`` those that the cloud refused
    because of the credentials.
    """

    cloud: Cloud
    metrics: Metrics
    region: str = ""
    threads: Threads = field(default_factory=_threads)
    clock: Clock = field(default_factory=SystemClock)
    _refusal: _LoginRefusal = field(default_factory=_LoginRefusal)

    def on(self, threads: Threads) -> CloudCalls:
        """The same cloud, called in other threads."""
        return replace(self, threads=threads)

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """``function`` of the cloud, in a worker thread."""
        name = getattr(function, "__name__", "call")
        start = self.clock.monotonic()
        if self._refusal.error and start < self._refusal.until:
            raise self._refusal.error.with_traceback(None)
        outcome = "ok"
        try:
            return await self.threads.run(partial(function, *args, **kwargs))
        except MoyaiError as error:
            outcome = type(error).__name__.lower()
            if isinstance(error, CredentialsRefused):
                self.metrics.count("moyai_cloud_credentials_refused_total")
                self._refusal.error, self._refusal.until = error, self.clock.monotonic() + _REFUSED_SECONDS
            raise
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            self.metrics.count("moyai_cloud_calls_total", call=name, outcome=outcome)
            self.metrics.observe("moyai_cloud_call_seconds", self.clock.monotonic() - start, call=name)
