"""The node controllers: a Node says what its machine is, and follows when the machine stops or goes.

``NodeController`` initialises: provider id, addresses, labels, pod CIDR; the taint goes last, for it lets pods in.
``NodeLifecycleController`` asks the cloud only about nodes that are not Ready (and about one that was shut down): a machine
that is gone takes its Node along, one that is shut off gets a taint until it is back.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from moyai.ccm.servers import Servers
from moyai.ccm.taints import taint_list
from moyai.cloud.model import Power, Server
from moyai.core.clock import Clock
from moyai.core.errors import Conflict, MoyaiError, Retriable
from moyai.core.ids import POD_CIDR_KEY, POD_CIDR_LABEL, POOL_LABEL, ROLE_KEY, ZONE_LABEL
from moyai.kube.events import EventRecorder
from moyai.kube.informer import Informer
from moyai.kube.objects import UNINITIALIZED, Node, Taint, parse_node
from moyai.kube.resources import NODES, Json
from moyai.kube.watching import Kube
from moyai.kube.workqueue import WorkQueue
from moyai.plan.nodes import CONTROL_PLANE_POOL
from moyai.runtime.controllers import Part
from moyai.runtime.reconciler import DONE, Result

SHUTDOWN_TAINT = Taint("node.cloudprovider.kubernetes.io/shutdown", "NoSchedule")
REGION_LABEL = "topology.kubernetes.io/region"
TYPE_LABEL = "node.kubernetes.io/instance-type"
#: Labels by which `kubectl get nodes` shows roles.
_ROLE_PREFIX = "node-role.kubernetes.io/"

#: Addresses and labels of running nodes are compared this often: a floating IP may have been given meanwhile.
_RESYNC_SECONDS = 300.0
#: A node that was just initialised is looked at once more.
_SETTLE_SECONDS = 5.0
#: A node that is not Ready is looked after so often.
_WATCH_SECONDS = 5.0
_FRESH_SECONDS = 1.0
_RECENT_SECONDS = 30.0
_CONFLICTS = 10
_WORKERS, _LIFECYCLE_WORKERS = 4, 2
#: How long (seconds) a Node may outlive its machine, so that the disks and pods on it are freed.
_DELETE_DELAY_LEAST, _DELETE_DELAY_MOST = 3.0, 120.0


class NodeController:
    def __init__(
        self, *, kube: Kube, nodes: Informer[Node], servers: Servers, region: str, events: EventRecorder, clock: Clock
    ) -> None:
        self._kube = kube
        self._nodes = nodes
        self._servers = servers
        self._region = region
        self._events = events
        self._clock = clock
        self._began = clock.monotonic()
        self._first_seen: dict[str, float] = {}

    def part(self) -> Part:
        on_error = partial(_failed, nodes=self._nodes, events=self._events)
        return Part("node", self.reconcile, self.watch, workers=_WORKERS, on_error=on_error)

    def watch(self, queue: WorkQueue) -> None:
        def changed(key: str, old: Node | None, new: Node | None) -> None:
            if old is not None and (new is None or old.uid != new.uid):
                self._first_seen.pop(old.uid, None)
            if new is None:
                return
            if old is None or old.uid != new.uid:
                # those of the first list were there before us
                self._first_seen[new.uid] = self._clock.monotonic() if self._nodes.synced.is_set() else self._began
            # a kubelet that reads its Node right before we fill it in writes its own addresses, a name alone, over ours
            lost = initialised(new) and not new.internal_ips
            if old is None or lost or old.uid != new.uid or initialised(old) != initialised(new):
                queue.add(key)

        self._nodes.add_handler(changed)

    async def reconcile(self, key: str) -> Result:
        node = self._nodes.get(key)
        if node is None or node.deleting or (node.provider_id and self._servers.id_of(node) is None):
            return DONE  # another cloud's node, or none
        fresh = not initialised(node)
        # a machine is older than its Node: what was listed since that came knows it. An earlier list may show it half made, or
        # an older one of the same name
        known = self._clock.monotonic() - self._first_seen.get(node.uid, self._began)
        server = await self._servers.of(node, max_age=min(known, _RECENT_SECONDS) if fresh else _RESYNC_SECONDS / 2)
        if server is None and fresh:
            server = await self._servers.of(node, max_age=_FRESH_SECONDS)
        if server is None:
            if fresh:
                raise Retriable(f"the cloud has no server for node {node.name}", hint="its name must be the server's name")
            return Result(requeue_after=_RESYNC_SECONDS)
        if not server.addresses:
            server = await self._servers.ask(server.id) or server
        if await self._apply(node.name, server):
            message = (
                f"Initialised by the cloud: {server.flavor_name} in zone {server.zone}, {self._servers.provider_id(server)}"
            )
            self._events.event(node.reference, "Normal", reason="Synced", message=message)
        # what has just begun still changes: its kubelet writes as well, and a cloud may not know the addresses yet
        return Result(requeue_after=_SETTLE_SECONDS if fresh or not server.addresses else _RESYNC_SECONDS)

    async def _apply(self, name: str, server: Server) -> bool:
        """Make the Node say what the server is; True when it was not initialised before."""
        for attempt in range(_CONFLICTS):
            # read just before it is written: the kubelet writes to the same object every few seconds
            node = parse_node(await self._kube.get(NODES, name))
            version = node.version
            addresses = desired_addresses(node, server)
            if server.addresses and addresses != [(one.type, one.address) for one in node.addresses]:
                # merge, not strategic: a strategic patch would keep addresses that the server lost
                body: Json = {"status": {"addresses": [{"type": kind, "address": text} for kind, text in addresses]}}
                changed = await self._kube.patch(NODES, name, body=body, subresource="status")
                version = str(changed["metadata"]["resourceVersion"])
            patch = desired_patch(node, server, region=self._region, provider_id=self._servers.provider_id(server))
            if not patch:
                break
            # with the version, because the list of taints is replaced as a whole
            meta = {**patch.pop("metadata", {}), "resourceVersion": version}
            try:
                await self._kube.patch(NODES, name, body={**patch, "metadata": meta})
            except Conflict:
                if attempt == _CONFLICTS - 1:
                    raise
                continue
            return not initialised(node)
        return False


def _failed(key: str, error: MoyaiError, *, nodes: Informer[Node], events: EventRecorder) -> None:
    """Tell the user, as an event on the Node: no server of its name, credentials that the cloud refuses …"""
    node = nodes.get(key)
    if node and not isinstance(error, Conflict):
        message = f"The cloud cannot say what this node is: {error}"
        events.event(node.reference, "Warning", reason="SyncNodeFailed", message=message)


def initialised(node: Node) -> bool:
    return bool(node.provider_id) and not node.uninitialized


def desired_addresses(node: Node, server: Server) -> list[tuple[str, str]]:
    """The address that the kubelet was configured with comes first."""
    own = node.provided_ips
    fixed = [one.address for one in server.addresses if one.kind == "fixed"]
    fixed.sort(key=lambda text: (text not in own, fixed.index(text) if text in fixed else 0))
    floating = [one.address for one in server.addresses if one.kind == "floating"]
    return [
        *(("InternalIP", one) for one in fixed),
        *(("ExternalIP", one) for one in floating),
        ("Hostname", node.name),
    ]


def desired_patch(node: Node, server: Server, *, region: str, provider_id: str) -> dict[str, Any]:
    """A merge patch of metadata and spec; empty when all is as it should be."""
    labels = {ZONE_LABEL: server.zone, REGION_LABEL: region, TYPE_LABEL: server.flavor_name}
    missing = {key: text for key, value in labels.items() if (text := label_value(value)) and node.labels.get(key) != text}
    spec: dict[str, Any] = {}
    if not node.provider_id:
        spec["providerID"] = provider_id
    # on a cloud whose servers have no metadata, the machine itself says it when it registers
    told = server.metadata.get(POD_CIDR_KEY, "") or node.labels.get(POD_CIDR_LABEL, "").replace("_", "/")
    cidrs = [one.strip() for one in told.split(",") if one.strip()]
    if cidrs and not node.pod_cidrs:
        spec |= {"podCIDR": cidrs[0], "podCIDRs": cidrs}
    if node.uninitialized:
        spec["taints"] = taint_list(taint for taint in node.taints if taint.key != UNINITIALIZED)
    patch: dict[str, Any] = {}
    if _is_worker(node, server) and not any(key.startswith(_ROLE_PREFIX) for key in node.labels):
        # a kubelet may not give itself a role
        missing[f"{_ROLE_PREFIX}worker"] = ""
    if missing:
        patch["metadata"] = {"labels": missing}
    if spec:
        patch["spec"] = spec
    return patch


def _is_worker(node: Node, server: Server) -> bool:
    if role := server.metadata.get(ROLE_KEY):
        return role == "worker"
    # such a Node says itself what it is, as it does its range of pods
    return POD_CIDR_LABEL in node.labels and node.labels.get(POOL_LABEL, CONTROL_PLANE_POOL) != CONTROL_PLANE_POOL


def label_value(text: str) -> str:
    """What of a cloud's word may stand in a label: at most 63 letters, digits, ``-``, ``_`` and ``.``."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", text)[:63].strip("-_.")


