"""The controller of a node's pod network: Node objects in, the kernel's state out, this node's announcement to the others.

Always holds: what it believes of the kernel is what it read or made itself. If a report of the kernel contradicts that, it
reads the kernel again, so nothing is polled. Between two changes of a Node it holds one table in memory and does nothing. Other
nodes hear of this one only after its own tunnel stands.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

from moyai.agent.pod_network.kernel import (
    Indices,
    answer,
    apply,
    contradicts,
    find_uplink,
    forget,
    observe,
    reason,
    subject,
)
from moyai.core.backoff import Backoff
from moyai.core.clock import Clock
from moyai.core.errors import Retriable
from moyai.core.keys import Key, Kind
from moyai.kube.events import EventRecorder
from moyai.kube.informer import Informer
from moyai.kube.objects import Node, network_available
from moyai.kube.resources import NODES, Json
from moyai.kube.watching import Kube
from moyai.kube.workqueue import WorkQueue
from moyai.linux.netlink import Events, KernelChange, KernelMiss, Netlink
from moyai.plan.node_network import (
    LeftOut,
    Me,
    NetworkConf,
    ObservedNetwork,
    PeerEntries,
    PeerIndex,
    PeerReader,
    Put,
    Remove,
    Uplink,
    announcement,
    desired,
    difference,
    me_of,
    relevant,
    tunnel_name,
    until_bgp,
    without_obstacles,
)
from moyai.runtime.controllers import Part
from moyai.runtime.metrics import Metrics
from moyai.runtime.reconciler import DONE, Result

_log = logging.getLogger(__name__)

KEY = "pod network"
#: The kernel is read again this often, in case it has changed without a report.
_RESYNC_SECONDS = 600.0
#: After a failure whose end the kernel does not report.
_FAILED_SECONDS = 10.0
_AGAIN = Backoff(base=0.2, ceiling=10.0)


@dataclass(frozen=True)
class _KnownKernel:
    """What the kernel has, as read or made. ``address``: the node's. ``at``: when it was read, by the clock."""

    address: str
    network: ObservedNetwork
    indices: Indices
    uplink: Uplink
    at: float


