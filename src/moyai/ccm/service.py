"""The Service controller: every Service of type LoadBalancer is made reachable by its provider, every other one is not.

What always holds: the finalizer is on the Service before its provider makes anything, together with the annotation that says
which provider that is, and the same provider takes it off when all is gone, whatever type or class the Service has by then; a
Service whose class (spec.loadBalancerClass) has no provider here is otherwise not touched; the status shows an address only
once it answers; the controller's own value of an annotation is distinguished from a user's; a change of nodes queues
only the Services whose backends it changes, and a burst of changes is one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Hashable, Mapping
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
from moyai.runtime.controllers import Part
from moyai.runtime.reconciler import DONE, Result

_log = logging.getLogger(__name__)

FINALIZER = "service.kubernetes.io/load-balancer-cleanup"
#: On a Service with our finalizer: the class of the provider that made something for it, empty for that of Services without a
#: class. The API drops spec.loadBalancerClass when the type changes away from LoadBalancer, and others use the same finalizer.
CLASS_ANNOTATION = "moyai.dev/load-balancer-class"
#: Seconds between two comparisons of the cloud with the Services, also without any change.
RESYNC_SECONDS = 900.0
#: Nodes come in groups: wait so long for more of them before the backends are compared.
_NODE_SETTLE_SECONDS = 0.5
_WORKERS = 8


class ServiceController:
    """``providers``: by loadBalancerClass; the key ``""`` is that of Services without a class. A provider may have several
    classes."""

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
        self._outputs = {name: one.output_annotations for name, one in providers.items()}
        self._ours = {CLASS_ANNOTATION}.union(*self._outputs.values())
        #: By Service: the annotations that we wrote, None for one that we took away.
        self._written: dict[str, dict[str, str | None]] = {}
        self._warned: dict[str, dict[str, str]] = {}
        #: What each Service's backends were when its provider was last asked to ensure it.
        self._backends: dict[str, Hashable] = {}
        #: Services whose removal is under way, which was reported.
        self._removing: set[str] = set()
        self._settling: asyncio.TimerHandle | None = None
        self._queue: WorkQueue | None = None

    def part(self) -> Part:
        return Part("service", self.reconcile, self.watch, workers=_WORKERS, on_error=self.failed)

    # --- when ---------------------------------------------------------------------------------------------------------

    def watch(self, queue: WorkQueue) -> None:
        self._queue = queue

        def service_changed(key: str, old: Service | None, new: Service | None) -> None:
            if new is None:
                for known in (self._warned, self._written, self._backends):
                    known.pop(key, None)
                self._removing.discard(key)
            elif self._concerns(new) and (old is None or self._changed(old, new)):
                queue.add(key)

        def node_changed(_key: str, old: Node | None, new: Node | None) -> None:
            if self._settling is None and _routing_facts(old) != _routing_facts(new):
                loop = asyncio.get_running_loop()
                self._settling = loop.call_later(_NODE_SETTLE_SECONDS, self._nodes_settled, queue)

        self._services.add_handler(service_changed)
        self._nodes.add_handler(node_changed)
        for provider, name in {one: name for name, one in self._providers.items()}.items():
            provider.watch(partial(self._again, name))

    def _again(self, name: str) -> None:
        """Look again at all Services of the provider of this class."""
        if self._queue is not None:
            for key in self.alive(name):
                self._queue.add(key)

    def _nodes_settled(self, queue: WorkQueue) -> None:
        self._settling = None
        nodes = self._nodes.all()
        backends = {name: provider.backends(nodes) for name, provider in self._providers.items()}
        for service in self._services.all():
            name = self._wanted(service)
            if name is not None and self._backends.get(service.key) != backends[name](service):
                queue.add(service.key)

    def _wanted(self, service: Service) -> str | None:
        """The provider that has to make something for it, None where none of ours has."""
        name = service.load_balancer_class
        return name if service.type == "LoadBalancer" and not service.deleting and name in self._providers else None

    def _held(self, service: Service) -> str | None:
        """The provider that may have made something for it, None where none of ours has."""
        if FINALIZER not in service.finalizers:
            return None
        name = service.annotations.get(CLASS_ANNOTATION)
        if name is None:
            # earlier versions wrote no annotation for Services without a class, but always what came of them
            ours = not self._outputs[""].isdisjoint(service.annotations) if "" in self._outputs else False
            name = "" if ours else service.load_balancer_class
        return name if name in self._providers else None

    def _concerns(self, service: Service) -> bool:
        """Whether a provider of ours has or should have something for it."""
        return self._held(service) is not None or self._wanted(service) is not None

    def _changed(self, old: Service, new: Service) -> bool:
        """Whether somebody else changed something that matters."""
        if self._without_outputs(old) != self._without_outputs(new) or (
            FINALIZER in old.finalizers and FINALIZER not in new.finalizers
        ):
            return True
        written = self._written.get(new.key, {})
        changed = (key for key in self._ours if old.annotations.get(key) != new.annotations.get(key))
        return any(key not in written or new.annotations.get(key) != written[key] for key in changed)

    def _without_outputs(self, service: Service) -> Service:
        """Without what we write as well."""
        kept = {key: value for key, value in service.annotations.items() if key not in self._ours}
        return replace(service, version="", ingress=(), finalizers=(), annotations=kept)

    # --- what ---------------------------------------------------------------------------------------------------------

    async def reconcile(self, key: str) -> Result:
        service = self._services.get(key)
        if service is None or not self._concerns(service):
            return DONE
        wanted, held = self._wanted(service), self._held(service)
        try:
            if held is not None and held != wanted:
                await self._remove(service, held)
                return DONE
            if wanted is not None:
                return Result(requeue_after=await self._ensure(service, wanted))
        except StillWorking as error:
            _log.info("service %s: %s", key, error)
            return Result(requeue_after=error.requeue_after)
        except NotFound as error:
            if self._services.get(key) is None:
                return DONE
            raise Conflict(f"an object was removed meanwhile: {error}") from error
        return DONE

    def failed(self, key: str, error: MoyaiError) -> None:
        """Report it to the user, as an event on the Service."""
        service = self._services.get(key)
        if service and not isinstance(error, Conflict):
            deleting = self._wanted(service) is None
            reason = "DeleteLoadBalancerFailed" if deleting else "SyncLoadBalancerFailed"
            what = "Error deleting load balancer" if deleting else "Error syncing load balancer"
            self._events.event(service.reference, "Warning", reason=reason, message=f"{what}: {error}")

    async def _ensure(self, service: Service, name: str) -> float:
        """Returns after how many seconds to come back."""
        provider = self._providers[name]
        report: Report = partial(self._events.event, service.reference)
        nodes = self._nodes.all()
        self._backends[service.key] = backends = provider.backends(nodes)(service)
        if unknown := provider.unknown_annotations(service):
            self._warn(service, (("UnknownAnnotation", f"Without effect here: {', '.join(unknown)}"),), report=report)
        if not backends:
            report("Warning", reason="UnAvailableLoadBalancer", message="There are no available nodes for LoadBalancer")
        ensured = await provider.ensure(service, nodes, protect=partial(self._protect, service), report=report)
        moved = await self._publish(service, ensured)
        self._warn(service, ensured.remarks, report=report)
        if ensured.changes and ensured.ingress is not None:
            shown = ensured.ingress.ip or ensured.ingress.hostname
            report("Normal", reason="EnsuredLoadBalancer", message=f"Load balancer at {shown}: {'; '.join(ensured.changes)}")
        if self._queue is not None and (ensured.changes or moved):
            for key in ensured.affected:
                self._queue.add(key)
        return min(RESYNC_SECONDS, ensured.requeue_after or RESYNC_SECONDS)

    async def _publish(self, service: Service, ensured: Ensured) -> bool:
        """Returns whether the address is another one than before."""
        have = tuple(replace(one, ip_mode=None if one.ip_mode == "VIP" else one.ip_mode) for one in service.ingress)
        want = () if ensured.ingress is None else (ensured.ingress,)
        notes = {key: value for key, value in ensured.annotations.items() if service.annotations.get(key) != value}
        async with side_by_side() as group:
            if have != want:
                group.create_task(self._patch_status(service, want))
            if notes:
                group.create_task(self._patch_metadata(service, annotations=notes))
        return have != want

    async def _remove(self, service: Service, name: str) -> None:
        provider = self._providers[name]
        report: Report = partial(self._events.event, service.reference)
        if service.key not in self._removing:
            self._removing.add(service.key)
            report("Normal", reason="DeletingLoadBalancer", message="Deleting load balancer")
        self._backends.pop(service.key, None)
        await provider.remove(service, report=report)
        if not service.deleting and (service.type != "LoadBalancer" or service.load_balancer_class in self._providers):
            # with another's class the status may be the other's already
            await self._patch_status(service, [])
        outputs = {*provider.output_annotations, CLASS_ANNOTATION}
        await self._patch_metadata(
            service,
            annotations=dict.fromkeys(sorted(key for key in outputs if key in service.annotations)),
            finalizers=[one for one in service.finalizers if one != FINALIZER],
        )
        self._removing.discard(service.key)
        report("Normal", reason="DeletedLoadBalancer", message="Deleted load balancer")
        if self._queue is not None and self._wanted(service) is not None:
            self._queue.add(service.key)

    def alive(self, name: str) -> list[str]:
        """Keys of the Services that the provider of the class has or should have something for; those that cannot be read are
        counted."""
        names = {other for other, one in self._providers.items() if one is self._providers[name]}
        return [
            *(one.key for one in self._services.all() if not names.isdisjoint({self._held(one), self._wanted(one)})),
            *self._services.unreadable,
        ]

    # --- the Service itself ---------------------------------------------------------------------------------------------

    async def _protect(self, service: Service) -> None:
        name = service.load_balancer_class
        notes = {} if service.annotations.get(CLASS_ANNOTATION) == name else {CLASS_ANNOTATION: name}
        missing = FINALIZER not in service.finalizers
        if missing or notes:
            finalizers = [*service.finalizers, FINALIZER] if missing else None
            await self._patch_metadata(service, annotations=notes, finalizers=finalizers)

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
            self._written.setdefault(service.key, {}).update(annotations)
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

    async def _patch_status(self, service: Service, ingress: Collection[Ingress]) -> None:
        entries: list[Json] = []
        for one in ingress:
            entry: Json = {"ip": one.ip} if one.ip else {"hostname": one.hostname}
            entries.append({**entry, **({"ipMode": one.ip_mode} if one.ip_mode else {})})
        body: Json = {"status": {"loadBalancer": {"ingress": entries or None}}}
        await self._kube.patch(SERVICES, service.name, body=body, namespace=service.namespace, subresource="status")

    def _warn(self, service: Service, remarks: Collection[tuple[str, str]], *, report: Report) -> None:
        """Once for each message, until another one of the same reason comes."""
        reported = self._warned.setdefault(service.key, {})
        for reason, message in remarks:
            if reported.get(reason) != message:
                reported[reason] = message
                report("Warning", reason=reason, message=message)


def _routing_facts(node: Node | None) -> object:
    """What of a node can change backends."""
    if node is None:
        return None
    return node.name, node.provider_id, node.internal_ips, node.labels, node.taints, node.deleting
