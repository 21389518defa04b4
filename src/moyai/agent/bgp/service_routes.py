"""Routes of the kernel that FRR announces: one for each prefix of a Service, to the loopback, with its class as the metric.

Always holds: they have a protocol number of their own, and no other route is touched. A route to the loopback makes no address
of the machine: kube-proxy's rules lead packets on before the kernel looks for a route, and what they do not want is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from moyai.linux.netlink import Events, KernelMiss, Netlink
from moyai.linux.netlink_messages import EntryChange, KernelRoute

#: Who has made a route, as the kernel keeps it. Pods' routes have 77.
PROTOCOL = 78
#: Each network namespace has its loopback as the first link.
_LOOPBACK = 1


class ServiceRoutes:
    """``namespace``: of the kernel's network, None: the process's own. ``changed``: called when somebody else has changed one
    of the routes."""

    def __init__(self, namespace: str | None, changed: Callable[[], None]) -> None:
        self._namespace = namespace
        self._changed = changed
        self._netlink: Netlink | None = None
        self._known: frozenset[tuple[str, int]] | None = None

    @property
    def open(self) -> bool:
        return self._netlink is not None

    async def listen(self) -> None:
        """Runs beside the controller, to its end."""
        async with Netlink.open(self._namespace) as netlink:
            while True:
                with Events.open(own=netlink.ports, namespace=self._namespace) as events:
                    self._netlink, self._known = netlink, None
                    self._changed()
                    try:
                        async for one in events.changes():
                            if isinstance(one, KernelMiss):
                                continue
                            if isinstance(one.fact, KernelRoute) and one.fact.protocol == PROTOCOL:
                                self._known = None
                                self._changed()
                    except OSError:
                        # reports were lost: read all of it again
                        await asyncio.sleep(0.1)

    async def withdraw(self, wanted: Mapping[str, int]) -> bool:
        """Removes what is not in ``wanted`` (prefix → class); whether there was something. Raises OSError."""
        known = await self._read()
        return await self._bring(known, frozenset(one for one in known if one[0] in wanted))

    async def bring(self, wanted: Mapping[str, int]) -> bool:
        """Exactly these. A prefix that changes its class has a route all the time."""
        known, exact = await self._read(), frozenset(wanted.items())
        come = await self._bring(known, known | exact)
        return await self._bring(known | exact, exact) or come

    async def _read(self) -> frozenset[tuple[str, int]]:
        assert self._netlink is not None, "listen"
        if self._known is None:
            routes = [one for one in await self._netlink.routes() if one.protocol == PROTOCOL]
            self._known = frozenset((one.destination, one.metric) for one in routes)
        return self._known

    async def _bring(self, old: frozenset[tuple[str, int]], new: frozenset[tuple[str, int]]) -> bool:
        assert self._netlink is not None, "listen"
        if old == new:
            return False
        self._known = None
        changes = [EntryChange(_route(*one), gone=True) for one in sorted(old - new)]
        changes += [EntryChange(_route(*one)) for one in sorted(new - old)]
        await self._netlink.change(changes)
        self._known = new
        return True


def _route(prefix: str, number: int) -> KernelRoute:
    return KernelRoute(prefix, PROTOCOL, metric=number, index=_LOOPBACK)
