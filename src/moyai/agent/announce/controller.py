"""Keeps the set of addresses that this node competes for as Services, endpoints, nodes and MetalLB's resources demand.

Always holds: no interface gets the addresses; the agent answers ARP for them, and kube-proxy's rules lead their packets to
pods. The agent stops answering for an address before it hands on the address's Lease.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from moyai.agent.address_elector import AddressElector, AddressElectors, LeaseCallbacks, stop_all
from moyai.agent.announce_caches import AnnounceCaches, is_announced
from moyai.agent.service_statuses import ServiceStatuses
from moyai.core.clock import Clock
from moyai.core.errors import MoyaiError, Retriable
from moyai.kube.events import EventRecorder
from moyai.kube.informer import Informer
from moyai.kube.objects import (
    Endpoints,
    L2Advertisement,
    NamespacedName,
    Node,
    Service,
    parse_l2_advertisement,
)
from moyai.kube.resources import L2_ADVERTISEMENTS
from moyai.kube.watching import Kube
from moyai.linux import arp
from moyai.plan.announce.metallb_words import NAMESPACE
from moyai.plan.announce.speakers import AnnouncedAddress, AnnouncedServices, to_announce
from moyai.runtime.controllers import Part, cache
from moyai.runtime.metrics import Metrics
from moyai.runtime.one_key import OneKey
from moyai.runtime.reconciler import DONE, Result

_log = logging.getLogger(__name__)
#: Seconds between two defences of an address that another machine claims.
_DEFENCE = 1.0
#: Seconds until a lost interface is looked for again.
_REOPEN = 2.0
#: Seconds that the last farewell may take.
_FAREWELL = 1.0


@dataclass(frozen=True)
class Ethernet:
    """This machine's: how ARP is answered on an interface, which interface has an address, which interfaces there are."""

    responder: Callable[..., arp.ArpResponder] = arp.ArpResponder
    interface_of: Callable[[str], str] = arp.interface_of
    interfaces: Callable[[], frozenset[str]] = arp.interfaces


