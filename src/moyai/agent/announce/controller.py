"""Keeps the set of addresses that this node competes for as Services, endpoints, nodes and MetalLB's resources demand.

Always holds: no interface gets the addresses; the agent answers ARP for them, and kube-proxy's rules lead their packets to
pods. What is no longer this node's is no longer answered for before its Lease is handed on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from moyai.agent.announce.keeper import NAMESPACE, AddressKeeper
from moyai.core.clock import Clock
from moyai.core.errors import Retriable
from moyai.kube.events import EventRecorder
from moyai.kube.informer import Informer
from moyai.kube.objects import (
    AddressPool,
    Endpoints,
    L2Advertisement,
    Node,
    Service,
    parse_address_pool,
    parse_endpoints,
    parse_l2_advertisement,
    parse_service,
)
from moyai.kube.resources import ADDRESS_POOLS, ENDPOINT_SLICES, L2_ADVERTISEMENTS, SERVICES
from moyai.kube.watching import Kube
from moyai.kube.workqueue import WorkQueue
from moyai.linux.arp import ArpResponder, interface_of
from moyai.plan.announce.metallb_words import FROM_POOL
from moyai.plan.announce.speakers import AnnouncedAddress, AnnouncedServices, to_announce
from moyai.runtime.controllers import Part, cache
from moyai.runtime.metrics import Metrics
from moyai.runtime.reconciler import DONE, Result

_log = logging.getLogger(__name__)
_ALL = "addresses"
#: Makes the responder of an interface.
Open = Callable[[str, Callable[[str], bool]], ArpResponder]


class AnnounceController:
    """``node``: name of the Node that this machine is. ``close`` ends what the controller has open."""

    def __init__(
        self,
        *,
        kube: Kube,
        node: str,
        nodes: Informer[Node],
        events: EventRecorder,
        metrics: Metrics,
        clock: Clock,
        open_responder: Open = ArpResponder,
        interface: Callable[[str], str] = interface_of,
    ) -> None:
        self._kube, self._node, self._nodes, self._events, self._clock = kube, node, nodes, events, clock
        self._open, self._interface = open_responder, interface
        self._services: Informer[Service] = cache(kube, SERVICES, parse=parse_service, metrics=metrics)
        self._slices: Informer[Endpoints] = cache(kube, ENDPOINT_SLICES, parse=parse_endpoints, metrics=metrics)
        self._pools: Informer[AddressPool] = cache(
            kube, ADDRESS_POOLS, parse=parse_address_pool, metrics=metrics, namespace=NAMESPACE
        )
        self._adverts: Informer[L2Advertisement] = cache(
            kube, L2_ADVERTISEMENTS, parse=parse_l2_advertisement, metrics=metrics, namespace=NAMESPACE
        )
        self._keepers: dict[str, AddressKeeper] = {}
        self._wanted: dict[str, AnnouncedAddress] = {}
        self._responders: dict[str, ArpResponder] = {}
        self._queue: WorkQueue | None = None
        self.caches: tuple[Informer[Any], ...] = (self._services, self._slices, self._pools, self._adverts)
        for one in (*self.caches, nodes):
            one.add_handler(self._changed)
        self.part = Part("announce", self.reconcile, watch=self._watch)
        metrics.describe("moyai_announced_addresses", "Addresses of Services that this node answers for")
        metrics.gauge("moyai_announced_addresses", lambda: {(): float(sum(one.owner for one in self._keepers.values()))})

    async def reconcile(self, _key: str) -> Result:
        """Raises Retriable where an interface cannot be listened on."""
        self._wanted = to_announce(self._node, self._situation())
        gone = [self._keepers.pop(address) for address in list(self._keepers) if address not in self._wanted]
        if gone:
            await asyncio.gather(*(one.stop() for one in gone))
        self._listen()
        for address in self._wanted:
            if address not in self._keepers:
                keeper = AddressKeeper(
                    address,
                    kube=self._kube,
                    node=self._node,
                    clock=self._clock,
                    announce=self._announce,
                    taken=self._taken,
                )
                self._keepers[address] = keeper
                keeper.start()
        return DONE

    async def run(self) -> None:
        """Beside the controller, to its end: then everything is handed back."""
        try:
            await asyncio.Event().wait()
        finally:
            keepers = list(self._keepers.values())
            self._keepers.clear()
            await asyncio.gather(*(one.stop() for one in keepers))
            for name in list(self._responders):
                self._close(name)

    def answers(self, address: str, interface: str) -> bool:
        keeper = self._keepers.get(address)
        return keeper is not None and keeper.owner and interface in self._interfaces(address)

    def _situation(self) -> AnnouncedServices:
        endpoints: dict[str, frozenset[str]] = {}
        for one in self._slices.all():
            endpoints[one.service] = endpoints.get(one.service, frozenset()) | one.nodes
        return AnnouncedServices(
            # the annotation is the allocator's: the cloud's load balancers have none of ours
            services=[one for one in self._services.all() if one.balanced and FROM_POOL in one.annotations],
            nodes=self._nodes.all(),
            pools=self._pools.all(),
            advertisements=self._adverts.all(),
            endpoints=endpoints,
        )

    def _interfaces(self, address: str) -> tuple[str, ...]:
        wanted = self._wanted.get(address)
        return () if wanted is None else wanted.interfaces or tuple(filter(None, (self._own_interface(),)))

    def _own_interface(self) -> str:
        node = self._nodes.get(self._node)
        return next((name for name in map(self._interface, node.internal_ips if node else ()) if name), "")

    def _listen(self) -> None:
        wanted = {name for address in self._wanted for name in self._interfaces(address)}
        for name in set(self._responders) - wanted:
            self._close(name)
        for name in sorted(wanted - set(self._responders)):
            try:
                responder = self._open(name, lambda address, name=name: self.answers(address, name))
            except OSError as error:
                raise Retriable(f"addresses cannot be announced on {name}: {error}") from error
            self._responders[name] = responder
            asyncio.get_running_loop().add_reader(responder.fileno(), responder.ready)

    def _close(self, name: str) -> None:
        responder = self._responders.pop(name)
        asyncio.get_running_loop().remove_reader(responder.fileno())
        responder.close()

    def _announce(self, address: str) -> None:
        for name in self._interfaces(address):
            if name in self._responders:
                self._responders[name].announce(address)

    def _taken(self, address: str) -> None:
        _log.info("this node answers for %s", address)
        for key in self._wanted[address].services if address in self._wanted else ():
            service = self._services.get(key)
            if service is not None:
                message = f'announcing from node "{self._node}" with protocol "layer2"'
                self._events.event(service.reference, "Normal", reason="nodeAssigned", message=message)

    def _watch(self, queue: WorkQueue) -> None:
        self._queue = queue
        queue.add(_ALL)

    def _changed(self, _key: str, old: object, new: object) -> None:
        # Nodes change with each heartbeat of their conditions; what is parsed of them then stays equal but for the version
        if self._queue is not None and old != new:
            self._queue.add(_ALL)
