"""Keeps this node's table of network policies as the cluster's policies, namespaces and pods demand.

Always holds: the first transaction of a process replaces the whole table, so whatever an earlier process left is gone without a
gap; so does the first one after a failure. Each later one is a difference. Connections that are no longer permitted are cut
after the transaction that forbids them, and looked for again when the cutting failed. Nothing is applied before all caches are
full: until then the former table stands.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any

from moyai.agent.pod_cache import pod_cache
from moyai.agent.policy.boot_gate import BootGate
from moyai.agent.policy.kernel import PolicyKernel, ThisKernel
from moyai.agent.policy.verdict_log import PAUSE, VerdictLog
from moyai.core.clock import Clock, SystemClock
from moyai.core.errors import Retriable
from moyai.kube.events import EventRecorder
from moyai.kube.informer import Informer
from moyai.kube.objects import (
    NetworkPolicy,
    Node,
    PolicyNamespace,
    PolicyPod,
    parse_policy,
    parse_policy_namespace,
)
from moyai.kube.objects.cluster_policy import KIND, ClusterPolicy, parse_cluster_policy
from moyai.kube.resources import CLUSTER_NETWORK_POLICIES, NAMESPACES, NETWORK_POLICIES
from moyai.kube.watching import Kube
from moyai.kube.workqueue import WorkQueue
from moyai.linux.conntrack import TrackedConnection
from moyai.plan.network_policy import nft_commands
from moyai.plan.network_policy.index import PolicyIndex
from moyai.plan.network_policy.policy_counters import meaning
from moyai.runtime.controllers import ControllerSetup, Part, Periodic, cache
from moyai.runtime.metrics import Labels, Metrics
from moyai.runtime.reconciler import DONE, Result

_log = logging.getLogger(__name__)

#: The one key of the queue: the table is one object.
_TABLE = "table"
#: So many connections are judged before other work of the process gets its turn.
_TURN = 500
NO_GATE = BootGate(None)


class PolicyController:
    """``node``: whose pods are guarded. ``caches`` and ``part`` are for a ``ControllerSet``. ``events``: report what of the
    tiers' policies is not enforced; None where the cluster has no tiers. ``kernel`` is opened at the first transaction.
    ``pods``: a cache that another controller of the process uses, too."""

    def __init__(
        self,
        *,
        kube: Kube,
        node: str,
        nodes: Informer[Node],
        metrics: Metrics,
        clock: Clock | None = None,
        gate: BootGate = NO_GATE,
        events: EventRecorder | None = None,
        kernel: Callable[[], PolicyKernel] = ThisKernel,
        pods: Informer[PolicyPod] | None = None,
    ) -> None:
        self._index = PolicyIndex(node)
        self._node = node
        self._metrics = metrics
        self._clock = clock or SystemClock()
        self._open = kernel
        self._gate = gate
        self._events = events
        self._nodes = nodes
        self._kernel: PolicyKernel | None = None
        self._standing = False
        self._lacks = "the table of network policies has not been applied yet"
        self._to_judge = False
        self._queue: WorkQueue | None = None
        policies: Informer[NetworkPolicy] = cache(kube, NETWORK_POLICIES, parse=parse_policy, metrics=metrics)
        namespaces: Informer[PolicyNamespace] = cache(kube, NAMESPACES, parse=parse_policy_namespace, metrics=metrics)
        pods = pods or pod_cache(kube, metrics)
        policies.add_handler(lambda key, _old, new: self._policy(key, new))
        namespaces.add_handler(lambda key, _old, new: self._namespace(key, new))
        pods.add_handler(lambda key, _old, new: self._pod(key, new))
        nodes.add_handler(lambda key, _old, new: self._ranges(key, new))
        self.caches: tuple[Informer[Any], ...] = (policies, namespaces, pods)
        if events:
            tiers: Informer[ClusterPolicy] = cache(
                kube,
                CLUSTER_NETWORK_POLICIES,
                parse=parse_cluster_policy,
                metrics=metrics,
                optional=True,
                kind=KIND,
                events=events,
            )
            tiers.add_handler(lambda key, _old, new: self._cluster_policy(key, new))
            self.caches = (*self.caches, tiers)
            metrics.describe("moyai_cluster_policies", "Policies of the cluster's tiers")
            metrics.gauge("moyai_cluster_policies", lambda: {(): float(self._index.cluster_policies)})
        self._verdicts = VerdictLog(self._index)
        looks = Periodic("verdict log", self._look, PAUSE)
        self.part = Part("policy", self.reconcile, watch=self._watch, periodic=[looks])
        metrics.describe("moyai_policy_apply_seconds", "How long the kernel takes for a change of the policies' table")
        metrics.describe("moyai_policy_cut_total", "Connections that were cut because no policy permits them any more")
        metrics.describe("moyai_policy_packets_total", "Packets that began a connection, by the policy that decided about them")
        metrics.counter("moyai_policy_packets_total", self._packets)
        metrics.describe("moyai_policies", "Network policies in the cluster")
        metrics.describe("moyai_policy_trials", "Network policies on trial, of which nothing is dropped")
        metrics.gauge("moyai_policy_trials", lambda: {(): float(self._index.trials)})
        metrics.describe("moyai_policy_addresses", "Addresses of this node's pods that a network policy selects")
        metrics.gauge("moyai_policies", lambda: {(): float(self._index.policies)})
        metrics.gauge("moyai_policy_addresses", lambda: {(): float(self._index.isolated)})

    async def reconcile(self, _key: str) -> Result:
        """Bring the kernel up to date. Raises Retriable; then the next call replaces the whole table."""
        if not self._standing and not self._index.has_ranges:
            # the first transaction opens the gate, also for addresses that only the ranges tell from others
            self._lacks = "the Node has no pod range (spec.podCIDR) yet"
            return DONE
        kernel = await self._opened()
        table = self._index.table
        delta = table.take() if self._standing else table.everything()
        if delta or not self._standing:
            commands = nft_commands.changes(delta) if self._standing else nft_commands.whole(delta)
            self._to_judge = self._to_judge or not self._standing or delta.may_forbid
            self._standing = False
            start = self._clock.monotonic()
            try:
                await asyncio.to_thread(kernel.apply, commands)
            except Retriable as error:
                self._lacks = error.message
                raise
            self._standing, self._lacks = True, ""
            self._metrics.observe("moyai_policy_apply_seconds", self._clock.monotonic() - start)
        await asyncio.to_thread(self._gate.keep)
        if self._to_judge and self._index.isolated:
            # a change that comes meanwhile sets it again
            self._to_judge = False
            try:
                await self._cut(kernel)
            except Retriable:
                self._to_judge = True
                raise
        return DONE

    async def _look(self) -> None:
        """Log what was denied. Raises Retriable."""
        if self._kernel is not None and self._standing and self._verdicts.wanted:
            flows = await asyncio.to_thread(self._kernel.denied)
            self._verdicts.log(flows, now=self._clock.monotonic())

    def _packets(self) -> dict[Labels, float]:
        """What the kernel has counted since the table was made."""
        if self._kernel is None or not self._standing:
            return {}
        try:
            counted = self._kernel.counters()
        except Retriable:
            return {}
        known = ((meaning(name), packets) for name, packets in counted.items())
        return {
            (("policy", one.policy), ("direction", one.direction), ("verdict", one.verdict)): float(packets)
            for one, packets in known
            if one
        }

    def not_ready(self) -> str:
        """What keeps the kernel from holding to the policies; empty when nothing does."""
        return self._lacks

    async def _opened(self) -> PolicyKernel:
        if self._kernel is None:
            kernel = await asyncio.to_thread(self._open)
            if not await asyncio.to_thread(kernel.see_bridged):
                _log.error("the kernel module br_netfilter is not loaded: policies do not hold between pods of this node")
            self._kernel = kernel
        return self._kernel

    async def _cut(self, kernel: PolicyKernel) -> None:
        index = self._index
        forbidden: list[TrackedConnection] = []
        for count, one in enumerate(await asyncio.to_thread(kernel.connections)):
            if count % _TURN == _TURN - 1:
                await asyncio.sleep(0)
            if not index.is_isolated(one.source) and not index.is_isolated(one.destination):
                continue
            if not index.permits(one.source, one.destination, protocol=one.protocol, port=one.port):
                forbidden.append(one)
        if forbidden:
            count = await asyncio.to_thread(kernel.cut, forbidden)
            self._metrics.count("moyai_policy_cut_total", count)
            _log.info("%d connections are no longer permitted and were cut", count)

    def _watch(self, queue: WorkQueue) -> None:
        self._queue = queue
        queue.add(_TABLE)

    def _changed(self) -> None:
        if self._queue is not None:
            self._queue.add(_TABLE)

    def _policy(self, key: str, new: NetworkPolicy | None) -> None:
        self._index.set_policy(key, new)
        self._changed()

    def _cluster_policy(self, key: str, new: ClusterPolicy | None) -> None:
        self._index.set_cluster_policy(key, new)
        self._changed()
        # one agent speaks for all
        if new and self._events and self._node == min((one.name for one in self._nodes.all()), default=""):
            for message in complaints(new):
                self._events.event(new.about, "Warning", reason="Unsupported", message=message)

    def _namespace(self, key: str, new: PolicyNamespace | None) -> None:
        self._index.set_namespace(key, new.labels if new else None)
        self._changed()

    def _pod(self, key: str, new: PolicyPod | None) -> None:
        self._index.set_pod(key, new)
        self._changed()

    def _ranges(self, key: str, new: Node | None) -> None:
        if key == self._node:
            self._index.set_ranges(new.pod_cidrs if new else ())
            self._changed()


def complaints(policy: ClusterPolicy) -> Iterator[str]:
    """What of the policy is not as its author may expect, a sentence each."""
    if policy.unsupported:
        fields = ", ".join(policy.unsupported)
        yield f"moyai does not know {fields}: a rule with it accepts nobody by it, or else denies everyone"


def removal(gate: BootGate = NO_GATE, kernel: Callable[[], PolicyKernel] = ThisKernel) -> ControllerSetup:
    """The controller of a node without network policies: it takes the table and the gate away, and tries again until that has
    succeeded. Until then the process is not ready."""
    lacks = "the table of network policies has not been removed yet"

    def remove() -> None:
        gate.drop()
        opened = kernel()
        try:
            opened.apply(nft_commands.removal())
        finally:
            opened.close()

    async def reconcile(_key: str) -> Result:
        nonlocal lacks
        await asyncio.to_thread(remove)
        lacks = ""
        return DONE

    part = Part("policy-removal", reconcile, watch=lambda queue: queue.add(_TABLE))
    return ControllerSetup(part, ready={"network policies": lambda: lacks})
