"""MetalLB's resources as the allocation sees them, and the changes that concern Services and nodes.

Always holds: of BGP only the advertisements matter here; the nodes' agents read the rest, and say what
of it is not done.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from moyai.kube.events import EventRecorder
from moyai.kube.informer import Informer
from moyai.kube.objects import (
    AddressPool,
    AddressRange,
    L2Advertisement,
    PolicyNamespace,
    parse_address_pool,
    parse_l2_advertisement,
    parse_policy_namespace,
)
from moyai.kube.objects.bgp import BgpAdvertisement, parse_bgp_advertisement
from moyai.kube.resources import ADDRESS_POOLS, BGP_ADVERTISEMENTS, L2_ADVERTISEMENTS, NAMESPACES
from moyai.kube.watching import Kube
from moyai.plan.announce.allocation import ValidatedPools, validated
from moyai.plan.announce.metallb_words import NAMESPACE
from moyai.runtime.controllers import cache
from moyai.runtime.metrics import Metrics


class AnnounceResources:
    """``permitted``: addresses that the cloud lets nodes answer for. ``caches`` are for a ``ControllerSet``."""

    def __init__(self, *, kube: Kube, events: EventRecorder, metrics: Metrics, permitted: Collection[AddressRange]) -> None:
        self._events = events
        self._permitted = tuple(permitted)
        self._validated: ValidatedPools | None = None
        self._dependents: list[Callable[[], None]] = []
        self._counters: list[Callable[[], None]] = []
        self.pools: Informer[AddressPool] = cache(
            kube,
            ADDRESS_POOLS,
            parse=parse_address_pool,
            metrics=metrics,
            namespace=NAMESPACE,
            kind="IPAddressPool",
            events=events,
        )
        self._l2: Informer[L2Advertisement] = cache(
            kube, L2_ADVERTISEMENTS, parse=parse_l2_advertisement, metrics=metrics, namespace=NAMESPACE
        )
        self._namespaces: Informer[PolicyNamespace] = cache(kube, NAMESPACES, parse=parse_policy_namespace, metrics=metrics)
        self._bgp: Informer[BgpAdvertisement] = cache(
            kube, BGP_ADVERTISEMENTS, parse=parse_bgp_advertisement, metrics=metrics, namespace=NAMESPACE
        )
        self.pools.add_handler(self._pool_changed)
        self._l2.add_handler(lambda _key, _old, _new: self.count_again())
        self._bgp.add_handler(lambda _key, _old, _new: self.count_again())
        self._namespaces.add_handler(self._namespace_changed)
        self.caches: tuple[Informer[Any], ...] = (self.pools, self._l2, self._bgp, self._namespaces)

    @property
    def validated(self) -> ValidatedPools:
        if self._validated is None:
            self._validated = validated(self.pools.all(), self._permitted)
        return self._validated

    def covered(self, pool: AddressPool) -> bool:
        """Whether an advertisement is for the pool's addresses."""
        chosen = (*self._l2.all(), *(one.chosen for one in self._bgp.all()))
        return any(one.covers(pool) for one in chosen)

    def namespace_labels(self, name: str) -> Mapping[str, str]:
        found = self._namespaces.get(name)
        return found.labels if found else {}

    def watch(self, again: Callable[[], None]) -> None:
        """``again`` is called when the allocation may come to other answers."""
        self._dependents.append(again)

    def watch_counts(self, again: Callable[[], None]) -> None:
        """``again`` is called when something else may have to be said of the pools."""
        self._counters.append(again)

    def count_again(self) -> None:
        for one in self._counters:
            one()

    def _pool_changed(self, _key: str, old: AddressPool | None, new: AddressPool | None) -> None:
        # the status is no part of the comparison: it is written here
        if old != new:
            self._validated = None
            self._tell()
            self.count_again()

    def _namespace_changed(self, _key: str, old: PolicyNamespace | None, new: PolicyNamespace | None) -> None:
        if old is not None and old != new and any(one.allocation and one.allocation.selectors for one in self.pools.all()):
            self._tell()

    def _tell(self) -> None:
        for one in self._dependents:
            one()
