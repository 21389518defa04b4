"""Addresses that this node competes for: the Lease of each, and the answers while the Lease holds.

Always holds: an address is answered for only as long as no other node can have its Lease, by this node's own clock; the Lease
is handed back on a regular end, after the last answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass

from moyai.core.clock import Clock
from moyai.kube.leader import LeaderElection, LeaseTimes
from moyai.kube.watching import Kube
from moyai.plan.announce.metallb_words import NAMESPACE, lease_name

_log = logging.getLogger(__name__)

#: Seconds. Others take over 3 s after the last renewal that they saw; the owner stops 2 s after the last one that it sent.
TIMES = LeaseTimes(duration=3.0, deadline=2.0, retry=1.0)
#: Gratuitous ARP after a take-over: so often, with this pause in seconds. Some switches lose the first.
_ANNOUNCEMENTS, _PAUSE = 5, 1.0


@dataclass(frozen=True)
class LeaseCallbacks:
    """``announce`` sends one gratuitous announcement of an address. ``taken``, ``lost``: called when this node becomes the
    owner of an address, and when it no longer is; not at a regular end."""

    announce: Callable[[str], None]
    taken: Callable[[str], None]
    lost: Callable[[str], None]


class AddressElector:
    """``clock``: its ``monotonic`` must go on while the machine sleeps."""

    def __init__(
        self,
        address: str,
        *,
        kube: Kube,
        node: str,
        clock: Clock,
        callbacks: LeaseCallbacks,
        times: LeaseTimes = TIMES,
        lease: str = "",
    ) -> None:
        """``lease``: its name, where it is not that of an announced address."""
        self.address = address
        self._kube = kube
        self._node = node
        self._clock = clock
        self._callbacks = callbacks
        self._times = times
        self._lease = lease or lease_name(address)
        self._election = self._new()
        self._task: asyncio.Task[None] | None = None

    @property
    def owner(self) -> bool:
        """Whether this node answers for the address, at this moment."""
        return self.left > 0

    @property
    def left(self) -> float:
        """Seconds until another node can have the Lease, whatever happens to this process; 0 where it is not the owner."""
        return max(0.0, self._election.fenced_until - self._clock.monotonic()) if self._election.leading else 0.0

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"address {self.address}")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        # ``release`` ends the answers before it hands the Lease back
        await self._election.release()

    async def _run(self) -> None:
        while True:
            try:
                await self._turn()
            except Exception:
                # an answer of the API in a form that nobody foresaw must not end the competition for good
                _log.exception("the Lease of %s", self.address)
                await asyncio.sleep(self._times.retry)
            self._election = self._new()

    async def _turn(self) -> None:
        await self._election.acquire()
        self._callbacks.taken(self.address)
        spreading = asyncio.create_task(self._spread())
        try:
            await self._election.hold()
        finally:
            spreading.cancel()
        self._callbacks.lost(self.address)

    async def _spread(self) -> None:
        for _ in range(_ANNOUNCEMENTS):
            self._callbacks.announce(self.address)
            await asyncio.sleep(_PAUSE)

    def _new(self) -> LeaderElection:
        return LeaderElection(
            self._kube,
            name=self._lease,
            namespace=NAMESPACE,
            identity=self._node,
            times=self._times,
            clock=self._clock,
        )


class AddressElectors:
    """The electors of all addresses that a node competes for. ``make``: one that has not started."""

    def __init__(self, make: Callable[[str], AddressElector]) -> None:
        self._make = make
        self._electors: dict[str, AddressElector] = {}

    @property
    def all(self) -> tuple[AddressElector, ...]:
        return tuple(self._electors.values())

    @property
    def owned(self) -> frozenset[str]:
        """Addresses that this node answers for at this moment."""
        return frozenset(address for address, one in self._electors.items() if one.owner)

    def left(self) -> dict[str, float]:
        """Address that this node owns → for how many seconds at least."""
        # of one moment: other threads look, too
        found = {address: one.left for address, one in list(self._electors.items())}
        return {address: left for address, left in found.items() if left > 0}

    def owns(self, address: str) -> bool:
        elector = self._electors.get(address)
        return elector is not None and elector.owner

    def compete(self, wanted: Collection[str]) -> None:
        """Start what is wanted and does not run."""
        for address in wanted:
            if address not in self._electors:
                self._electors[address] = self._make(address)
                self._electors[address].start()

    def leave(self, wanted: Collection[str]) -> tuple[AddressElector, ...]:
        """Forget all but ``wanted``. What is returned has yet to be stopped: its Lease is handed back with that."""
        return tuple(self._electors.pop(address) for address in list(self._electors) if address not in wanted)


async def stop_all(electors: Collection[AddressElector]) -> None:
    await asyncio.gather(*(one.stop() for one in electors))
