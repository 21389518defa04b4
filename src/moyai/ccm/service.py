"""The service controller: every Service of type LoadBalancer has its load balancer, every other one has none.

What always holds: the finalizer is on the Service before anything is made in the cloud, and leaves it only when all is gone; a
Service of another class (spec.loadBalancerClass) is not touched; the status tells an address only once it answers; every
reconcile reads what is there, so that a kill between any two calls leaves nothing double and nothing behind.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Iterable
from dataclasses import replace
from typing import Literal, TypeVar, cast

from moyai.ccm.octavia.addresses import FloatingIPs, NodeRules
from moyai.ccm.octavia.annotations import LOAD_BALANCER_ADDRESS, LOAD_BALANCER_ID, read_settings, unknown_annotations
from moyai.ccm.octavia.balancer import Balancers, LoadBalancerFailed
from moyai.ccm.settings import CloudConfig
from moyai.cloud.load_balancers import BalancerState, LoadBalancer
from moyai.core.errors import Conflict, MoyaiError, NotFound, UsageError
from moyai.kube.events import EventRecorder
from moyai.kube.informer import Informer
from moyai.kube.objects import Ingress, Node, Service, parse_service
from moyai.kube.resources import SERVICES, Json
from moyai.kube.watching import Kube
from moyai.kube.workqueue import WorkQueue
from moyai.plan.load_balancer import (
    ClusterIdentity,
    LoadBalancerSettings,
    desired_load_balancer,
    eligible_nodes,
    load_balancer_name,
)
from moyai.runtime.reconciler import DONE, Result

T = TypeVar("T")
_log = logging.getLogger(__name__)

FINALIZER = "service.kubernetes.io/load-balancer-cleanup"
#: What is there is compared with what should be this often, even if nobody says that anything changed.
RESYNC_SECONDS = 900.0
#: Nodes come in groups: wait so long for more of them before the members are set.
_NODE_SETTLE_SECONDS = 0.5
_OUTPUT_ANNOTATIONS = (LOAD_BALANCER_ID, LOAD_BALANCER_ADDRESS)


class ServiceController:
    """``reconcile`` takes ``namespace/name``; ``watch`` ties it to the informers before they run."""

    def __init__(
        self,
        *,
        kube: Kube,
        services: Informer[Service],
        nodes: Informer[Node],
        balancers: Balancers,
        floating: FloatingIPs,
        rules: NodeRules,
        config: CloudConfig,
        cluster: ClusterIdentity,
        events: EventRecorder,
    ) -> None:
        self._kube = kube
        self._services = services
        self._nodes = nodes
        self._balancers = balancers
        self._floating = floating
        self._rules = rules
        self._config = config
        self._cluster = cluster
        self._events = events
        self._told: dict[str, tuple[str, ...]] = {}

    # --- when ---------------------------------------------------------------------------------------------------------

    def watch(self, queue: WorkQueue) -> None:
        def service_changed(key: str, old: Service | None, new: Service | None) -> None:
            if new is None:
                self._told.pop(key, None)
            elif concerns(new) and (old is None or _essence(old) != _essence(new)):
                queue.add(key)

        def node_changed(_key: str, old: Node | None, new: Node | None) -> None:
            if _member(old) != _member(new):
                for service in self._services.all():
                    if wants_load_balancer(service):
                        queue.add_later(service.key, _NODE_SETTLE_SECONDS)

        self._services.add_handler(service_changed)
        self._nodes.add_handler(node_changed)

    # --- what ---------------------------------------------------------------------------------------------------------

    async def reconcile(self, key: str) -> Result:
        service = self._services.get(key)
        if service is None or not concerns(service):
            return DONE
        try:
            if wants_load_balancer(service):
                await self._ensure(service)
                return Result(again_after=RESYNC_SECONDS)
            await self._clean_up(service)
        except NotFound as error:
            if self._services.get(key) is None:
                return DONE
            raise Conflict(f"something went away meanwhile: {error}") from error
        return DONE

    def failed(self, key: str, error: MoyaiError) -> None:
        """Tell the user, as an event on the Service."""
        service = self._services.get(key)
        if service and not isinstance(error, Conflict):
            deleting = not wants_load_balancer(service)
            reason = "DeleteLoadBalancerFailed" if deleting else "SyncLoadBalancerFailed"
            what = "Error deleting load balancer" if deleting else "Error syncing load balancer"
            self._events.event(service.reference, "Warning", reason, f"{what}: {error}")

    async def _ensure(self, service: Service) -> None:
        settings = read_settings(service, self._config)
        self._warn(service)
        name = load_balancer_name(self._cluster, service)
        wanted = desired_load_balancer(service, self._nodes.all(), settings, self._cluster)
        found, _ = await _both(self._balancers.find(name, settings.load_balancer_id), self._add_finalizer(service))
        if found is None and settings.load_balancer_id and not service.annotations.get(LOAD_BALANCER_ADDRESS):
            raise UsageError(
                f"annotation {LOAD_BALANCER_ID} is {settings.load_balancer_id!r}",
                hint="it must be the id of a load balancer that is in the cloud",
            )
        if found and found.state is BalancerState.DELETING:
            await self._balancers.wait_gone(found.id)
            found = None
        if found and found.state is BalancerState.FAILED:
            found = await self._mend(service, found, name)
        if found is None:
            head, address, changes = await self._create(service, settings, wanted)
        else:
            head, address, changes = await self._update(service, settings, wanted, found)
        await self._publish(service, settings, head, address, changes)

    async def _create(
        self, service: Service, settings: LoadBalancerSettings, wanted: LoadBalancer
    ) -> tuple[LoadBalancer, str, list[str]]:
        self._event(service, "EnsuringLoadBalancer", f"Creating load balancer {wanted.name}")
        head, known = await _both(
            self._balancers.create(wanted), self._floating.all() if not settings.internal else _nothing([])
        )
        # the address and the ports are made while the cloud still builds the load balancer
        address, _ = await _both(
            self._floating.ensure(service, settings, head.vip_port_id, known),
            _both(self._rules.ensure(service, settings, head), self._balancers.wait(head.id)),
        )
        return head, address, [f"created with {len(wanted.listeners)} ports and {_count_nodes(wanted)} nodes"]

    async def _update(
        self, service: Service, settings: LoadBalancerSettings, wanted: LoadBalancer, found: LoadBalancer
    ) -> tuple[LoadBalancer, str, list[str]]:
        shared = not self._balancers.owned(found, wanted.name)

        async def address() -> str:
            return await self._floating.ensure(service, settings, found.vip_port_id, await self._floating.all())

        chosen, (_, changes) = await _both(
            address(),
            _both(
                self._rules.ensure(service, settings, found),
                self._balancers.apply(wanted, found.id, shared=shared),
            ),
        )
        return found, chosen, changes

    async def _mend(self, service: Service, found: LoadBalancer, name: str) -> LoadBalancer | None:
        if not self._balancers.owned(found, name):
            raise LoadBalancerFailed(f"load balancer {found.name}, which others use too, is in ERROR", object_id=found.id)

        def tell(kind: str, reason: str, message: str) -> None:
            self._events.event(service.reference, cast(Literal["Normal", "Warning"], kind), reason, message)

        return found if await self._balancers.rebuild(found, tell) else None

    async def _publish(
        self, service: Service, settings: LoadBalancerSettings, head: LoadBalancer, address: str, changes: list[str]
    ) -> None:
        shown = address or head.vip_address
        mode = "Proxy" if settings.proxy_protocol else None
        ingress = Ingress(hostname=settings.hostname) if settings.hostname else Ingress(ip=shown, ip_mode=mode)
        have = tuple(replace(one, ip_mode=None if one.ip_mode == "VIP" else one.ip_mode) for one in service.ingress)
        status = self._patch_status(service, [ingress]) if have != (ingress,) else _nothing(None)
        wanted = {LOAD_BALANCER_ID: head.id, LOAD_BALANCER_ADDRESS: shown}
        notes = {key: value for key, value in wanted.items() if service.annotations.get(key) != value}
        await _both(status, self._patch_metadata(service, annotations=notes) if notes else _nothing(None))
        if changes:
            self._event(service, "EnsuredLoadBalancer", f"Load balancer at {shown}: {'; '.join(changes)}")

    async def _clean_up(self, service: Service) -> None:
        self._event(service, "DeletingLoadBalancer", "Deleting load balancer")
        settings = self._settings_for_removal(service)
        await self._remove(service, settings)
        if not service.deleting:
            await self._patch_status(service, [])
        await self._patch_metadata(
            service,
            annotations=dict.fromkeys(key for key in _OUTPUT_ANNOTATIONS if key in service.annotations),
            finalizers=[one for one in service.finalizers if one != FINALIZER],
        )
        self._event(service, "DeletedLoadBalancer", "Deleted load balancer")

    def _settings_for_removal(self, service: Service) -> LoadBalancerSettings:
        try:
            return read_settings(service, self._config)
        except UsageError:
            # a wrong annotation must not keep a Service from going
            keep = service.annotations.get("loadbalancer.openstack.org/keep-floatingip", "").lower() in ("true", "1")
            wanted = service.annotations.get(LOAD_BALANCER_ID, "")
            return LoadBalancerSettings(keep_floating_ip=keep, load_balancer_id=wanted)

    async def _remove(self, service: Service, settings: LoadBalancerSettings) -> None:
        name = load_balancer_name(self._cluster, service)
        found, known = await _both(self._find_any(name, settings), self._floating.all())
        port = found.vip_port_id if found and self._balancers.owned(found, name) else ""

        async def balancer() -> None:
            if found:
                await self._balancers.remove(found, name)

        (kept, _), _ = await _both(
            _both(self._floating.release(service, settings, port, known), balancer()), self._rules.remove(service.key)
        )
        for address in kept:
            self._event(service, "KeptFloatingIP", f"Floating IP {address} is kept")

    async def _find_any(self, name: str, settings: LoadBalancerSettings) -> LoadBalancer | None:
        try:
            return await self._balancers.find(name, settings.load_balancer_id)
        except UsageError:
            return None

    async def clean_orphans(self) -> None:
        """Delete what belongs to Services that are gone: their finalizer was taken off by hand, or they never came to be."""
        alive = {load_balancer_name(self._cluster, one) for one in self._services.all() if concerns(one)}
        keys = {one.key for one in self._services.all() if concerns(one)}
        for found in await self._balancers.of_cluster():
            names = {found.name, *self._balancers.users(found, found.name)}
            if not names & alive:
                _log.warning("load balancer %s has no Service any more, deleting it", found.name)
                await self._balancers.remove(found, found.name)
        for key in await self._rules.service_keys() - keys:
            _log.warning("security group rules of Service %s, which is gone, are deleted", key)
            await self._rules.remove(key)
        for key in await self._floating.service_keys() - keys:
            namespace, _, name = key.partition("/")
            await self._floating.release(Service(namespace, name, ""), LoadBalancerSettings(), "", await self._floating.all())

    # --- the Service itself ---------------------------------------------------------------------------------------------

    async def _add_finalizer(self, service: Service) -> None:
        if FINALIZER not in service.finalizers:
            await self._patch_metadata(service, finalizers=[*service.finalizers, FINALIZER])

    async def _patch_metadata(
        self,
        service: Service,
        *,
        annotations: dict[str, str | None] | dict[str, str] | None = None,
        finalizers: list[str] | None = None,
    ) -> None:
        meta: Json = {}
        if annotations:
            meta["annotations"] = annotations
        if finalizers is not None:
            # the list is replaced as a whole: only if nobody changed it meanwhile
            fresh = await self._kube.get(SERVICES, service.name, namespace=service.namespace)
            now = parse_service(fresh)
            if now.uid != service.uid:
                raise Conflict(f"Service {service.key} was deleted and made anew meanwhile")
            gone, come = set(service.finalizers) - set(finalizers), set(finalizers) - set(service.finalizers)
            meta["finalizers"] = [one for one in now.finalizers if one not in gone] + sorted(come - set(now.finalizers))
            meta["resourceVersion"] = now.version
        if meta:
            await self._kube.patch(SERVICES, service.name, {"metadata": meta}, namespace=service.namespace)

    async def _patch_status(self, service: Service, ingress: list[Ingress]) -> None:
        entries: list[Json] = []
        for one in ingress:
            entry: Json = {"ip": one.ip} if one.ip else {"hostname": one.hostname}
            entries.append({**entry, **({"ipMode": one.ip_mode} if one.ip_mode else {})})
        body: Json = {"status": {"loadBalancer": {"ingress": entries or None}}}
        await self._kube.patch(SERVICES, service.name, body, namespace=service.namespace, subresource="status")

    def _event(self, service: Service, reason: str, message: str) -> None:
        self._events.event(service.reference, "Normal", reason, message)

    def _warn(self, service: Service) -> None:
        """Once for each set of annotations that mean nothing to us, and for a Service that no node can serve."""
        found = tuple(unknown_annotations(service))
        if found and self._told.get(service.key) != found:
            self._told[service.key] = found
            self._events.event(service.reference, "Warning", "UnknownAnnotation", f"Without effect here: {', '.join(found)}")
        if not eligible_nodes(self._nodes.all()):
            self._events.event(
                service.reference, "Warning", "UnAvailableLoadBalancer", "There are no available nodes for LoadBalancer"
            )


def wants_load_balancer(service: Service) -> bool:
    return service.type == "LoadBalancer" and not service.deleting and not service.load_balancer_class


def concerns(service: Service) -> bool:
    """Whether there is or should be something of ours in the cloud for it."""
    return (
        not service.load_balancer_class
        and (service.type == "LoadBalancer" or FINALIZER in service.finalizers)
        and (FINALIZER in service.finalizers or not service.deleting)
    )


def _essence(service: Service) -> Service:
    """Without what we write ourselves."""
    kept = {key: value for key, value in service.annotations.items() if key not in _OUTPUT_ANNOTATIONS}
    return replace(service, version="", ingress=(), finalizers=(), annotations=kept)


def _member(node: Node | None) -> object:
    """What of a node matters to load balancers."""
    if node is None or not eligible_nodes([node]):
        return None
    return node.name, node.internal_ips, node.labels


def _count_nodes(wanted: LoadBalancer) -> int:
    return len({member.address for one in wanted.listeners if one.pool for member in one.pool.members})


async def _nothing(value: T) -> T:
    return value


T1 = TypeVar("T1")
T2 = TypeVar("T2")


async def _both(first: Awaitable[T1], second: Awaitable[T2]) -> tuple[T1, T2]:
    """Side by side; when one fails the other is still waited for, for a call under way cannot be taken back."""
    results = await asyncio.gather(first, second, return_exceptions=True)
    _raise_first(results)
    return cast("tuple[T1, T2]", (results[0], results[1]))


def _raise_first(results: Iterable[object]) -> None:
    for one in results:
        if isinstance(one, BaseException):
            raise one
