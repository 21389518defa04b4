"""Services whose addresses nodes announce: each gets an address of a pool. The agents of the nodes do the rest.

Always holds: status.loadBalancer of the Services is the truth about who has which address, after a restart too; what was given
and is not in the cache yet is remembered; nothing exists outside of the API, so there is nothing to remove but the memory.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence
from ipaddress import IPv4Address

from moyai.ccm.provider import Ensured, Inventory, Orphan, Protect, Report
from moyai.kube.events import EventRecorder
from moyai.kube.informer import Informer
from moyai.kube.objects import AddressPool, Ingress, Node, Service
from moyai.plan.announce.allocation import choose, judged
from moyai.plan.announce.metallb_words import FROM_POOL, is_announced, unknown_annotations


class AnnouncedProvider:
    """``default``: whether Services without a class are the provider's. ``again``: called when Services that wait for an
    address, or have one of a pool that changed, should be looked at."""

    def __init__(
        self,
        *,
        services: Informer[Service],
        pools: Informer[AddressPool],
        events: EventRecorder,
        default: bool,
    ) -> None:
        self._services = services
        self._pools = pools
        self._events = events
        self._default = default
        self._given: dict[str, IPv4Address] = {}
        self._said: dict[str, str] = {}
        self.again: Callable[[], None] = lambda: None
        pools.add_handler(self._pool_changed)
        services.add_handler(self._service_changed)

    @property
    def output_annotations(self) -> frozenset[str]:
        return frozenset({FROM_POOL})

    def unknown_annotations(self, service: Service) -> Sequence[str]:
        return unknown_annotations(service.annotations)

    def backends(self, nodes: Collection[Node]) -> Callable[[Service], Hashable]:
        some = bool(nodes)
        return lambda _service: some

    async def ensure(self, service: Service, nodes: Collection[Node], *, protect: Protect, report: Report) -> Ensured:
        await protect()
        # no await between the choice and its record: two Services never choose at the same time
        given = choose(service, judged(self._pools.all()), held=self._held(service.key))
        self._given[service.key] = given.address
        had = service.ingress[0].ip if service.ingress else ""
        changes = () if had == str(given.address) else (f"address {given.address} of pool {given.pool}",)
        remarks = (("AddressChanged", f"The address {had} is given up: {given.moved}"),) if given.moved else ()
        if changes and had:
            self.again()
        return Ensured(Ingress(ip=str(given.address)), {FROM_POOL: given.pool}, changes, remarks)

    async def remove(self, service: Service, *, report: Report) -> None:
        if self._given.pop(service.key, None) is not None:
            self.again()

    async def inventory(self, alive: Callable[[], Collection[str]]) -> Inventory:
        return Inventory(frozenset(alive()), frozenset())

    async def remove_orphan(self, orphan: Orphan) -> None:
        return

    def _held(self, but: str) -> dict[IPv4Address, list[Service]]:
        """Address → Services that have it, but for this one."""
        found: dict[IPv4Address, list[Service]] = {}
        for one in self._services.all():
            if one.key == but or not is_announced(one, default=self._default):
                continue
            addresses = {self._given[one.key]} if one.key in self._given else set[IPv4Address]()
            if not addresses and one.ingress and one.ingress[0].ip:
                addresses = {IPv4Address(one.ingress[0].ip)} if _is_v4(one.ingress[0].ip) else set[IPv4Address]()
            for address in addresses:
                found.setdefault(address, []).append(one)
        return found

    def _service_changed(self, key: str, _old: Service | None, new: Service | None) -> None:
        if new is None and self._given.pop(key, None) is not None:
            self.again()

    def _pool_changed(self, key: str, _old: AddressPool | None, new: AddressPool | None) -> None:
        pools = self._pools.all()
        refused = judged(pools).refused
        for pool in pools:
            why = refused.get(pool.name, "")
            if why and self._said.get(pool.name) != why:
                self._events.event(pool.reference, "Warning", reason="PoolRefused", message=f"This pool is not used: {why}")
            self._said[pool.name] = why
        if new is None:
            self._said.pop(key.rpartition("/")[2], None)
        self.again()


def _is_v4(said: str) -> bool:
    try:
        IPv4Address(said)
    except ValueError:
        return False
    return True
