"""Runs the long-living tasks of one process together: start, stop by signal, and an end when one of them ends.

No task outlives the others: a task that ends or fails ends the whole process, so that the kubelet starts the process again. A
half-dead process that looks alive is worse than none.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

_log = logging.getLogger(__name__)

#: How long calls to a cloud that are under way (``calls``) may hold up the end of the process.
_GRACE_SECONDS = 5.0


async def run_until_stopped(tasks: Mapping[str, Callable[[], Awaitable[None]]], *, stop: asyncio.Event | None = None) -> bool:
    """Run ``tasks`` (name → what to await) until SIGTERM or SIGINT (or ``stop``, where given): True; or until one ends: False.

    All are cancelled and waited for (at most ``_GRACE_SECONDS``) before it returns; a task's exception is logged, not raised.
    """
    stopping = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    caught: list[signal.Signals] = []
    for number in (signal.SIGTERM, signal.SIGINT) if stop is None else ():
        loop.add_signal_handler(number, stopping.set)
        caught.append(number)
    running: dict[asyncio.Future[Any], str] = {asyncio.ensure_future(start()): name for name, start in tasks.items()}
    waiter = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait([waiter, *running], return_when=asyncio.FIRST_COMPLETED)
        for task, name in running.items():
            if task.done() and not task.cancelled():
                _log.error("%s ended, so everything ends", name, exc_info=task.exception())
        return stopping.is_set()
    finally:
        waiter.cancel()
        for task in running:
            task.cancel()
        ended, late = await asyncio.wait([waiter, *running], timeout=_GRACE_SECONDS)
        for task in ended:
            if not task.cancelled():
                task.exception()  # logged above, or an end that nobody waited for
        for task in late:
            _log.warning("%s still waits for a call that does not end", running.get(task, "a task"))
        for number in caught:
            loop.remove_signal_handler(number)
