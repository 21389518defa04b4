"""Keeps egress addresses: this node competes for them, has those whose Leases it holds, and sends its pods' packets on.

Always holds: an address is on the node's interface only as long as no other node can have its Lease, by this node's clock. The
kernel takes the address away by itself when the agent no longer asks for it. The rules that translate come before the address,
and what another node owns is never translated here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol

from moyai.agent.address_elector import AddressElector, AddressElectors, LeaseCallbacks, stop_all
from moyai.agent.pod_cache import pod_cache
from moyai.core.clock import Clock
from moyai.core.errors import MoyaiError, Retriable
from moyai.kube.events import EventRecorder
from moyai.kube.informer import Informer
from moyai.kube.leader import LeaseTimes
from moyai.kube.objects import Endpoints, Node, parse_endpoints
from moyai.kube.objects.egress import (
    EgressAddress,
    LeaseHolder,
    parse_egress_address,
    parse_lease_holder,
)
from moyai.kube.objects.policy import PolicyPod
from moyai.kube.resources import EGRESS_ADDRESSES, ENDPOINT_SLICES, LEASES
from moyai.kube.watching import Kube
from moyai.linux.arp import ArpResponder
from moyai.linux.egress_net import EgressNet, MarkedRoute
from moyai.linux.libnftables import Nftables, NftError
from moyai.plan.announce.metallb_words import NAMESPACE
from moyai.plan.egress import MARK_MASK, EgressFlow, EgressPlan, EgressWorld, egress_rules, lease_of, plan_egress
from moyai.runtime.controllers import Part, cache
from moyai.runtime.metrics import Metrics
from moyai.runtime.one_key import OneKey
from moyai.runtime.reconciler import DONE, Result

_log = logging.getLogger(__name__)
#: Seconds. The owner gives an address up one second after the last renewal that it sent; the kernel takes it away two seconds
#: after it was last asked for; others take over three seconds after the last renewal that they saw.
TIMES = LeaseTimes(duration=3.0, deadline=1.0, retry=0.5)
#: Seconds between two requests for the addresses that are owned.
_REFRESH = 0.3
_LATER = 60.0


class EgressKernel(Protocol):
    """What the controller asks of the node's kernel. Calls block, and raise OSError or NftError."""

    def rules(self, text: str) -> None: ...
    def announce(self, link: str, address: str) -> None: ...
    @property
    def net(self) -> EgressNet: ...


class ThisNode:
    """The process's own network."""

    def __init__(self) -> None:
        self.net = EgressNet()

    def rules(self, text: str) -> None:
        nft = Nftables()
        try:
            nft.run_text(text)
        finally:
            nft.close()

    def announce(self, link: str, address: str) -> None:
        responder = ArpResponder(link, lambda _address: True)
        try:
            responder.announce(address)
        finally:
            responder.close()


