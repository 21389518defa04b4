"""Leader election by a Lease: at most one of several copies works at a time.

The holder renews every ``retry`` seconds and gives up when it could not for ``deadline`` seconds, which is before the others
may take over after ``duration`` seconds without a change. Clocks of different machines are never compared: a candidate times by
its own clock what it sees change. On a regular end the lease is handed back, so that the next one takes over at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from datetime import UTC, datetime

from moyai.core.clock import Clock, SystemClock
from moyai.core.errors import Conflict, MoyaiError, NotFound, Retriable
from moyai.kube.resources import LEASES, Json
from moyai.kube.watching import Kube

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LeaseTimes:
    """Seconds; ``duration`` > ``deadline`` > ``retry``."""

    duration: float = 15.0
    deadline: float = 10.0
    retry: float = 2.0


class LeaderElection:
    """``identity``: unique to this process. ``acquire``, then ``hold`` beside the work; ``release`` at the end."""

    def __init__(
        self,
        kube: Kube,
        *,
        name: str,
        namespace: str,
        identity: str,
        times: LeaseTimes | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._kube = kube
        self._name, self._namespace, self._identity = name, namespace, identity
        self._times = times or LeaseTimes()
        self._clock = clock or SystemClock()
        self._seen: tuple[str, float] = ("", 0.0)
        #: By the clock: when another one's Lease runs out, as far as it was seen; 0 for none.
        self._free_at = 0.0
        #: By the clock: until then nobody else takes over, whatever happens to this process. Counted from before the last call
        #: that succeeded.
        self.fenced_until = 0.0
        self.leading = False

    async def acquire(self) -> None:
        """Returns as soon as this process is the leader."""
        waiting = ""
        while True:
            try:
                holder = await self._try()
            except MoyaiError as error:
                _log.warning("leader election: %s", error)
                holder = waiting
            if self.leading:
                _log.info("leading, as %s", self._identity)
                return
            if holder != waiting:
                _log.info("waiting: %s leads", holder)
                waiting = holder
            await asyncio.sleep(self._pause())

    async def hold(self) -> None:
        """Renews for as long as it can; returns when leadership is lost: the work must stop at once."""
        renewed = self.fenced_until - self._times.deadline
        while True:
            await asyncio.sleep(self._times.retry)
            try:
                left = max(0.1, self._times.deadline - (self._clock.monotonic() - renewed))
                # not wait_for: before Python 3.12 it can lose a cancellation
                async with asyncio.timeout(left):
                    await self._try()
                if not self.leading:
                    _log.error("leadership was taken by another")
                    return
                renewed = self.fenced_until - self._times.deadline
            except (MoyaiError, TimeoutError) as error:
                _log.warning("lease not renewed: %s", error or "no answer")
            if self._clock.monotonic() - renewed >= self._times.deadline:
                self.leading = False
                _log.error("leadership lost: lease not renewed for %.0f s", self._times.deadline)
                return

    def _pause(self) -> float:
        """Until the next look: no later than the moment at which the Lease may be taken."""
        left = self._free_at - self._clock.monotonic()
        return min(self._times.retry, left) if left > 0 else self._times.retry

    async def release(self) -> None:
        """Hand the lease back, where we hold it."""
        if not self.leading:
            return
        self.leading = False
        with contextlib.suppress(MoyaiError, TimeoutError):
            async with asyncio.timeout(2):
                found = await self._kube.get(LEASES, self._name, namespace=self._namespace)
                if found["spec"].get("holderIdentity") == self._identity:
                    spec = {**found["spec"], "holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": self._now()}
                    await self._kube.replace(LEASES, self._name, body={**found, "spec": spec}, namespace=self._namespace)

    async def _try(self) -> str:
        """Take or renew; sets ``leading``; returns who holds it."""
        asked = self._clock.monotonic()
        holder = await self._ask()
        if self.leading:
            self.fenced_until = asked + self._times.deadline
        return holder

    async def _ask(self) -> str:
        try:
            found = await self._kube.get(LEASES, self._name, namespace=self._namespace)
        except NotFound:
            return await self._create()
        spec: Json = found.get("spec") or {}
        holder = str(spec.get("holderIdentity") or "")
        version = str(found["metadata"]["resourceVersion"])
        now = self._clock.monotonic()
        if version != self._seen[0]:
            self._seen = (version, now)
        mine = holder == self._identity
        duration = float(spec.get("leaseDurationSeconds") or self._times.duration)
        self._free_at = self._seen[1] + duration if holder and not mine else 0.0
        if now < self._free_at:
            self.leading = False
            return holder
        changed = {
            **spec,
            "holderIdentity": self._identity,
            "leaseDurationSeconds": int(self._times.duration),
            "renewTime": self._now(),
        }
        if not mine:
            changed |= {"acquireTime": self._now(), "leaseTransitions": int(spec.get("leaseTransitions") or 0) + 1}
        try:
            answer = await self._kube.replace(LEASES, self._name, body={**found, "spec": changed}, namespace=self._namespace)
        except Conflict:
            # somebody else was quicker; if it was a lost answer of our own, the next try sees our name
            if mine:
                raise Retriable("the lease changed while it was renewed") from None
            return holder
        self._seen = (str(answer["metadata"]["resourceVersion"]), now)
        self.leading = True
        return self._identity

    async def _create(self) -> str:
        body: Json = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": int(self._times.duration),
                "acquireTime": self._now(),
                "renewTime": self._now(),
                "leaseTransitions": 0,
            },
        }
        try:
            await self._kube.create(LEASES, body, namespace=self._namespace)
        except Conflict:
            return ""
        self.leading = True
        return self._identity

    def _now(self) -> str:
        return micro_time(self._clock.now())


def micro_time(moment: datetime) -> str:
    """As the API's MicroTime wants it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
