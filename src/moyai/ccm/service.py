"""The Service controller: every Service of type LoadBalancer is made reachable by its provider, every other one is not.

What always holds: the finalizer is on the Service before its provider makes anything, and leaves it only when all is gone; a
Service whose class (spec.loadBalancerClass) has no provider here is not touched; the status shows an address only once it
answers; a change of nodes queues only the Services whose backends it changes, and a burst of changes is one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Hashable, Mapping
from dataclasses import replace
from functools import partial

from moyai.ccm.provider import Ensured, Report, ServiceProvider, StillWorking
from moyai.core.errors import Conflict, MoyaiError, NotFound
from moyai.kube.events import EventRecorder
from moyai.kube.informer import Informer
from moyai.kube.objects import Ingress, Node, Service, parse_service
from moyai.kube.resources import SERVICES, Json
from moyai.kube.watching import Kube
from moyai.kube.workqueue import WorkQueue
from moyai.runtime.concurrency import side_by_side
from moyai.runtime.controllers import Part, Periodic
from moyai.runtime.reconciler import DONE, Result

_log = logging.getLogger(__name__)

FINALIZER = "service.kubernetes.io/load-balancer-cleanup"
#: On a Service with a class: the class. The API drops spec.loadBalancerClass when the type changes away from LoadBalancer.
CLASS_ANNOTATION = "moyai.dev/load-balancer-class"
#: Seconds between two comparisons of the cloud with the Services, also without any change.
RESYNC_SECONDS = 900.0
#: Nodes come in groups: wait so long for more of them before the backends are compared.
_NODE_SETTLE_SECONDS = 0.5
_ORPHAN_SECONDS = 3600.0
_WORKERS = 8


class ServiceController:
    """``providers``: by loadBalancerClass; the key ``""`` is that of Services without a class."""

    def __init__(
        self,
        *,
        kube: Kube,
        services: Informer[Service],
        nodes: Informer[Node],
        providers: Mapping[str, ServiceProvider],
        events: EventRecorder,
    ) -> None:
        self._kube = kube
        self._services = services
        self._nodes = nodes
        self._providers = dict(providers)
        self._events = events
        self._outputs = {CLASS_ANNOTATION}.union(*(one.output_annotations for one in providers.values()))
        self._warned: dict[str, tuple[str, ...]] = {}
        #: What each Service's backends were when its provider was last asked to ensure it.
        self._backends: dict[str, Hashable] = {}
        #: Services whose removal is under way, which was reported.
        self._removing: set[str] = set()
        self._settling: asyncio.TimerHandle | None = None

    def part(self) -> Part:
        return Part(
            "service",
            self.reconcile,
            self.watch,
            workers=_WORKERS,
            on_error=self.failed,
            periodic=[Periodic("removal of orphans", self.remove_orphans, _ORPHAN_SECONDS)],
        )

    # --- when ---------------------------------------------------------------------------------------------------------

    def watch(self, queue: WorkQueue) -> None:
        def service_changed(key: str, old: Service | None, new: Service | None) -> None:
            if new is None:
                self._warned.pop(key, None)
                self._removing.discard(key)
                self._backends.pop(key, None)
            elif self._concerns(new) and (old is None or self._without_outputs(old) != self._without_outputs(new)):
                queue.add(key)

        def node_changed(_key: str, old: Node | None, new: Node | None) -> None:
            if self._settling is None and _routing_facts(old) != _routing_facts(new):
                loop = asyncio.get_running_loop()
                self._settling = loop.call_later(_NODE_SETTLE_SECONDS, self._nodes_settled, queue)

        self._services.add_handler(service_changed)
        self._nodes.add_handler(node_changed)

    def _nodes_settled(self, queue: WorkQueue) -> None:
        self._settling = None
        nodes = self._nodes.all()
        backends = {name: provider.backends(nodes) for name, provider in self._providers.items()}
        for service in self._services.all():
            if self._wants(service) and self._backends.get(service.key) != backends[_class_of(service)](service):
                queue.add(service.key)

    def _wants(self, service: Service) -> bool:
        return service.type == "LoadBalancer" and not service.deleting and _class_of(service) in self._providers

    def _concerns(self, service: Service) -> bool:
        """Whether a provider of ours has or should have something for it."""
        return (
            _class_of(service) in self._providers
            and (service.type == "LoadBalancer" or FINALIZER in service.finalizers)
            and (FINALIZER in service.finalizers or not service.deleting)
        )

    def _without_outputs(self, service: Service) -> Service:
        """Without what we write ourselves."""
        kept = {key: value for key, value in service.annotations.items() if key not in self._outputs}
        return replace(service, version="", ingress=(), finalizers=(), annotations=kept)

    # --- what ---------------------------------------------------------------------------------------------------------

    async def reconcile(self, key: str) -> Result:
        service = self._services.get(key)
        if service is None or not self._concerns(service):
            return DONE
        try:
            if self._wants(service):
                await self._ensure(service)
                return Result(requeue_after=RESYNC_SECONDS)
            await self._remove(service)
        except StillWorking as error:
            _log.info("service %s: %s", key, error)
            return Result(requeue_after=error.requeue_after)
        except NotFound as error:
            if self._services.get(key) is None:
                return DONE
            raise Conflict(f"something went away meanwhile: {error}") from error
        return DONE

    def failed(self, key: str, error: MoyaiError) -> None:
        """Report it to the user, as an event on the Service."""
        service = self._services.get(key)
        if service and not isinstance(error, Conflict):
            deleting = not self._wants(service)
            reason = "DeleteLoadBalancerFailed" if deleting else "SyncLoadBalancerFailed"
            what = "Error deleting load balancer" if deleting else "Error syncing load balancer"
            self._events.event(service.reference, "Warning", reason=reason, message=f"{what}: {error}")

    async def _ensure(self, service: Service) -> None:
        provider = self._providers[_class_of(service)]
        report: Report = partial(self._events.event, service.reference)
        nodes = self._nodes.all()
        self._backends[service.key] = backends = provider.backends(nodes)(service)
        self._warn(service, provider=provider, report=report)
        if not backends:
            report("Warning", reason="UnAvailableLoadBalancer", message="There are no available nodes for LoadBalancer")
        ensured = await provider.ensure(service, nodes, protect=partial(self._protect, service), report=report)
        await self._publish(service, ensured)
        if ensured.changes:
            shown = ensured.ingress.ip or ensured.ingress.hostname
            report("Normal", reason="EnsuredLoadBalancer", message=f"Load balancer at {shown}: {'; '.join(ensured.changes)}")

    async def _publish(self, service: Service, ensured: Ensured) -> None:
        have = tuple(replace(one, ip_mode=None if one.ip_mode == "VIP" else one.ip_mode) for one in service.ingress)
        notes = {key: value for key, value in ensured.annotations.items() if service.annotations.get(key) != value}
        async with side_by_side() as group:
            if have != (ensured.ingress,):
                group.create_task(self._patch_status(service, [ensured.ingress]))
            if notes:
                group.create_task(self._patch_metadata(service, annotations=notes))

    async def _remove(self, service: Service) -> None:
        provider = self._providers[_class_of(service)]
        report: Report = partial(self._events.event, service.reference)
        if service.key not in self._removing:
            self._removing.add(service.key)
            report("Normal", reason="DeletingLoadBalancer", message="Deleting load balancer")
        self._backends.pop(service.key, None)
        await provider.remove(service, report=report)
        if not service.deleting:
            await self._patch_status(service, [])
        outputs = {*provider.output_annotations, CLASS_ANNOTATION}
        await self._patch_metadata(
            service,
            annotations=dict.fromkeys(sorted(key for key in outputs if key in service.annotations)),
            finalizers=[one for one in service.finalizers if one != FINALIZER],
        )
        self._removing.discard(service.key)
        report("Normal", reason="DeletedLoadBalancer", message="Deleted load balancer")

    async def remove_orphans(self) -> None:
        """Remove what belongs to Services that are gone: their finalizer was taken off by hand, or they never came to be."""
        for name, provider in self._providers.items():
            await provider.remove_orphans(partial(self._alive, name))

    def _alive(self, name: str) -> list[Service]:
        return [one for one in self._services.all() if _class_of(one) == name and self._concerns(one)]

    # --- the Service itself ---------------------------------------------------------------------------------------------

    async def _protect(self, service: Service) -> None:
        if FINALIZER not in service.finalizers:
            name = service.load_balancer_class
            notes = {CLASS_ANNOTATION: name} if name else None
            await self._patch_metadata(service, annotations=notes, finalizers=[*service.finalizers, FINALIZER])

    async def _patch_metadata(
        self,
        service: Service,
        *,
        annotations: Mapping[str, str | None] | None = None,
        finalizers: list[str] | None = None,
    ) -> None:
        meta: Json = {}
        if annotations:
            meta["annotations"] = dict(annotations)
        if finalizers is not None:
            # the list is replaced as a whole: only if nobody changed it meanwhile
            fresh = await self._kube.get(SERVICES, service.name, namespace=service.namespace)
            now = parse_service(fresh)
            if now.uid != service.uid:
                raise Conflict(f"Service {service.key} was deleted and recreated meanwhile")
            gone, come = set(service.finalizers) - set(finalizers), set(finalizers) - set(service.finalizers)
            meta["finalizers"] = [one for one in now.finalizers if one not in gone] + sorted(come - set(now.finalizers))
            meta["resourceVersion"] = now.version
        if meta:
            await self._kube.patch(SERVICES, service.name, body={"metadata": meta}, namespace=service.namespace)

    async def _patch_status(self, service: Service, ingress: list[Ingress]) -> None:
        entries: list[Json] = []
        for one in ingress:
            entry: Json = {"ip": one.ip} if one.ip else {"hostname": one.hostname}
            entries.append({**entry, **({"ipMode": one.ip_mode} if one.ip_mode else {})})
        body: Json = {"status": {"loadBalancer": {"ingress": entries or None}}}
        await self._kube.patch(SERVICES, service.name, body=body, namespace=service.namespace, subresource="status")

    def _warn(self, service: Service, *, provider: ServiceProvider, report: Report) -> None:
        """Once for each set of annotations without effect."""
        found = tuple(provider.unknown_annotations(service))
        if found and self._warned.get(service.key) != found:
            self._warned[service.key] = found
            report("Warning", reason="UnknownAnnotation", message=f"Without effect here: {', '.join(found)}")


def _class_of(service: Service) -> str:
    return service.load_balancer_class or service.annotations.get(CLASS_ANNOTATION, "")


def _routing_facts(node: Node | None) -> object:
    """What of a node can change backends."""
    if node is None:
        return None
    return node.name, node.provider_id, node.internal_ips, node.labels, node.taints, node.deleting