class NodeLifecycleController:
    """``in_use``: whether pods or disks are still at a Node, which must go after them; asked when its machine is gone."""

    def __init__(
        self,
        *,
        kube: Kube,
        nodes: Informer[Node],
        servers: Servers,
        events: EventRecorder,
        clock: Clock,
        in_use: Callable[[str], Awaitable[bool]] | None = None,
    ) -> None:
        self._kube = kube
        self._nodes = nodes
        self._servers = servers
        self._events = events
        self._clock = clock
        self._in_use = in_use
        self._gone: dict[str, float] = {}

    def part(self) -> Part:
        on_error = partial(_failed, nodes=self._nodes, events=self._events)
        return Part("node-lifecycle", self.reconcile, self.watch, workers=_LIFECYCLE_WORKERS, on_error=on_error)

    def watch(self, queue: WorkQueue) -> None:
        def changed(key: str, old: Node | None, new: Node | None) -> None:
            # a Ready node's shutdown taint has to go; a node that is not Ready has to be looked after
            if new and (old is None or old.ready != new.ready) and (not new.ready or SHUTDOWN_TAINT in new.taints):
                queue.add(key)

        self._nodes.add_handler(changed)

    async def reconcile(self, key: str) -> Result:
        node = self._nodes.get(key)
        if node is None or node.deleting or self._servers.id_of(node) is None:
            return DONE
        if node.ready and SHUTDOWN_TAINT not in node.taints:
            return DONE
        server = await self._servers.of(node, max_age=_FRESH_SECONDS)
        if server is None or server.power is Power.GONE:
            if await self._deletion_waits(node):
                return Result(requeue_after=_FRESH_SECONDS)
            self._events.event(
                node.reference,
                "Normal",
                reason="DeletingNode",
                message=f"Deleting node {node.name}: its server is gone from the cloud",
            )
            await self._kube.delete(NODES, node.name, uid=node.uid)
            return DONE
        stopped = server.power in (Power.OFF, Power.SUSPENDED)
        if stopped != (SHUTDOWN_TAINT in node.taints):
            await self._taint(node.name, stopped)
        return DONE if node.ready and not stopped else Result(requeue_after=_WATCH_SECONDS)

    async def _deletion_waits(self, node: Node) -> bool:
        """Disks of a Node that is deleted too early are freed minutes later: its fence is forgotten with it."""
        if self._in_use is None:
            return False
        for uid in self._gone.keys() - {one.uid for one in self._nodes.all()}:
            del self._gone[uid]
        now = self._clock.monotonic()
        waited = now - self._gone.setdefault(node.uid, now)
        return waited < _DELETE_DELAY_LEAST or (waited < _DELETE_DELAY_MOST and await self._in_use(node.name))

    async def _taint(self, name: str, stopped: bool) -> None:
        node = parse_node(await self._kube.get(NODES, name))
        others = [taint for taint in node.taints if taint.key != SHUTDOWN_TAINT.key]
        taints = [*others, SHUTDOWN_TAINT] if stopped else others
        body: Json = {"metadata": {"resourceVersion": node.version}, "spec": {"taints": taint_list(taints)}}
        await self._kube.patch(NODES, node.name, body=body)
        what = "is shut off in the cloud" if stopped else "runs again in the cloud"
        self._events.event(
            node.reference, "Normal", reason="NodeShutdown" if stopped else "NodeStarted", message=f"Node {node.name} {what}"
        )