class EgressController:
    """``inside``: ranges of the cluster. ``ranges``: that ports may send from. ``tunnel``: name of the nodes' tunnel. ``run``
    is a task beside the controller; when it is cancelled, all addresses are handed back. ``pods``, ``slices``: caches
    that other controllers of the process use, too."""

    def __init__(
        self,
        *,
        kube: Kube,
        node: str,
        nodes: Informer[Node],
        events: EventRecorder,
        metrics: Metrics,
        clock: Clock,
        ranges: tuple[str, ...],
        inside: tuple[str, ...],
        tunnel: str,
        kernel: EgressKernel | None = None,
        pods: Informer[PolicyPod] | None = None,
        slices: Informer[Endpoints] | None = None,
    ) -> None:
        self._kube, self._node, self._nodes, self._events, self._clock = kube, node, nodes, events, clock
        self._ranges, self._inside, self._tunnel = ranges, inside, tunnel
        self._kernel: EgressKernel = kernel or ThisNode()
        self._key = OneKey("egress", relevant=_relevant)
        self._electors = AddressElectors(self._elector)
        self._plan = EgressPlan((), frozenset(), {})
        self._applied = ""
        self._said: dict[str, str] = {}
        #: The link with the node's own address, empty until it is known.
        self._link = ""
        self._status: asyncio.Task[None] | None = None

        def of(resource: Any, parse: Callable[[Any], Any], *, namespace: str | None = None) -> Informer[Any]:
            return cache(kube, resource, parse=parse, metrics=metrics, namespace=namespace)

        self._addresses: Informer[EgressAddress] = of(EGRESS_ADDRESSES, parse_egress_address)
        self._pods = pods or pod_cache(kube, metrics)
        self._slices: Informer[Endpoints] = slices or of(ENDPOINT_SLICES, parse_endpoints)
        self._leases: Informer[LeaseHolder] = of(LEASES, parse_lease_holder, namespace=NAMESPACE)
        self.caches: tuple[Informer[Any], ...] = (self._addresses, self._pods, self._slices, self._leases)
        self._key.follow(*self.caches, nodes)
        self.part = Part("egress", self.reconcile, watch=self._key.start)
        metrics.describe("moyai_egress_addresses", "Egress addresses that this node has")
        metrics.gauge("moyai_egress_addresses", lambda: {(): float(len(self.owned))})

    @property
    def owned(self) -> frozenset[str]:
        """Addresses that this node has at this moment."""
        return self._electors.owned

    async def reconcile(self, _key: str) -> Result:
        """Raises Retriable where the kernel refuses."""
        self._plan = plan_egress(self._world())
        gone = self._electors.leave(self._plan.compete)
        if gone:
            # off the interface before another node may have it
            await asyncio.to_thread(self._keep, self.owned)
            await stop_all(gone)
        self._electors.compete(self._plan.compete)
        try:
            await asyncio.to_thread(self._bring_about, self._plan.flows)
        except (OSError, NftError) as error:
            self._applied = ""
            raise Retriable(f"egress addresses: {error}") from error
        self._report()
        return Result(requeue_after=_LATER) if self._plan.flows else DONE

    async def run(self) -> None:
        """Asks for the addresses again and again, as the kernel forgets them."""
        try:
            while True:
                await self._refresh()
                await asyncio.sleep(_REFRESH)
        finally:
            electors = self._electors.leave(())
            await asyncio.to_thread(self._keep, frozenset[str]())
            await stop_all(electors)

    async def _refresh(self) -> None:
        if not self._electors.all:
            return
        try:
            await asyncio.to_thread(self._keep, self.owned)
        except OSError as error:
            _log.warning("the node's addresses: %s", error)

    def _keep(self, addresses: frozenset[str]) -> None:
        if link := self._own_link():
            self._kernel.net.keep_addresses(link, addresses)

    def _own_link(self) -> str:
        if not self._link:
            node = self._nodes.get(self._node)
            self._link = next(filter(None, (self._kernel.net.link_of(one) for one in (node.internal_ips if node else ()))), "")
        return self._link

    def _bring_about(self, flows: tuple[EgressFlow, ...]) -> None:
        tunnel = self._kernel.net.has_link(self._tunnel)
        routes = [MarkedRoute(one.number, one.mark, MARK_MASK, one.through, self._tunnel) for one in flows if one.through]
        self._kernel.net.route(routes if tunnel else ())
        text = egress_rules(flows, self._inside)
        if text != self._applied:
            self._kernel.rules(text)
            self._applied = text

    def _world(self) -> EgressWorld:
        pods: dict[str, set[str]] = {}
        services: dict[str, set[str]] = {}
        for pod in self._pods.all():
            pods.setdefault(pod.namespace, set()).update(one for one in pod.addresses if ":" not in one)
        for one in self._slices.all():
            services.setdefault(one.service, set()).update(one for one in one.pods if ":" not in one)
        holders = {one.lease: one.holder for one in self._leases.all()}
        known = self._addresses.all()
        return EgressWorld(
            self._node,
            known,
            self._nodes.all(),
            {name: frozenset(found) for name, found in pods.items()},
            {name: frozenset(found) for name, found in services.items()},
            {one.address: holders.get(lease_of(one.address), "") for one in known},
            self.owned,
            self._ranges,
            self._inside,
            {one.address: one.number for one in self._plan.flows},
        )

    def _elector(self, address: str) -> AddressElector:
        callbacks = LeaseCallbacks(announce=self._announce, taken=self._taken, lost=self._lost)
        return AddressElector(
            address,
            kube=self._kube,
            node=self._node,
            clock=self._clock,
            callbacks=callbacks,
            times=TIMES,
            lease=lease_of(address),
        )

    def _announce(self, address: str) -> None:
        if self._link and address in self.owned:
            try:
                self._kernel.announce(self._link, address)
            except OSError as error:
                _log.warning("egress address %s cannot be announced: %s", address, error)

    def _taken(self, address: str) -> None:
        _log.info("this node has egress address %s", address)
        self._key.again()
        self._status = asyncio.get_running_loop().create_task(self._say_owner(address))

    def _lost(self, address: str) -> None:
        _log.warning("this node no longer has egress address %s", address)
        self._key.again()

    async def _say_owner(self, address: str) -> None:
        """In the status, for people: nothing depends on it."""
        for one in self._addresses.all():
            if one.address == address and one not in self._plan.problems:
                body = {"status": {"node": self._node}}
                try:
                    await self._kube.patch(EGRESS_ADDRESSES, one.name, body=body, namespace=one.namespace, subresource="status")
                except MoyaiError as error:
                    _log.warning("the status of %s: %s", one.key, error)

    def _report(self) -> None:
        """One node speaks for all."""
        problems = {one.key: why for one, why in self._plan.problems.items()}
        if self._node == min((one.name for one in self._nodes.all()), default=""):
            for one, why in self._plan.problems.items():
                if self._said.get(one.key) != why:
                    self._events.event(one.about, "Warning", reason="NotUsed", message=why)
        self._said = problems


def _relevant(fact: object) -> object:
    """What of an object matters here. A heartbeat of a Node is no change, and the renewal of a Lease is none."""
    if isinstance(fact, Node):
        return (fact.name, fact.internal_ips, fact.pod_cidrs, fact.ready, fact.cordoned, fact.deleting, dict(fact.labels))
    if isinstance(fact, PolicyPod):
        return (fact.namespace, fact.addresses)
    if isinstance(fact, Endpoints):
        return (fact.service, fact.pods)
    if isinstance(fact, EgressAddress):
        return (fact.key, fact.address, fact.service, fact.problem, fact.created)
    return fact
