"""The fencing controller: a node whose machine is off for certain lets go of its pods and disks at once.

It listens to the nodes' leases, which costs nothing; about a node that misses a renewal it asks the cloud each second, and
``plan.fencing`` decides. A fence is Kubernetes' own taint ``out-of-service``: with it the pods are evicted and the disks
detached by force. What Kubernetes would do only after a while is done at once: the node is marked not ready (50 s), and pods
that are to end there are ended (20 s).

What always holds: right before and right after the taint the cloud says that the machine is off, and no renewal was missed;
only fences of our own (annotation ``moyai.dev/fenced``) are lifted; everything is idempotent, so a fence that a crash cut in
two is finished, or lifted, by the next look.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

from moyai.ccm.servers import Servers
from moyai.ccm.taints import taint_list
from moyai.cloud.model import Activity, Evidence
from moyai.core.clock import Clock
from moyai.core.errors import MoyaiError, NotFound
from moyai.kube.events import EventRecorder
from moyai.kube.informer import Informer
from moyai.kube.objects import Lease, Node, Taint, parse_attachment, parse_lease, parse_node, parse_pod, stamp
from moyai.kube.resources import LEASES, NODES, PODS, VOLUME_ATTACHMENTS, Json
from moyai.kube.watching import Kube
from moyai.kube.workqueue import WorkQueue
from moyai.plan.fencing import Decision, Heartbeat, Policy, WatchedNode, decide, evidence_of, suspicious
from moyai.runtime.controllers import Part
from moyai.runtime.metrics import Metrics
from moyai.runtime.reconciler import DONE, Result

_log = logging.getLogger(__name__)

#: Where kubelets keep their leases.
LEASE_NAMESPACE = "kube-node-lease"
#: Source: https://kubernetes.io/docs/reference/labels-annotations-taints/#node-kubernetes-io-out-of-service
OUT_OF_SERVICE = Taint("node.kubernetes.io/out-of-service", "NoExecute", "nodeshutdown")
#: On a node that we fenced: since when.
FENCED = "moyai.dev/fenced"

_WORKERS = 4
_FRESH_SECONDS = 0.5
#: After a fence its pods are looked after so often, for so long.
_CLEAR_SECONDS, _CLEAR_FOR = 0.5, 60.0
_DEFAULT_PERIOD = 10.0
#: A kubelet renews its lease every fourth part of what it lasts.
_RENEWALS = 4


@dataclass
class _Seen:
    """By our own clock: when the node was first looked at, and when its lease was last seen to change."""

    first: float
    last: float | None = None


class FencingController:
    def __init__(
        self,
        *,
        kube: Kube,
        nodes: Informer[Node],
        leases: Informer[Lease],
        servers: Servers,
        events: EventRecorder,
        metrics: Metrics,
        policy: Policy,
        clock: Clock,
    ) -> None:
        self._kube = kube
        self._nodes = nodes
        self._leases = leases
        self._servers = servers
        self._events = events
        self._metrics = metrics
        self._policy: Policy = policy
        self._clock = clock
        self._seen: dict[str, _Seen] = {}
        #: The doubt that users got an event about, by node.
        self._reported: dict[str, str] = {}
        self._fenced_at: dict[str, float] = {}
        metrics.describe("moyai_fencing_total", "Nodes fenced, lifted and powered off")
        metrics.describe("moyai_fence_silence_seconds", "For how long a node was silent when it was fenced")
        metrics.describe("moyai_nodes_fenced", "Nodes that are out of service")
        metrics.gauge("moyai_nodes_fenced", lambda: {(): float(sum(fenced(node) for node in self._nodes.all()))})

    def part(self) -> Part:
        return Part("fencing", self.reconcile, self.watch, workers=_WORKERS)

    def watch(self, queue: WorkQueue) -> None:
        def node_changed(key: str, old: Node | None, new: Node | None) -> None:
            if new and (old is None or (old.uid, old.provider_id, fenced(old)) != (new.uid, new.provider_id, fenced(new))):
                queue.add(key)

        def lease_changed(_key: str, old: Lease | None, new: Lease | None) -> None:
            if new is None:
                return
            now = self._clock.monotonic()
            seen = self._seen.setdefault(new.name, _Seen(now))
            if old is not None and old.renewed != new.renewed:
                seen.last = now

        self._nodes.add_handler(node_changed)
        self._leases.add_handler(lease_changed)

    # ---- one node

    async def reconcile(self, key: str) -> Result:
        node = self._nodes.get(key)
        if node is None or node.deleting:
            for state in (self._seen, self._reported, self._fenced_at):
                state.pop(key, None)
            return DONE
        if self._servers.id_of(node) is None:
            return DONE  # not (yet) this cloud's
        watched = self._watched(node)
        machine = None
        if suspicious(watched) and (self._policy != "off" or watched.fenced):
            machine = await self._ask(node)
        decision = decide(watched, machine, policy=self._policy)
        match decision.action:
            case "fence":
                return await self._fence(node, decision)
            case "keep":
                return await self._clear(node, decision)
            case "lift":
                await self._lift(node.name, decision.reason)
            case "poweroff":
                await self._power_off(node, decision)
            case "wait":
                self._report(node, decision)
            case "none":
                self._reported.pop(key, None)
        return Result(requeue_after=decision.requeue_after)

    def _watched(self, node: Node) -> WatchedNode:
        heartbeat = self._heartbeat(node.name)
        watched = WatchedNode(node.ready, fenced(node), heartbeat)
        if self._policy != "poweroff" or not heartbeat.overdue:
            return watched  # the others matter only to that policy
        overdue = [self._heartbeat(one.name).overdue for one in self._nodes.all()]
        return replace(watched, silent=sum(overdue), answering=len(overdue) - sum(overdue))

    def _heartbeat(self, name: str) -> Heartbeat:
        now = self._clock.monotonic()
        seen = self._seen.setdefault(name, _Seen(now))
        lease = self._leases.get(f"{LEASE_NAMESPACE}/{name}")
        return Heartbeat(
            since_renewal=None if seen.last is None else now - seen.last,
            watched_for=now - seen.first,
            period=lease.seconds / _RENEWALS if lease and lease.seconds else _DEFAULT_PERIOD,
            has_lease=lease is not None,
        )

    async def _ask(self, node: Node) -> Evidence | None:
        try:
            return evidence_of(await self._servers.of(node, max_age=_FRESH_SECONDS))
        except MoyaiError as error:
            _log.warning("the cloud cannot be asked about the machine of node %s: %s", node.name, error)
            return None

    def _report(self, node: Node, decision: Decision) -> None:
        if decision.report and self._reported.get(node.name) != decision.doubt:
            self._reported[node.name] = decision.doubt
            message = f"Node {node.name} keeps its pods and disks: {decision.reason}"
            self._events.event(node.reference, "Warning", reason="NotFenced", message=message)

    # ---- fencing

    async def _fence(self, node: Node, decision: Decision) -> Result:
        if await self._renewed(node.name):
            return Result(requeue_after=_CLEAR_SECONDS)
        fresh = parse_node(await self._kube.get(NODES, node.name))
        if fresh.uid != node.uid or fresh.deleting:
            return Result(requeue_after=_CLEAR_SECONDS)
        others = [taint for taint in fresh.taints if taint.key != OUT_OF_SERVICE.key]
        await self._patch(fresh, taints=[*others, OUT_OF_SERVICE], since=stamp(self._clock.now()))
        # it may have been started since it was asked about
        machine = evidence_of(await self._servers.ask(self._servers.id_of(node) or ""))
        if machine.activity is not Activity.OFF:
            await self._lift(node.name, f"the cloud says {machine.words}")
            return Result(requeue_after=decision.requeue_after)
        self._fenced_at[node.name] = self._clock.monotonic()
        self._metrics.count("moyai_fencing_total", action="fence")
        self._metrics.observe("moyai_fence_silence_seconds", self._heartbeat(node.name).silence)
        message = f"Node {node.name} is out of service, its pods and disks move: {decision.reason}"
        self._events.event(node.reference, "Warning", reason="Fenced", message=message)
        return await self._clear(node, decision)

    async def _renewed(self, name: str) -> bool:
        """Whether the lease is newer than we know: the watch may be behind."""
        known = self._leases.get(f"{LEASE_NAMESPACE}/{name}")
        try:
            now = parse_lease(await self._kube.get(LEASES, name, namespace=LEASE_NAMESPACE))
        except NotFound:
            return False
        return known is None or now.renewed != known.renewed

    async def _clear(self, node: Node, decision: Decision) -> Result:
        """Do at once what Kubernetes would do later for a node out of service."""
        fresh = parse_node(await self._kube.get(NODES, node.name))
        if not fenced(fresh):
            return Result(requeue_after=_CLEAR_SECONDS)  # lifted a moment ago, which the cache does not know yet
        if fresh.ready is True:
            # disks are detached by force only from a node that is not ready; a kubelet that comes back says so itself
            condition: Json = {
                "type": "Ready",
                "status": "Unknown",
                "reason": "MachineOff",
                "message": "The cloud says that the machine is off",
                "lastTransitionTime": stamp(self._clock.now()),
            }
            body: Json = {"metadata": {"resourceVersion": fresh.version}, "status": {"conditions": [condition]}}
            await self._kube.patch(NODES, node.name, body=body, kind="strategic", subresource="status")
        found, _ = await self._kube.list(PODS, fields=f"spec.nodeName={node.name}")
        for pod in map(parse_pod, found):
            # Kubernetes chooses the pods that have to go (tolerations); they run no more, for their machine is off
            if not pod.deleting or pod.static:
                continue
            try:
                if pod.phase not in ("Succeeded", "Failed"):
                    failed: Json = {"status": {"phase": "Failed", "reason": "MachineOff"}}
                    await self._kube.patch(PODS, pod.name, body=failed, namespace=pod.namespace, subresource="status")
                await self._kube.delete(PODS, pod.name, namespace=pod.namespace, uid=pod.uid, grace=0)
            except NotFound:
                continue
            _log.info("pod %s/%s ended with the machine of node %s", pod.namespace, pod.name, node.name)
        since = self._fenced_at.setdefault(node.name, self._clock.monotonic())
        recent = self._clock.monotonic() - since < _CLEAR_FOR
        return Result(requeue_after=_CLEAR_SECONDS if recent else decision.requeue_after)

    async def _lift(self, name: str, why: str) -> None:
        fresh = parse_node(await self._kube.get(NODES, name))
        others = [taint for taint in fresh.taints if taint.key != OUT_OF_SERVICE.key]
        await self._patch(fresh, taints=others, since=None)
        self._fenced_at.pop(name, None)
        self._metrics.count("moyai_fencing_total", action="lift")
        self._events.event(fresh.reference, "Normal", reason="FenceLifted", message=f"Node {name} is back in service: {why}")

    async def _patch(self, node: Node, *, taints: list[Taint], since: str | None) -> None:
        meta: Json = {"resourceVersion": node.version, "annotations": {FENCED: since}}
        await self._kube.patch(NODES, node.name, body={"metadata": meta, "spec": {"taints": taint_list(taints)}})

    async def _power_off(self, node: Node, decision: Decision) -> None:
        message = f"Node {node.name} is powered off: {decision.reason}"
        self._events.event(node.reference, "Warning", reason="PoweringOff", message=message)
        self._metrics.count("moyai_fencing_total", action="poweroff")
        await self._servers.stop(self._servers.id_of(node) or "")


def fenced(node: Node) -> bool:
    """Whether the node is out of service by our own fence (an administrator's is his to lift)."""
    return FENCED in node.annotations and any(taint.key == OUT_OF_SERVICE.key for taint in node.taints)


async def in_use(kube: Kube, name: str) -> bool:
    """Whether pods that are to end, or disks, are still at a node: its object must not go before them."""
    pods, _ = await kube.list(PODS, fields=f"spec.nodeName={name}")
    if any(pod.deleting and not pod.static for pod in map(parse_pod, pods)):
        return True
    attachments, _ = await kube.list(VOLUME_ATTACHMENTS)
    return any(one.node == name for one in map(parse_attachment, attachments))
