"""The cloud's subnets, listed once for all Services: what a subnet's range is never changes."""

from __future__ import annotations

from collections.abc import Callable

from moyai.cloud.model import Subnet
from moyai.core.errors import UsageError
from moyai.runtime.calls import CloudCalls
from moyai.runtime.shared_reads import RecentList

_KNOWN_SECONDS = 3600.0
#: A subnet that is not in the list may be newer than it.
_RECENT_SECONDS = 10.0


class Subnets:
    def __init__(self, calls: CloudCalls) -> None:
        self._all: RecentList[Subnet] = RecentList(
            lambda: calls.call(calls.cloud.networks.subnets), key=lambda one: one.id, clock=calls.clock
        )

    async def cidr(self, subnet_id: str) -> str:
        """Raises UsageError for one that is not in the cloud."""
        found = await self._find(lambda one: one.id == subnet_id)
        if not found:
            raise UsageError(f"subnet {subnet_id} is not in the cloud", hint="check subnet-id and member-subnet-id")
        return found[0].cidr

    async def of_network(self, network_id: str) -> list[str]:
        """The ranges of a network's subnets."""
        return [one.cidr for one in await self._find(lambda one: one.network_id == network_id)]

    async def _find(self, wanted: Callable[[Subnet], bool]) -> list[Subnet]:
        for max_age in (_KNOWN_SECONDS, _RECENT_SECONDS):
            if found := [one for one in await self._all.get(max_age=max_age) if wanted(one)]:
                return found
        return []
