"""How long things take, how often an account may call, and what goes wrong on order. Pure but for the bucket's own count.

The durations and the rate are the front's choice: those of the real service are not known.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Literal

from moyai.nifcloud_front.store.rows import PaceRow
from moyai.nifcloud_front.wire.refusal import ApiRefusal

#: Work → seconds until it may be done, at scale 1.
DURATIONS: dict[str, float] = {
    "instance.create": 120,
    "instance.start": 60,
    "instance.stop": 30,
    "instance.force-stop": 20,
    "instance.readdress": 60,
    "instance.reboot": 60,
    "instance.terminate": 30,
    "instance.modify": 10,
    "disk.create": 40,
    "disk.attach": 20,
    "disk.detach": 20,
    "disk.extend": 30,
    "disk.delete": 20,
    "group.apply": 20,
    "group.delete": 10,
    "lan.create": 20,
    "lan.delete": 10,
    "router.create": 300,
    "router.delete": 60,
    "elastic-balancer.change": 60,
}


@dataclass(frozen=True)
class Pace:
    """``scale``: 1 is the pace of DURATIONS, 0 means at once. ``poll``: seconds between two looks at the cloud."""

    scale: float = 0.05
    poll: float = 1.0


def duration(kind: str, verb: str) -> float:
    """Seconds that a work takes at least, at scale 1."""
    return DURATIONS.get(f"{kind}.{verb}", 0.0)


class CallRate:
    """A bucket of calls for each access key."""

    def __init__(self) -> None:
        self._buckets: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def take(self, key: str, now: float, *, said: PaceRow | None) -> None:
        """``said``: the limit; None and rate 0 mean none. Raises ApiRefusal with HTTP status 429, which the SDK repeats."""
        if said is None or not said.rate:
            return
        with self._lock:
            left, at = self._buckets.get(key, (float(said.burst), now))
            left = min(said.burst, left + (now - at) * said.rate)
            self._buckets[key] = (left - 1 if left >= 1 else left, now)
        if left < 1:
            raise ApiRefusal("Client.RequestLimitExceeded", "The account makes too many calls.", status=429)


@dataclass(frozen=True)
class FaultOrder:
    """Something that goes wrong on order.

    ``operation``: a call's name, or ``*``. ``nth``: the first call that it meets, counted from 1 from now on. ``times``: how
    many calls it meets. ``effect``: whether the call has its effect before it fails. ``code``: of the error; empty: none.
    ``lost``: the connection closes without an answer. ``delay``: seconds before the answer.
    """

    operation: str
    code: str = ""
    nth: int = 1
    times: int = 1
    effect: Literal["before", "after"] = "before"
    delay: float = 0.0
    lost: bool = False
    status: int = 500

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> FaultOrder:
        return cls(**json.loads(text))

    @property
    def fails_before(self) -> bool:
        return self.effect == "before" and bool(self.code or self.lost)

    def refusal(self) -> ApiRefusal:
        return ApiRefusal(self.code, "The answer was ordered.", status=self.status)


@dataclass(frozen=True)
class Met:
    """``fault``: what meets this call, None for nothing. ``left``: the orders afterwards, None where one is used up."""

    fault: FaultOrder | None
    left: dict[int, FaultOrder | None]


def meet(orders: Iterable[tuple[int, FaultOrder]], operation: str) -> Met:
    """The first order that meets a call; every order counts the call."""
    fault: FaultOrder | None = None
    left: dict[int, FaultOrder | None] = {}
    for number, order in orders:
        if order.operation not in ("*", operation):
            continue
        if order.nth > 1:
            left[number] = replace(order, nth=order.nth - 1)
        elif fault is None:
            fault = order
            left[number] = replace(order, times=order.times - 1) if order.times > 1 else None
    return Met(fault, left)
