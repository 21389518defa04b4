"""Keeps egress addresses: this node competes for them, has those whose Leases it holds, and sends its pods' packets on.

Always holds: no interface gets the addresses. A packet with one of them leaves the node, and ARP is answered for it, only as
long as no other node can have its Lease, by this node's clock. The kernel ends that by itself when the agent does not ask for
it again (``plan.egress_rules``). The guard of an address comes before the rule that translates to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Any

from moyai.agent.address_elector import AddressElector, AddressElectors, LeaseCallbacks, stop_all
from moyai.agent.egress.arp_answers import ArpAnswers
from moyai.agent.egress.kernel import EgressKernel, ThisNode
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
from moyai.linux.egress_net import EgressTunnel, MarkedRoute, TunnelEnd
from moyai.linux.libnftables import NftError
from moyai.plan.announce.metallb_words import NAMESPACE
from moyai.plan.egress import (
    ANSWER_NUMBER,
    MARK_MASK,
    TUNNEL,
    TUNNEL_VNI,
    EgressConf,
    EgressPlan,
    EgressWorld,
    lease_of,
    plan_egress,
    tunnel_mac,
)
from moyai.plan.egress_rules import ANSWER_MARK, egress_rules, fence_rules, hold, let_go, put_ticket
from moyai.plan.node_network import OVERHEAD
from moyai.runtime.controllers import Part, cache
from moyai.runtime.metrics import Metrics
from moyai.runtime.one_key import OneKey
from moyai.runtime.reconciler import DONE, Result

_log = logging.getLogger(__name__)
#: Seconds. The owner's kernel gives an address up before 1.5 s after the last renewal that the owner sent; others take over 2 s
#: after the last renewal that they saw, which is half a second old at most.
TIMES = LeaseTimes(duration=2.0, deadline=1.5, retry=0.5)
#: Seconds between two requests for the addresses that are owned.
_REFRESH = 0.3
#: Seconds until the kernel's state is looked at again.
_LATER = 60.0


class EgressController:
    """``run`` is a task beside the controller; when it is cancelled, all addresses are handed back. ``pods``, ``slices``:
    caches that other controllers of the process use, too."""

    def __init__(
        self,
        *,
        kube: Kube,
        node: str,
        nodes: Informer[Node],
        events: EventRecorder,
        metrics: Metrics,
        clock: Clock,
        conf: EgressConf,
        kernel: EgressKernel | None = None,
        pods: Informer[PolicyPod] | None = None,
        slices: Informer[Endpoints] | None = None,
    ) -> None:
        self._kube, self._node, self._nodes, self._events, self._clock = kube, node, nodes, events, clock
        self._conf = conf
        self._kernel: EgressKernel = kernel or ThisNode()
        self._key = OneKey("egress", relevant=_relevant)
        self._electors = AddressElectors(self._elector)
        self._arp = ArpAnswers(self._kernel, self._electors.owns, clock=clock)
        self._plan = EgressPlan((), frozenset(), {})
        self._applied: tuple[object, ...] = ()
        self._applied_at = 0.0
        #: Whether the kernel may hold an address.
        self._held = False
        self._holding = threading.Lock()
        self._wake = asyncio.Event()
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
            # nothing leaves with it any more before another node may have it
            await self._refresh()
            await stop_all(gone)
        try:
            await asyncio.to_thread(self._bring_about, self._plan)
            self._arp.listen(self._link if self._plan.compete else "")
        except (OSError, NftError) as error:
            self._applied = ()
            raise Retriable(f"egress addresses: {error}") from error
        # what cannot be translated and answered for is another node's
        self._electors.compete(self._plan.compete)
        self._report()
        return Result(requeue_after=_LATER) if self._plan.flows else DONE

    async def run(self) -> None:
        """Asks for the addresses again and again, as the kernel forgets them."""
        try:
            while True:
                self._wake.clear()
                await self._refresh()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_REFRESH):
                        await self._wake.wait()
        finally:
            electors = self._electors.leave(())
            await self._refresh()
            await stop_all(electors)
            self._arp.close()

    async def _refresh(self) -> None:
        try:
            await asyncio.to_thread(self._hold)
        except NftError as error:
            # without a ticket, too: this process stood still for too long, and looks at its clock again
            _log.warning("egress addresses are not held: %s", error)

    def _hold(self) -> None:
        # a ticket is for the look at the clock that follows it
        with self._holding:
            if self._electors.left():
                self._kernel.rules(put_ticket())
                if left := self._electors.left():
                    self._held = True
                    self._kernel.rules(hold(left))
                    return
            if self._held:
                self._kernel.rules(let_go())
                self._held = False

    def _bring_about(self, plan: EgressPlan) -> None:
        """In this order: a node that translates guards, and one that marks has the way."""
        wanted = (plan.flows, plan.peers, frozenset(one.address for one in plan.flows))
        if wanted == self._applied and self._clock.monotonic() - self._applied_at < _LATER:
            return
        own = next((one for one in self._own_addresses() if ":" not in one), "")
        self._link = self._kernel.net.link_of(own) if own else ""
        if not plan.flows:
            self._kernel.rules(egress_rules((), ()))
            self._kernel.rules(fence_rules(()))
            self._held = False
        if self._link:
            tunnel = EgressTunnel(TUNNEL, TUNNEL_VNI, self._conf.port, own, tunnel_mac(own), OVERHEAD)
            ends = [TunnelEnd(one.address, one.gateway, one.mac) for one in plan.peers]
            self._kernel.net.tunnel(tunnel, link=self._link, ends=ends)
        self._kernel.net.route(_routes(plan) if self._link and plan.peers else ())
        if plan.flows:
            self._kernel.rules(fence_rules(one.address for one in plan.flows))
            self._kernel.rules(egress_rules(plan.flows, self._conf.inside))
        self._applied, self._applied_at = wanted, self._clock.monotonic()

    def _own_addresses(self) -> tuple[str, ...]:
        node = self._nodes.get(self._node)
        return node.internal_ips if node else ()

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
            self._conf.ranges,
            self._conf.inside,
            {one.address: one.number for one in self._plan.flows},
            self._conf.home,
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
        self._arp.announce(address)

    def _taken(self, address: str) -> None:
        _log.info("this node has egress address %s", address)
        self._wake.set()
        self._key.again()
        self._status = asyncio.get_running_loop().create_task(self._say_owner(address))

    def _lost(self, address: str) -> None:
        _log.warning("this node no longer has egress address %s", address)
        self._key.again()

    async def _say_owner(self, address: str) -> None:
        """In the status, for people: nothing depends on it."""
        for one in self._addresses.all():
            if one.address == address and one not in self._plan.problems:
                body = {"status": {"node": self._node, "address": address}}
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


def _routes(plan: EgressPlan) -> list[MarkedRoute]:
    """By the mark of its address a packet goes to the owner; answers go to the node of the pod."""
    found = [MarkedRoute(one.number, one.mark, MARK_MASK, one.through, TUNNEL) for one in plan.flows if one.through]
    back = tuple((one.pod_cidr, one.gateway) for one in plan.peers)
    if any(one.mine for one in plan.flows):
        found.append(MarkedRoute(ANSWER_NUMBER, ANSWER_MARK, MARK_MASK, "", TUNNEL, back))
    return found


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
