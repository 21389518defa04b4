"""A router's routes to addresses of Services, over resilient groups: connections of nodes that live survive another's death.

FRR puts plain routes into the kernel. For each of them to one address there is another one here, which the kernel asks before,
over a resilient group with the same next hops. Always holds: what FRR has withdrawn for longer than a moment goes; an earlier
process's groups are taken over as they are.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from collections.abc import Mapping

from moyai.core.clock import Clock, SystemClock
from moyai.linux.netlink import Events, KernelMiss
from moyai.linux.netlink_messages import KernelRoute
from moyai.linux.nexthop_groups import NextHopGroups
from moyai.plan.bgp.resilient_groups import (
    DropNextHop,
    DropRoute,
    GroupState,
    NextHop,
    PutGroup,
    PutHop,
    PutRoute,
    group_steps,
)

_log = logging.getLogger(__name__)
#: Seconds for which a route that FRR has taken away is kept: it may be about to put another one.
_KEPT = 1.0
#: Seconds that reports of the kernel are collected for.
_TOGETHER = 0.01
_AGAIN = 1.0
_UNKNOWN = (errno.EOPNOTSUPP, errno.EINVAL)


class ResilientRoutes:
    """``namespace``: of the kernel's network, None: the process's own. ``run`` works until it is cancelled."""

    def __init__(self, *, namespace: str | None = None, clock: Clock | None = None) -> None:
        self._namespace, self._clock = namespace, clock or SystemClock()
        #: Prefix → its next hops, and when FRR had it last.
        self._seen: dict[str, tuple[frozenset[NextHop], float]] = {}
        self._changed = asyncio.Event()

    async def run(self) -> None:
        listening = asyncio.create_task(self._listen())
        try:
            while True:
                await self._changed.wait()
                await asyncio.sleep(_TOGETHER)
                self._changed.clear()
                try:
                    later = await asyncio.to_thread(self.bring)
                except OSError as error:
                    if error.errno in _UNKNOWN:
                        _log.warning("this kernel has no resilient groups: connections may break when a node comes or goes")
                        return
                    _log.warning("the routes of Services: %s", error)
                    later = _AGAIN
                if later:
                    asyncio.get_running_loop().call_later(later, self._changed.set)
        finally:
            listening.cancel()

    def bring(self) -> float:
        """The kernel to what FRR has. Returns after how many seconds it is to be done again, 0 for not before a change."""
        with NextHopGroups(self._namespace) as kernel:
            now = self._clock.monotonic()
            ways = {prefix: hops for prefix, hops in kernel.ways().items() if prefix.endswith("/32") and hops}
            for prefix, hops in ways.items():
                self._seen[prefix] = (frozenset(NextHop(*one) for one in hops), now)
            for prefix in [one for one, (_, at) in self._seen.items() if now - at >= _KEPT]:
                del self._seen[prefix]
            self._carry_out(kernel, {prefix: hops for prefix, (hops, _) in self._seen.items()})
            return _KEPT if self._seen.keys() - ways.keys() else 0.0

    def _carry_out(self, kernel: NextHopGroups, wanted: Mapping[str, frozenset[NextHop]]) -> None:
        hops = {number: NextHop(*one) for number, one in kernel.hops().items()}
        steps = group_steps(wanted, GroupState(hops, kernel.groups(), kernel.routes()))
        if wanted:
            kernel.put_rule()
        for step in steps:
            match step:
                case PutHop():
                    kernel.put_hop(step.number, step.hop.gateway, link=step.hop.link)
                case PutGroup():
                    kernel.put_group(step.number, step.hops)
                case PutRoute():
                    kernel.put_route(step.prefix, step.group)
                case DropRoute():
                    kernel.drop_route(step.prefix)
                case DropNextHop():
                    kernel.drop(step.number)

    async def _listen(self) -> None:
        while True:
            try:
                with Events.open(namespace=self._namespace) as events:
                    # what was before, too
                    self._changed.set()
                    async for one in events.changes():
                        if not isinstance(one, KernelMiss) and isinstance(one.fact, KernelRoute):
                            self._changed.set()
            except OSError:
                # reports were lost
                await asyncio.sleep(0.1)
