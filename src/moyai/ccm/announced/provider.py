"""Services whose addresses nodes announce: each gets an address of a pool. The agents of the nodes do the rest.

Always holds: status.loadBalancer of the Services is the truth about who has which address, after a restart too; what was given
and is not in the cache yet is remembered; of the cloud a Service needs no more than rules for its ports.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Hashable, Sequence
from contextlib import suppress
from ipaddress import IPv4Address

from moyai.ccm.announced.metallb_resources import AnnounceResources
from moyai.ccm.group_rules import GroupRules
from moyai.ccm.provider import Ensured, Inventory, Orphan, Protect, Report
from moyai.core.errors import NotFound, UsageError
from moyai.core.ids import ClusterIdentity
from moyai.kube.informer import Informer
from moyai.kube.objects import Ingress, Node, Service
from moyai.kube.resources import SERVICE_L2_STATUSES
from moyai.kube.watching import Kube
from moyai.plan.announce import access
from moyai.plan.announce.allocation import AllocatedAddress, AllocationRequest, allocate_address
from moyai.plan.announce.metallb_words import FROM_POOL, NAMESPACE, status_name, unknown_annotations


class AnnouncedProvider:
    """``classes``: the loadBalancerClasses of its Services, with the empty one where Services without a class are its own.
    ``rules``: of the nodes' security groups."""

    output_annotations = frozenset({FROM_POOL})

    def __init__(
        self,
        *,
        kube: Kube,
        services: Informer[Service],
        resources: AnnounceResources,
        rules: GroupRules,
        cluster: ClusterIdentity,
        classes: Collection[str],
    ) -> None:
        self._kube = kube
        self._services = services
        self._resources = resources
        self._rules = rules
        self._cluster = cluster
        self._classes = frozenset(classes)
        self._given: dict[str, AllocatedAddress] = {}
        #: Rules are of all Services together: they are compared for one Service at a time.
        self._ruling = asyncio.Lock()
        self._again: Callable[[], None] = lambda: None
        services.add_handler(self._service_changed)

    def watch(self, again: Callable[[], None]) -> None:
        self._again = again
        self._resources.watch(again)

    def unknown_annotations(self, service: Service) -> Sequence[str]:
        return unknown_annotations(service.annotations)

    def backends(self, nodes: Collection[Node]) -> Callable[[Service], Hashable]:
        some = bool(nodes)
        return lambda _service: some

    async def ensure(self, service: Service, nodes: Collection[Node], *, protect: Protect, report: Report) -> Ensured:
        await protect()
        # no await between the choice and its record: two Services never choose at the same time
        had = service.ingress[0].ip if service.ingress else ""
        try:
            request = AllocationRequest(service, self._held(service.key), self._resources.namespace_labels(service.namespace))
            given = allocate_address(request, self._resources.validated)
        except UsageError as error:
            self._given.pop(service.key, None)
            await self._open_ports()
            failed = ("AllocationFailed", f'Failed to allocate IP for "{service.key}": {error}')
            return Ensured(None, {FROM_POOL: None}, remarks=(failed,))
        before = self._given.get(service.key)
        self._given[service.key] = given
        remarks = list(access.remarks(service))
        changes: tuple[str, ...] = ()
        if had != str(given.address):
            changes = (f"address {given.address} of pool {given.pool}",)
            if given.moved:
                remarks.append(("AddressChanged", f"The address {had} is given up: {given.moved}"))
        if before is None or before.address != given.address:
            self._resources.count_again()
        await self._open_ports()
        return Ensured(Ingress(ip=str(given.address)), {FROM_POOL: given.pool}, changes, tuple(remarks))

    async def remove(self, service: Service, *, report: Report) -> None:
        await self._open_ports(but=service.key)
        with suppress(NotFound):
            await self._kube.delete(SERVICE_L2_STATUSES, status_name(service.key), namespace=NAMESPACE)
        self._given.pop(service.key, None)

    async def inventory(self, alive: Callable[[], Collection[str]]) -> Inventory:
        # rules of Services that are gone go with the comparison
        await self._open_ports()
        return Inventory(frozenset(alive()), frozenset())

    async def remove_orphan(self, orphan: Orphan) -> None:
        raise AssertionError(f"{orphan.key} is in no inventory of this provider")

    def addresses(self) -> dict[str, IPv4Address]:
        """Service (``namespace/name``) → its address, of those that have one."""
        found: dict[str, IPv4Address] = {}
        for one in self._mine():
            given = self._given.get(one.key)
            address = given.address if given else _address(one)
            if address is not None:
                found[one.key] = address
        return found

    def _mine(self) -> list[Service]:
        return [one for one in self._services.all() if one.balanced and one.load_balancer_class in self._classes]

    def _held(self, but: str) -> dict[IPv4Address, list[Service]]:
        """Address → Services that have it, but for this one."""
        addresses = self.addresses()
        found: dict[IPv4Address, list[Service]] = {}
        for one in self._mine():
            if one.key != but and one.key in addresses:
                found.setdefault(addresses[one.key], []).append(one)
        return found

    async def _open_ports(self, but: str = "") -> None:
        """For all Services that have an address and stay, but for this one. Services that go at the same time would otherwise
        each keep the ports of the others open."""
        if not self._rules.groups:
            return
        async with self._ruling:
            addresses = self.addresses()
            services = [one for one in self._mine() if one.key != but and one.key in addresses and not one.deleting]
            desired = access.desired_rules(services, self._cluster, group_ids=self._rules.groups)
            await self._rules.ensure(access.description(self._cluster), desired)

    def _service_changed(self, key: str, old: Service | None, new: Service | None) -> None:
        if new is None or (old is not None and new.uid != old.uid):
            self._given.pop(key, None)
        if old is not None and old.ingress and (new is None or new.ingress != old.ingress):
            # the address may be another's from now on
            self._resources.count_again()
            self._again()


def _address(service: Service) -> IPv4Address | None:
    try:
        return IPv4Address(service.ingress[0].ip) if service.ingress else None
    except ValueError:
        return None
