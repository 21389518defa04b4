"""Caches of what both ways of announcing read: Services, their endpoints, pools of addresses.

Always holds: a process has one of each, whichever of the controllers run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from moyai.kube.informer import Informer
from moyai.kube.objects import AddressPool, Endpoints, Service, parse_address_pool, parse_endpoints, parse_service
from moyai.kube.resources import ADDRESS_POOLS, ENDPOINT_SLICES, SERVICES
from moyai.kube.watching import Kube
from moyai.plan.announce.metallb_words import FROM_POOL, NAMESPACE
from moyai.runtime.controllers import cache
from moyai.runtime.metrics import Metrics


@dataclass(frozen=True)
class AnnounceCaches:
    services: Informer[Service]
    slices: Informer[Endpoints]
    pools: Informer[AddressPool]

    @classmethod
    def make(cls, kube: Kube, metrics: Metrics) -> Self:
        return cls(
            cache(kube, SERVICES, parse=parse_service, metrics=metrics),
            cache(kube, ENDPOINT_SLICES, parse=parse_endpoints, metrics=metrics),
            cache(kube, ADDRESS_POOLS, parse=parse_address_pool, metrics=metrics, namespace=NAMESPACE),
        )

    @property
    def all(self) -> tuple[Informer[Any], ...]:
        return (self.services, self.slices, self.pools)

    def announced(self) -> list[Service]:
        """Services with an address out of a pool."""
        return [one for one in self.services.all() if is_announced(one)]

    def endpoints(self) -> dict[str, frozenset[str]]:
        """Service (``namespace/name``) → nodes with a ready endpoint."""
        found: dict[str, frozenset[str]] = {}
        for one in self.slices.all():
            found[one.service] = found.get(one.service, frozenset()) | one.nodes
        return found


def is_announced(service: Service) -> bool:
    # the annotation is the allocator's: the cloud's load balancers have none of ours
    return service.balanced and FROM_POOL in service.annotations