class AnnounceController:
    """``node``: name of the Node that this machine is. ``clock``: its ``monotonic`` goes on while the machine sleeps, as
    Leases run out meanwhile. ``shared``: caches that another controller of the process uses too. ``run`` hands all addresses
    back when it is cancelled."""

    def __init__(
        self,
        *,
        kube: Kube,
        node: str,
        nodes: Informer[Node],
        events: EventRecorder,
        metrics: Metrics,
        clock: Clock,
        network: Ethernet | None = None,
        shared: AnnounceCaches | None = None,
    ) -> None:
        self._kube, self._node, self._nodes, self._events, self._clock = kube, node, nodes, events, clock
        self._network = network or Ethernet()
        self._statuses = ServiceStatuses(kube, node)
        self._shared = shared = shared or AnnounceCaches.make(kube, metrics)
        self._services, self._slices, self._pools = shared.services, shared.slices, shared.pools
        self._adverts: Informer[L2Advertisement] = cache(
            kube, L2_ADVERTISEMENTS, parse=parse_l2_advertisement, metrics=metrics, namespace=NAMESPACE
        )
        #: The interface of the node's own address, empty where there is none.
        self._own = ""
        self._electors = AddressElectors(self._elector)
        self._wanted: dict[str, AnnouncedAddress] = {}
        self._responders: dict[str, arp.ArpResponder] = {}
        #: Address → when it was last defended.
        self._defended: dict[str, float] = {}
        self._key = OneKey("addresses", relevant=self._relevant)
        self.caches: tuple[Informer[Any], ...] = (*shared.all, self._adverts)
        self._key.follow(*self.caches, nodes)
        self.part = Part("announce", self.reconcile, watch=self._key.start)
        metrics.describe("moyai_announced_addresses", "Addresses of Services that this node answers for")
        metrics.gauge("moyai_announced_addresses", lambda: {(): float(len(self.owned))})

    @property
    def owned(self) -> frozenset[str]:
        """Addresses that this node answers for at this moment."""
        return self._electors.owned

    async def reconcile(self, _key: str) -> Result:
        """Raises Retriable where an interface cannot be listened on, or the API does not take a status."""
        self._own = self._own_interface()
        competing = to_announce(self._node, self._situation())
        # an owner that cannot answer would keep the address from those that can
        self._wanted = {address: one for address, one in competing.items() if self._reachable(one)}
        gone = self._electors.leave(self._wanted)
        if gone:
            # the next owner writes its status when it has the Lease: never before this node's is gone
            with contextlib.suppress(MoyaiError):
                await self._statuses.sync(self._announced())
            await stop_all(gone)
        failed = self._listen()
        self._electors.compete(self._wanted)
        await self._statuses.sync(self._announced())
        if failed:
            raise Retriable(f"addresses cannot be announced on {failed}")
        return DONE if len(self._wanted) == len(competing) else Result(requeue_after=_REOPEN)

    async def run(self) -> None:
        """Beside the controller, to its end: then everything is handed back."""
        try:
            await asyncio.Event().wait()
        finally:
            electors = self._electors.leave(())
            with contextlib.suppress(MoyaiError, TimeoutError):
                async with asyncio.timeout(_FAREWELL):
                    await self._statuses.sync({})
            await stop_all(electors)
            for name in list(self._responders):
                self._close(name)

    def _reachable(self, one: AnnouncedAddress) -> bool:
        """Whether this machine has an interface that the address is to be announced on."""
        wanted = one.interfaces or (self._own,)
        return not self._network.interfaces().isdisjoint(wanted)

    def _situation(self) -> AnnouncedServices:
        return AnnouncedServices(
            services=self._shared.announced(),
            nodes=self._nodes.all(),
            pools=self._pools.all(),
            advertisements=self._adverts.all(),
            endpoints=self._shared.endpoints(),
            owned=self.owned,
        )

    def _announced(self) -> dict[NamespacedName, tuple[str, ...]]:
        """Service → interfaces, of the addresses that this node owns."""
        owned = [self._wanted[address] for address in self.owned if address in self._wanted]
        return {service: self._interfaces(one.address) for one in owned for service in one.services}

    # --- one address --------------------------------------------------------------------------------------------------

    def _elector(self, address: str) -> AddressElector:
        callbacks = LeaseCallbacks(announce=self._announce, taken=self._taken, lost=self._lost)
        return AddressElector(address, kube=self._kube, node=self._node, clock=self._clock, callbacks=callbacks)

    def _announce(self, address: str) -> None:
        for name in self._interfaces(address):
            if name in self._responders:
                self._responders[name].announce(address)

    def _taken(self, address: str) -> None:
        _log.info("this node answers for %s", address)
        for name in self._wanted[address].services if address in self._wanted else ():
            service = self._services.get(str(name))
            if service is not None:
                message = f'announcing from node "{self._node}" with protocol "layer2"'
                self._events.event(service.reference, "Normal", reason="nodeAssigned", message=message)
        self._key.again()

    def _lost(self, address: str) -> None:
        _log.warning("this node no longer answers for %s", address)
        self._key.again()

    def _contested(self, address: str) -> None:
        """The owner by the Lease announces the address again: the other machine is late, or is no node of the cluster."""
        now = self._clock.monotonic()
        if now - self._defended.get(address, -_DEFENCE) >= _DEFENCE:
            self._defended[address] = now
            _log.warning("another machine says that it has %s", address)
            self._announce(address)

    # --- interfaces ---------------------------------------------------------------------------------------------------

    def _answers(self, address: str, interface: str) -> bool:
        return self._electors.owns(address) and interface in self._interfaces(address)

    def _interfaces(self, address: str) -> tuple[str, ...]:
        wanted = self._wanted.get(address)
        return () if wanted is None else wanted.interfaces or (self._own,)

    def _own_interface(self) -> str:
        node = self._nodes.get(self._node)
        return next((name for name in map(self._network.interface_of, node.internal_ips if node else ()) if name), "")

    def _listen(self) -> str:
        """Returns which interfaces cannot be listened on, and why."""
        wanted = {name for address in self._wanted for name in self._interfaces(address)} & self._network.interfaces()
        failed: list[str] = []
        for name in set(self._responders) - wanted:
            self._close(name)
        for name in sorted(wanted - set(self._responders)):
            try:
                self._open(name)
            except OSError as error:
                failed.append(f"{name} ({error.strerror})")
        return ", ".join(failed)

    def _open(self, name: str) -> None:
        def answers(address: str) -> bool:
            return self._answers(address, name)

        responder = self._network.responder(name, answers, contested=self._contested)
        self._responders[name] = responder
        asyncio.get_running_loop().add_reader(responder.fileno(), self._heard, name)
        for address in self.owned:
            if name in self._interfaces(address):
                responder.announce(address)

    def _heard(self, name: str) -> None:
        try:
            self._responders[name].ready()
        except OSError as error:
            _log.warning("interface %s is lost: %s", name, error)
            self._close(name)
            self._key.later(_REOPEN)

    def _close(self, name: str) -> None:
        responder = self._responders.pop(name)
        asyncio.get_running_loop().remove_reader(responder.fileno())
        responder.close()

    # --- when ---------------------------------------------------------------------------------------------------------

    def _relevant(self, fact: object) -> object:
        """What of an object an announcement depends on, None for nothing. A heartbeat of a Node is no change; endpoints matter
        where the Service's address is announced by nodes with an endpoint alone."""
        match fact:
            case Node():
                return replace(fact, version="")
            case Service():
                return replace(fact, version="") if is_announced(fact) else None
            case Endpoints():
                service = self._services.get(fact.service)
                matters = service is None or (service.local_traffic and is_announced(service))
                return fact.announced if matters else None
            case _:
                return fact
