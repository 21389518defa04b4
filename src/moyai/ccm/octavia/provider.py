"""Services by load balancers of the cloud: the tree, its floating IP, and the rules that let it reach the nodes.

What always holds: every look reads the cloud's own state, so that a kill between any two calls leaves nothing double and
nothing behind; a Service has a part in its target alone, and leaves every other load balancer once the target stands; the
address and the rules are made while the cloud still builds the load balancer; calls per Service do not grow with the number of
Services.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, replace

from moyai.ccm.octavia.addresses import FloatingIPs
from moyai.ccm.octavia.annotations import (
    LOAD_BALANCER_ADDRESS,
    LOAD_BALANCER_ID,
    WRITTEN,
    outputs,
    read_node_selector,
    read_settings,
    settings_for_removal,
    unknown_annotations,
)
from moyai.ccm.octavia.balancer import Balancers, Holdings
from moyai.ccm.octavia.node_rules import NodeRules
from moyai.ccm.octavia.subnets import Subnets
from moyai.ccm.provider import Ensured, Inventory, Orphan, Protect, Report, StillWorking
from moyai.ccm.settings import CcmConfig
from moyai.cloud.load_balancers import BalancerState, LoadBalancer
from moyai.core.clock import Clock
from moyai.core.errors import MoyaiError, Retriable, UsageError
from moyai.core.ids import ClusterIdentity
from moyai.core.keys import Key, Kind
from moyai.kube.objects import Ingress, Node, Service
from moyai.plan.load_balancer.desired import desired_load_balancer
from moyai.plan.load_balancer.eligibility import Backends
from moyai.plan.load_balancer.service_settings import LoadBalancerSettings
from moyai.plan.load_balancer.sharing import ServiceMarks, users
from moyai.plan.load_balancer.source_ranges import family, fitting_ranges
from moyai.runtime.calls import CloudCalls
from moyai.runtime.concurrency import side_by_side

_log = logging.getLogger(__name__)


#: Seconds until the next try to leave a load balancer that cannot be left yet.
_LEAVE_SECONDS = 5.0


@dataclass(frozen=True)
class _Work:
    """One Service and what it asks for. ``remarks``: what of it has no effect."""

    service: Service
    marks: ServiceMarks
    settings: LoadBalancerSettings
    wanted: LoadBalancer
    remarks: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class _Done:
    head: LoadBalancer
    address: str
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Created:
    """Not reported as ensured yet. ``address`` None: it was not made yet."""

    wanted: LoadBalancer
    words: str
    address: str | None = None


class OctaviaProvider:
    """``poll``: seconds between two looks at a load balancer that the cloud changes."""

    output_annotations = frozenset({LOAD_BALANCER_ID, LOAD_BALANCER_ADDRESS, WRITTEN})

    def __init__(
        self, *, calls: CloudCalls, config: CcmConfig, cluster: ClusterIdentity, clock: Clock, poll: float = 0.2
    ) -> None:
        self._cloud, self._call = calls.cloud, calls.call
        self._config = config
        self._cluster = cluster
        self._subnets = Subnets(calls)
        self._balancers = Balancers(calls, cluster=cluster, clock=clock, poll=poll)
        self._floating = FloatingIPs(calls, cluster)
        self._rules = NodeRules(calls, cluster=cluster, config=config, subnets=self._subnets)
        #: By the load balancer's id.
        self._created: dict[str, _Created] = {}
        #: By Service: load balancers that it is leaving.
        self._leaving: dict[str, set[str]] = {}

    def watch(self, again: Callable[[], None]) -> None:
        """Nothing else changes load balancers."""

    def unknown_annotations(self, service: Service) -> Sequence[str]:
        return unknown_annotations(service)

    def backends(self, nodes: Collection[Node]) -> Callable[[Service], Hashable]:
        found = Backends(nodes)

        def of(service: Service) -> Hashable:
            try:
                return found.of(read_node_selector(service))
            except UsageError as error:
                return str(error)  # it waits for the annotation to change, not for nodes

        return of

    # --- making -------------------------------------------------------------------------------------------------------

    async def ensure(self, service: Service, nodes: Collection[Node], *, protect: Protect, report: Report) -> Ensured:
        settings = read_settings(service, self._config)
        marks = ServiceMarks.of(service, self._cluster)
        wanted = desired_load_balancer(service, nodes, settings=settings, cluster=self._cluster)
        async with side_by_side() as group:
            preferred = service.annotations.get(LOAD_BALANCER_ID, "")
            look = group.create_task(self._balancers.holdings(marks, settings, preferred=preferred))
            group.create_task(protect())
        holdings = look.result()
        fitting, remarks = await self._fitting(settings, holdings.target)
        if fitting != settings:
            wanted = desired_load_balancer(service, nodes, settings=fitting, cluster=self._cluster)
        work = _Work(service, marks, fitting, wanted, remarks)
        if holdings.target is None:
            raise await self._create(work, report)
        with self._balancers.claim(holdings.target):
            done = await self._update(work, holdings.target, report=report)
        return await self._ensured(work, done, holdings=holdings, report=report)

    async def _fitting(
        self, settings: LoadBalancerSettings, found: LoadBalancer | None
    ) -> tuple[LoadBalancerSettings, tuple[tuple[str, str], ...]]:
        """The settings with those source ranges alone that are of the load balancer's family, and what to say of the rest."""
        if not settings.source_ranges:
            return settings, ()
        version = family(found.vip_address) if found and found.vip_address else await self._family(settings)
        fits, left_out = fitting_ranges(settings.source_ranges, version)
        message = f"Without effect, because the load balancer's address is of IPv{version}: {', '.join(left_out)}"
        return replace(settings, source_ranges=fits), ((("SourceRangesLeftOut", message),) if left_out else ())

    async def _family(self, settings: LoadBalancerSettings) -> int:
        """Of a load balancer that is to be created."""
        if settings.vip_address:
            return family(settings.vip_address)
        if settings.vip_port_id:
            ports = await self._call(self._cloud.networks.ports, ids=[settings.vip_port_id])
            addresses = [address for one in ports for address in one.fixed_ips]
            return family(addresses[0]) if addresses else 4
        if settings.vip_subnet_id:
            return family(await self._subnets.cidr(settings.vip_subnet_id))
        # the cloud chooses a subnet of IPv4 where the network has one
        ranges = await self._subnets.of_network(settings.vip_network_id)
        return min(map(family, ranges), default=4)

    async def _create(self, work: _Work, report: Report) -> Retriable:
        """Returns what brings the Service back, and with it the next look: that finds a double which another leader made."""
        wanted = work.wanted
        report("Normal", reason="EnsuringLoadBalancer", message=f"Creating load balancer {wanted.name}")
        head = await self._balancers.create(wanted)
        nodes = len({member.address for one in wanted.listeners if one.pool for member in one.pool.members})
        created = _Created(wanted, f"created with {len(wanted.listeners)} ports and {nodes} nodes")
        self._created[head.id] = created
        async with side_by_side() as group:
            new = not work.settings.vip_port_id
            address = group.create_task(self._floating.ensure(work.marks, work.settings, found=head, new=new))
            group.create_task(self._rules.ensure(work.service, work.settings, found=head))
        self._created[head.id] = replace(created, address=address.result())
        return self._balancers.later(head, "is being built")

    async def _update(self, work: _Work, found: LoadBalancer, *, report: Report) -> _Done:
        if found.state is BalancerState.FAILED:
            raise await self._balancers.rebuild(found, marks=work.marks, report=report)
        self._balancers.settled(found)
        created = self._created.get(found.id)
        if created and created.address is not None and created.wanted == work.wanted:
            # nothing can differ yet
            del self._created[found.id]
            return _Done(found, created.address, (created.words,))
        async with side_by_side() as group:
            address = group.create_task(self._floating.ensure(work.marks, work.settings, found=found, new=False))
            group.create_task(self._rules.ensure(work.service, work.settings, found=found))
            changes = group.create_task(self._balancers.apply(work.wanted, found, marks=work.marks))
        self._created.pop(found.id, None)
        words = (created.words,) if created else ()
        return _Done(found, address.result(), (*words, *changes.result()))

    async def _ensured(self, work: _Work, done: _Done, *, holdings: Holdings, report: Report) -> Ensured:
        settings = work.settings
        shown = done.address or done.head.vip_address
        mode = "Proxy" if settings.proxy_protocol else None
        return Ensured(
            Ingress(hostname=settings.hostname) if settings.hostname else Ingress(ip=shown, ip_mode=mode),
            outputs(work.service, load_balancer_id=done.head.id, address=shown, wished=not holdings.own),
            done.changes,
            remarks=work.remarks,
            affected=tuple(sorted(users(done.head) - {work.marks.key})),
            requeue_after=await self._leave_former(work, holdings.former, report=report),
        )

    async def _leave_former(self, work: _Work, former: Collection[LoadBalancer], *, report: Report) -> float | None:
        """From doubles, and from load balancers that the user named before. Returns after how long there is more to do: the
        Service answers meanwhile."""
        again: float | None = None
        for found in former:
            try:
                _log.info("service %s leaves load balancer %s", work.service.key, found.id)
                await self._leave(work.marks, found, settings=work.settings, kept=[])
            except StillWorking as error:
                again = error.requeue_after
            except MoyaiError as error:
                again = _LEAVE_SECONDS
                message = f"Load balancer {found.id} is not left yet: {error}"
                report("Warning", reason="FormerLoadBalancerStays", message=message)
        return again

    # --- taking away --------------------------------------------------------------------------------------------------

    async def remove(self, service: Service, *, report: Report) -> None:
        settings = settings_for_removal(service, self._config)
        marks = ServiceMarks.of(service, self._cluster)
        used = await self._balancers.used(marks)
        leaving = self._leaving.setdefault(service.key, set())
        leaving.update(one.id for one in used)
        kept: list[str] = []
        async with side_by_side() as group:
            rules = group.create_task(self._rules.remove(service.key))
            left = [group.create_task(self._left(marks, one, settings=settings, kept=kept)) for one in used]
        rules.result()
        if not (late := [error for error in (one.result() for one in left) if error]):
            kept += await self._floating.release(marks, settings, found=None)
        for address in sorted(set(kept)):
            report("Normal", reason="KeptFloatingIP", message=f"Floating IP {address} is kept")
        if late:
            raise late[0]
        for one in self._leaving.pop(service.key):
            self._balancers.forget(one)
            self._created.pop(one, None)

    async def _left(
        self, marks: ServiceMarks, found: LoadBalancer, *, settings: LoadBalancerSettings, kept: list[str]
    ) -> StillWorking | None:
        """As ``_leave``; what takes its time is returned, so that it does not end what goes on beside it."""
        try:
            if found.state is BalancerState.DELETING:
                raise self._balancers.later(found, "is still being deleted")
            await self._leave(marks, found, settings=settings, kept=kept)
        except StillWorking as error:
            return error
        return None

    async def _leave(
        self, marks: ServiceMarks, found: LoadBalancer, *, settings: LoadBalancerSettings, kept: list[str]
    ) -> None:
        """``kept`` gets the addresses that were let go without being deleted."""
        with self._balancers.claim(found):
            now = await self._balancers.head(found.id)
            if now:
                kept += await self._floating.release(marks, settings, found=now)
                await self._balancers.leave(now, marks=marks)

    # --- orphans ------------------------------------------------------------------------------------------------------

    async def inventory(self, alive: Callable[[], Collection[str]]) -> Inventory:
        balancers = await self._balancers.of_cluster()
        ruled = await self._rules.service_keys()
        addresses = await self._floating.made_for_services()
        keys = frozenset(alive())
        gone = {one.vip_port_id: one for one in balancers if not users(one) & keys}
        found = [Orphan(Key(Kind.LOAD_BALANCER, one.id), users(one)) for one in gone.values()]
        found += [Orphan(Key(Kind.RULES, key), frozenset({key})) for key in ruled - keys]
        found += [
            Orphan(Key(Kind.FLOATING_IP, one.id), frozenset({key}))
            for key, one in addresses
            # an address on any other port is in use
            if key not in keys and (not one.port_id or one.port_id in gone)
        ]
        services = ruled.union(*map(users, balancers), (key for key, _ in addresses))
        return Inventory(frozenset(services), frozenset(found))

    async def remove_orphan(self, orphan: Orphan) -> None:
        name = orphan.key.name
        match orphan.key.kind:
            case Kind.LOAD_BALANCER:
                if (found := await self._balancers.head(name)) and users(found) <= orphan.services:
                    raise await self._balancers.delete(found)
            case Kind.FLOATING_IP:
                await self._floating.delete(name)
            case Kind.RULES:
                await self._rules.remove(name)
            case _:
                raise AssertionError(f"{orphan.key} is in no inventory of this provider")
