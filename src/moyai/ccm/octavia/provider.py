"""Services by load balancers of the cloud: the tree, its floating IP, and the rules that let it reach the nodes.

What always holds: every look reads the cloud's own state, so that a kill between any two calls leaves nothing double and
nothing behind; the address and the rules are made while the cloud still builds the load balancer; calls per Service do not grow
with the number of Services.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, replace

from moyai.ccm.octavia.addresses import FloatingIPs
from moyai.ccm.octavia.annotations import (
    LOAD_BALANCER_ADDRESS,
    LOAD_BALANCER_ID,
    read_node_selector,
    read_settings,
    settings_for_removal,
    unknown_annotations,
)
from moyai.ccm.octavia.balancer import Balancers, LoadBalancerFailed
from moyai.ccm.octavia.node_rules import NodeRules
from moyai.ccm.provider import Ensured, Protect, Report, StillWorking
from moyai.ccm.settings import CcmConfig
from moyai.cloud.load_balancers import BalancerState, LoadBalancer
from moyai.core.clock import Clock
from moyai.core.errors import UsageError
from moyai.core.ids import ClusterIdentity
from moyai.kube.objects import Ingress, Node, Service
from moyai.plan.load_balancer.desired import desired_load_balancer
from moyai.plan.load_balancer.eligibility import Backends
from moyai.plan.load_balancer.names import load_balancer_name
from moyai.plan.load_balancer.settings import LoadBalancerSettings
from moyai.runtime.calls import CloudCalls
from moyai.runtime.concurrency import side_by_side

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Work:
    """One Service and what it asks for."""

    service: Service
    settings: LoadBalancerSettings
    wanted: LoadBalancer


@dataclass(frozen=True)
class _Done:
    head: LoadBalancer
    address: str
    changes: tuple[str, ...] = ()


class OctaviaProvider:
    """``poll``: seconds between two looks at a load balancer that the cloud changes."""

    output_annotations = frozenset({LOAD_BALANCER_ID, LOAD_BALANCER_ADDRESS})

    def __init__(
        self, *, calls: CloudCalls, config: CcmConfig, cluster: ClusterIdentity, clock: Clock, poll: float = 0.2
    ) -> None:
        self._config = config
        self._cluster = cluster
        self._balancers = Balancers(calls, cluster=cluster, clock=clock, poll=poll)
        self._floating = FloatingIPs(calls, cluster)
        self._rules = NodeRules(calls, cluster=cluster, config=config)
        #: Created, but not reported as ensured yet: by id, in a user's words.
        self._created: dict[str, str] = {}

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
        wanted = desired_load_balancer(service, nodes, settings=settings, cluster=self._cluster)
        work = _Work(service, settings, wanted)
        async with side_by_side() as group:
            look = group.create_task(self._balancers.adopt(wanted.name, settings.load_balancer_id))
            group.create_task(protect())
        found = look.result()
        if found is None and settings.load_balancer_id and not service.annotations.get(LOAD_BALANCER_ADDRESS):
            raise UsageError(
                f"annotation {LOAD_BALANCER_ID} is {settings.load_balancer_id!r}",
                hint="it must be the id of a load balancer that is in the cloud",
            )
        found = await self._usable(found, wanted.name, report=report) if found else None
        done = await (self._create(work, report) if found is None else self._update(work, found))
        created = self._created.pop(done.head.id, "")
        return _ensured(work, replace(done, changes=(created, *done.changes)) if created else done)

    async def _usable(self, found: LoadBalancer, name: str, *, report: Report) -> LoadBalancer | None:
        """Mended where it can be; None: it is gone and has to be recreated."""
        self._balancers.yield_if_slow(found)
        if found.state is BalancerState.DELETING:
            await self._balancers.wait_gone(found.id)
            return None
        if found.state is not BalancerState.FAILED:
            return found
        if not self._balancers.owned(found, name):
            raise LoadBalancerFailed(f"load balancer {found.name}, which others use too, is in ERROR", object_id=found.id)
        return found if await self._balancers.rebuild(found, report) else None

    async def _create(self, work: _Work, report: Report) -> _Done:
        service, settings, wanted = work.service, work.settings, work.wanted
        report("Normal", reason="EnsuringLoadBalancer", message=f"Creating load balancer {wanted.name}")
        head = await self._balancers.create(wanted)
        nodes = len({member.address for one in wanted.listeners if one.pool for member in one.pool.members})
        self._created[head.id] = f"created with {len(wanted.listeners)} ports and {nodes} nodes"
        async with side_by_side() as group:
            address = group.create_task(
                self._floating.ensure(service.key, settings, port_id=head.vip_port_id, new=not settings.vip_port_id)
            )
            group.create_task(self._rules.ensure(service, settings, found=head))
            group.create_task(self._balancers.wait(head.id))
        return _Done(head, address.result())

    async def _update(self, work: _Work, found: LoadBalancer) -> _Done:
        service, settings, wanted = work.service, work.settings, work.wanted
        shared = not self._balancers.owned(found, wanted.name)
        async with side_by_side() as group:
            address = group.create_task(self._floating.ensure(service.key, settings, port_id=found.vip_port_id, new=False))
            group.create_task(self._rules.ensure(service, settings, found=found))
            changes = group.create_task(self._balancers.apply(wanted, found.id, shared=shared))
        return _Done(found, address.result(), tuple(changes.result()))

    # --- taking away --------------------------------------------------------------------------------------------------

    async def remove(self, service: Service, *, report: Report) -> None:
        settings = settings_for_removal(service, self._config)
        name = load_balancer_name(self._cluster, service)
        found = await self._find_any(name, settings)
        if found:
            self._balancers.yield_if_slow(found)
        port = found.vip_port_id if found and self._balancers.owned(found, name) else ""
        async with side_by_side() as group:
            kept = group.create_task(self._floating.release(service.key, settings, port_id=port))
            group.create_task(self._rules.remove(service.key))
            if found:
                group.create_task(self._balancers.remove(found, name))
        for address in kept.result():
            report("Normal", reason="KeptFloatingIP", message=f"Floating IP {address} is kept")

    async def _find_any(self, name: str, settings: LoadBalancerSettings) -> LoadBalancer | None:
        try:
            return await self._balancers.adopt(name, settings.load_balancer_id)
        except UsageError:
            return None

    async def remove_orphans(self, alive: Callable[[], Collection[Service]]) -> None:
        balancers = await self._balancers.of_cluster()
        with_rules = await self._rules.service_keys()
        with_addresses = await self._floating.service_keys()
        services = alive()
        keys = {one.key for one in services}
        names = {load_balancer_name(self._cluster, one) for one in services}
        slow: StillWorking | None = None
        for found in balancers:
            if not {found.name, *self._balancers.users(found, found.name)} & names:
                _log.warning("load balancer %s has no Service any more, deleting it", found.name)
                try:
                    await self._balancers.remove(found, found.name)
                except StillWorking as error:
                    slow = error
        for key in sorted(with_rules - keys):
            _log.warning("security group rules of Service %s, which is gone, are deleted", key)
            await self._rules.remove(key)
        for key in sorted(with_addresses - keys):
            _log.warning("the floating IP of Service %s, which is gone, is deleted", key)
            await self._floating.release(key, LoadBalancerSettings(), port_id="")
        if slow:
            raise slow


def _ensured(work: _Work, done: _Done) -> Ensured:
    settings = work.settings
    shown = done.address or done.head.vip_address
    mode = "Proxy" if settings.proxy_protocol else None
    ingress = Ingress(hostname=settings.hostname) if settings.hostname else Ingress(ip=shown, ip_mode=mode)
    return Ensured(ingress, {LOAD_BALANCER_ID: done.head.id, LOAD_BALANCER_ADDRESS: shown}, done.changes)
