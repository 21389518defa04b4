"""Events on objects: how a controller reports to a user what is happening.

Recording never blocks and never fails the work: events go out one after the other in the background. The same event again
raises the count of the first; an object that causes too many is cut short (a burst of 25, then one in five minutes, as
client-go does it).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

from moyai.core.clock import Clock, SystemClock
from moyai.core.errors import MoyaiError, NotFound
from moyai.kube.objects import Reference, stamp
from moyai.kube.resources import EVENTS, Json
from moyai.kube.watching import Kube

_log = logging.getLogger(__name__)
_BURST = 25.0
_REFILL_SECONDS = 300.0
_KEPT = 2000
_MESSAGE_LIMIT = 1000


@dataclass(frozen=True)
class _Occurrence:
    """``stamp``: when, as the API wants it."""

    about: Reference
    kind: str
    reason: str
    message: str
    stamp: str


@dataclass
class _Sent:
    """An event that the API has. ``count``: how often it happened."""

    name: str
    count: int


@dataclass
class _Bucket:
    tokens: float
    at: float


class EventRecorder:
    """``component``: shown as the event's source. ``run`` sends what was recorded until cancelled."""

    def __init__(self, kube: Kube, *, component: str, clock: Clock | None = None) -> None:
        self._kube = kube
        self._component = component
        self._clock = clock or SystemClock()
        self._waiting: asyncio.Queue[_Occurrence] = asyncio.Queue(maxsize=500)
        self._known: OrderedDict[tuple[str, ...], _Sent] = OrderedDict()
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def event(self, about: Reference, kind: Literal["Normal", "Warning"], *, reason: str, message: str) -> None:
        """``reason``: one CamelCase word. ``message``: one sentence for a user."""
        _log.log(
            logging.WARNING if kind == "Warning" else logging.INFO,
            "event %s on %s %s: %s",
            reason,
            about.kind,
            f"{about.namespace}/{about.name}" if about.namespace else about.name,
            message,
        )
        if not self._allowed(about):
            return
        with contextlib.suppress(asyncio.QueueFull):
            self._waiting.put_nowait(_Occurrence(about, kind, reason, message[:_MESSAGE_LIMIT], stamp(self._clock.now())))

    async def run(self) -> None:
        while True:
            occurrence = await self._waiting.get()
            try:
                await self._send(occurrence)
            except MoyaiError as error:
                _log.warning("event not recorded: %s", error)
            finally:
                self._waiting.task_done()

    async def flush(self, seconds: float = 2.0) -> None:
        """Wait until what was recorded is sent, at most ``seconds``; ``run`` must be running."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._waiting.join()

    def _allowed(self, about: Reference) -> bool:
        now = self._clock.monotonic()
        bucket = self._buckets.pop(about.uid, None) or _Bucket(_BURST, now)
        self._buckets[about.uid] = bucket
        while len(self._buckets) > _KEPT:
            self._buckets.popitem(last=False)
        bucket.tokens = min(_BURST, bucket.tokens + (now - bucket.at) / _REFILL_SECONDS)
        bucket.at = now
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True

    async def _send(self, new: _Occurrence) -> None:
        about, stamp = new.about, new.stamp
        namespace = about.namespace or "default"
        same = (about.uid, new.kind, new.reason, new.message)
        known = self._known.get(same)
        if known:
            self._known.move_to_end(same)
            known.count += 1
            try:
                body: Json = {"count": known.count, "lastTimestamp": stamp}
                await self._kube.patch(EVENTS, known.name, body=body, namespace=namespace)
            except NotFound:
                known.count = 1  # the API server forgets events after an hour
            else:
                return
        unique = hashlib.sha256("\0".join((*same, stamp, str(self._clock.monotonic()))).encode()).hexdigest()[:16]
        name = f"{about.name[:200]}.{unique}"
        involved: Json = {"kind": about.kind, "name": about.name, "uid": about.uid, "apiVersion": "v1"}
        if about.namespace:
            involved["namespace"] = about.namespace
        await self._kube.create(
            EVENTS,
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": name, "namespace": namespace},
                "involvedObject": involved,
                "type": new.kind,
                "reason": new.reason,
                "message": new.message,
                "count": 1,
                "firstTimestamp": stamp,
                "lastTimestamp": stamp,
                "source": {"component": self._component},
                "reportingComponent": self._component,
                "reportingInstance": "",
            },
            namespace=namespace,
        )
        self._known[same] = _Sent(name, 1)
        while len(self._known) > _KEPT:
            self._known.popitem(last=False)
