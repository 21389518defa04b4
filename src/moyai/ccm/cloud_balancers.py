"""Services by load balancers that the cloud itself makes for them (``cloud.service_balancers``).

What always holds: a Service that the cloud cannot serve is refused before its finalizer is set; nodes are those that take
traffic by Kubernetes' rules; a load balancer is an orphan only if the cloud says that it is this cluster's and no Service with
its UID is there, which is asked once more before it goes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Sequence

from moyai.ccm.provider import Ensured, Inventory, Orphan, Protect, Report, StillWorking
from moyai.cloud.service_balancers import BackendNode, BalancerChanging, ServiceBalancers, ServiceToServe, WantedPort
from moyai.core.ids import ClusterIdentity
from moyai.core.keys import Key, Kind
from moyai.kube.informer import Informer
from moyai.kube.objects import Ingress, Node, Service
from moyai.plan.load_balancer.eligibility import eligible_nodes
from moyai.runtime.calls import CloudCalls

#: Seconds until the next look at a load balancer that the cloud changes.
_LOOK_SECONDS = 5.0


class CloudBalancerProvider:
    """Writes no annotations: the cloud finds a load balancer by the Service's UID."""

    output_annotations = frozenset[str]()

    def __init__(
        self, *, calls: CloudCalls, balancers: ServiceBalancers, services: Informer[Service], cluster: ClusterIdentity
    ) -> None:
        self._call, self._balancers = calls.call, balancers
        self._services, self._cluster = services, cluster
        #: Services whose load balancer is being made or changed since the last report.
        self._begun: set[str] = set()

    def watch(self, again: Callable[[], None]) -> None:
        """Nothing else changes load balancers."""

    def unknown_annotations(self, service: Service) -> Sequence[str]:
        return self._balancers.unknown_annotations(service.annotations)

    def backends(self, nodes: Collection[Node]) -> Callable[[Service], Hashable]:
        found = tuple((one.name, one.provider_id) for one in eligible_nodes(nodes))
        return lambda _service: found

    async def ensure(self, service: Service, nodes: Collection[Node], *, protect: Protect, report: Report) -> Ensured:
        wanted = service_to_serve(service)
        self._balancers.check(wanted)
        await protect()
        backends = [BackendNode(one.name, one.provider_id) for one in eligible_nodes(nodes)]
        try:
            served = await self._call(self._balancers.ensure_balancer, wanted, backends)
        except BalancerChanging as error:
            if service.key not in self._begun:
                self._begun.add(service.key)
                report("Normal", reason="EnsuringLoadBalancer", message="The cloud makes or changes the load balancer")
            raise StillWorking(error.message, requeue_after=_LOOK_SECONDS, object_id=error.object_id) from error
        changes = served.changes
        if service.key in self._begun:
            self._begun.discard(service.key)
            changes = changes or ("as it was asked for",)
        return Ensured(Ingress(ip=served.address), changes=changes, remarks=served.remarks)

    async def remove(self, service: Service, *, report: Report) -> None:
        await self._remove(self._balancers.balancer_name(service.uid))
        self._begun.discard(service.key)

    async def _remove(self, name: str) -> None:
        try:
            await self._call(self._balancers.remove_balancer, name)
        except BalancerChanging as error:
            raise StillWorking(error.message, requeue_after=_LOOK_SECONDS, object_id=error.object_id) from error

    # --- orphans ------------------------------------------------------------------------------------------------------

    async def inventory(self, alive: Callable[[], Collection[str]]) -> Inventory:
        found = await self._call(self._balancers.cluster_balancers, self._cluster.uid)
        keys = frozenset(alive())
        names = self._names()
        services = {name: names.get(name, _gone(name)) for name in found}
        # the UID of a Service that cannot be read is not known: any of the load balancers may be its own
        orphans = set[str]() if self._services.unreadable else {name for name in found if services[name] not in keys}
        return Inventory(
            frozenset(services.values()),
            frozenset(Orphan(Key(Kind.LOAD_BALANCER, name), frozenset({services[name]})) for name in orphans),
        )

    async def remove_orphan(self, orphan: Orphan) -> None:
        name = orphan.key.name
        # a Service with this UID may have come since; the one that was named as gone is no obstacle
        if not self._services.unreadable and self._names().get(name, "") in ("", *orphan.services):
            await self._remove(name)

    def _names(self) -> dict[str, str]:
        """Name of a load balancer → the Service that would have it, of all that there are."""
        return {self._balancers.balancer_name(one.uid): one.key for one in self._services.all()}


def service_to_serve(service: Service) -> ServiceToServe:
    return ServiceToServe(
        service.key,
        service.uid,
        tuple(WantedPort(one.protocol, one.port, one.node_port) for one in service.ports),
        service.annotations,
        service.source_ranges,
        service.load_balancer_ip,
    )


def _gone(name: str) -> str:
    """In place of a Service's name, which nobody knows any more."""
    return f"the Service whose UID begins with {name}"