class PodNetworkController:
    """``node``: name of this machine's Node. ``namespace``: of the kernel's network, None: the process's own."""

    def __init__(
        self,
        *,
        kube: Kube,
        nodes: Informer[Node],
        node: str,
        conf: NetworkConf,
        events: EventRecorder,
        metrics: Metrics,
        clock: Clock,
        namespace: str | None = None,
    ) -> None:
        self._kube, self._nodes, self._node, self._conf = kube, nodes, node, conf
        self._events, self._metrics, self._clock, self._namespace = events, metrics, clock, namespace
        self._queue: WorkQueue | None = None
        self._netlink: Netlink | None = None
        self._open = asyncio.Event()
        self._known: _KnownKernel | None = None
        #: Reports of the kernel that came while its state was known in part only: the last of each thing.
        self._waiting: dict[object, KernelChange] = {}
        self._reader, self._entries = PeerReader(conf), PeerEntries()
        self._missing = "the kernel has not been read yet"
        #: A node, or a route of ours in whose place is another → why it is left out.
        self._problems: dict[Key, str] = {}
        self._peers = 0
        #: Who is where, for what the kernel asks; and the tunnel on which it asks, 0 while there is none.
        self._index, self._tunnel = PeerIndex(), 0
        metrics.describe("moyai_agent_misses_total", "Questions of the kernel for the way to a pod")
        metrics.describe("moyai_agent_kernel_steps_total", "Changes of the node's kernel by kind")
        metrics.describe("moyai_agent_kernel_reads_total", "How often the kernel's state was read as a whole")
        metrics.describe("moyai_agent_peers", "Other nodes that this node's pods can reach, and those left out")
        metrics.gauge(
            "moyai_agent_peers",
            lambda: {
                (("state", "reached"),): float(self._peers),
                (("state", "left out"),): float(len(self._problems)),
            },
        )

    def part(self) -> Part:
        return Part("pod-network", self.reconcile, self.watch)

    def watch(self, queue: WorkQueue) -> None:
        self._queue = queue

        def changed(_key: str, old: Node | None, new: Node | None) -> None:
            if relevant(old) != relevant(new):
                queue.add(KEY)

        self._nodes.add_handler(changed)

    def not_ready(self) -> str:
        """What is missing, empty for nothing."""
        return self._missing

    async def listen(self) -> None:
        """Holds the sockets to the kernel and hears its reports. Works until cancelled."""
        attempt = 0
        while True:
            try:
                async with AsyncExitStack() as stack:
                    netlink = await stack.enter_async_context(Netlink.open(self._namespace))
                    events = stack.enter_context(Events.open(own=netlink.ports, namespace=self._namespace))
                    self._netlink = netlink
                    self._open.set()
                    self._read_again()
                    async for change in events.changes():
                        attempt = 0
                        if isinstance(change, KernelMiss):
                            await self._answer(netlink, change)
                        else:
                            self._hear(change)
            except OSError as error:
                _log.warning("the kernel's reports broke off: %s", error)
            finally:
                self._open.clear()
            await asyncio.sleep(_AGAIN.delay(attempt))
            attempt += 1

    async def _answer(self, netlink: Netlink, miss: KernelMiss) -> None:
        if not self._conf.on_demand or miss.index != self._tunnel:
            return
        found = self._index.answer(address=miss.address, mac=miss.mac)
        self._metrics.count("moyai_agent_misses_total", answered="yes" if found else "no")
        try:
            await answer(netlink, found, tunnel=miss.index)
        except OSError as error:
            # the tunnel has gone meanwhile: the kernel reports that, too
            _log.warning("the kernel does not take the way to %s: %s", miss.address or miss.mac, error)

    def _hear(self, change: KernelChange) -> None:
        known = self._known
        if known is None:
            self._waiting[subject(change)] = change
        elif contradicts(change, known.network, indices=known.indices, uplink=known.uplink):
            _log.info("the kernel reports %s%s", "the end of " if change.gone else "", change.fact)
            self._read_again()

    def _read_again(self) -> None:
        self._known = None
        if self._queue is not None:
            self._queue.add(KEY)

    async def reconcile(self, _key: str) -> Result:
        node = self._nodes.get(self._node)
        if node is None:
            self._missing = f"there is no Node {self._node}"
            return DONE  # it brings the key back when it comes
        me = me_of(node, self._conf)
        if isinstance(me, LeftOut):
            self._missing = me.why
            return DONE  # the Node's next change brings it back
        await self._open.wait()
        netlink = self._netlink
        assert netlink is not None
        try:
            failure = await self._bring_about(netlink, me)
        except OSError as error:
            self._known = None
            self._missing = f"the kernel refuses: {reason(error)}"
            self._events.event(node.reference, "Warning", reason="PodNetworkFailed", message=self._missing)
            raise Retriable(self._missing) from error
        if failure:
            self._missing = failure
            self._events.event(node.reference, "Warning", reason="PodNetworkFailed", message=failure)
            return Result(requeue_after=_FAILED_SECONDS)
        await self._announce(me, node)
        self._missing = ""
        return Result(requeue_after=_RESYNC_SECONDS)

    async def _bring_about(self, netlink: Netlink, me: Me) -> str:
        """Returns why there can be no network, empty where it stands."""
        known, self._known = self._known, None
        now = self._clock.monotonic()
        if known is None or now - known.at >= _RESYNC_SECONDS or known.address != me.address:
            # what was reported before is in what is read now
            self._waiting.clear()
            uplink = await find_uplink(netlink, me.address)
            name = tunnel_name(self._conf.vni) if self._conf.backend == "vxlan" else None
            found, indices = await observe(netlink, tunnel=name, uplink=uplink)
            known = _KnownKernel(me.address, found, indices, uplink=uplink, at=now)
            self._metrics.count("moyai_agent_kernel_reads_total")
        peers = self._reader.peers(self._nodes.all(), me)
        want = desired(me, peers.peers, uplink=known.uplink, conf=self._conf, entries=self._entries)
        if known.network.occupied:
            return f"a device of kind {known.network.occupied} has the name {tunnel_name(self._conf.vni)} of the tunnel"
        if want.failure:
            return want.failure
        wanted = want.network
        if self._conf.backend == "bgp":
            ranges = {cidr for one in self._nodes.all() for cidr in one.pod_cidrs}
            wanted = until_bgp(wanted, known.network, ranges=ranges)
        network, obstacles = without_obstacles(wanted, known.network)
        problems = {Key(Kind.NODE, name): why for name, why in {**peers.problems, **want.problems}.items()}
        for route in obstacles:
            problems[Key(Kind.ROUTES, route.destination)] = f"another program has a route to {route.destination}"
        before, self._index = self._index, PeerIndex(peers.peers if self._conf.on_demand else ())
        steps = difference(network, known.network)
        indices = await apply(netlink, steps, indices=known.indices)
        for step in steps:
            what = type(step.entry).__name__ if isinstance(step, Put | Remove) else "Link"
            self._metrics.count("moyai_agent_kernel_steps_total", step=type(step).__name__, what=what)
        self._tunnel = indices.tunnel
        if outdated := before.outdated(self._index):
            await forget(netlink, outdated, tunnel=indices.tunnel)
        made = ObservedNetwork(network, foreign={route.key: route for route in obstacles})
        self._known = replace(known, network=made, indices=indices)
        self._peers = len(peers.peers) - len(want.problems)
        self._report(problems)
        waiting, self._waiting = self._waiting, {}
        for change in waiting.values():
            self._hear(change)
        return ""

    def _report(self, problems: dict[Key, str]) -> None:
        """Report what is left out. Every agent sees that a node is left out; the first agent by name writes the event."""
        for key, why in problems.items():
            if self._problems.get(key) == why:
                continue
            _log.warning("%s: left out of the pod network: %s", key, why)
            about = self._nodes.get(key.name) if key.kind is Kind.NODE else None
            first = min((one.name for one in self._nodes.all() if one.name != key.name), default="")
            if about and self._node == first:
                message = f"Pods of other nodes do not reach this node's: {why}"
                self._events.event(about.reference, "Warning", reason="LeftOutOfPodNetwork", message=message)
        self._problems = problems

    async def _announce(self, me: Me, node: Node) -> None:
        """As flannel does it: annotations, and the condition that says that the node's network is there."""
        said = announcement(me, self._conf)
        if not said.missing(node) and node.network_unavailable is False:
            return
        condition = network_available(
            reason="PodNetworkIsUp", message=f"moyai's agent: {self._conf.backend}", now=self._clock.now()
        )
        body: Json = {"metadata": {"annotations": dict(said.annotations)}, "status": {"conditions": [condition]}}
        await self._kube.patch(NODES, self._node, body=body, kind="strategic", subresource="status")
        _log.info("node %s announced as %s %s", self._node, self._conf.backend, said.annotations)
