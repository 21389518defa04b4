"""The second half of a simulated cluster's life: nodes leave it, nodes are replaced, and the cluster is removed.

No controller runs meanwhile. In the cloud controller manager's place a node that is excluded leaves the load balancers at once.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from moyai.cloud.load_balancers import BalancingAlgorithm, Listener, LoadBalancer, Member, Pool, TrafficProtocol
from moyai.cloud.memory import MemoryCloud
from moyai.cloud.model import Power, Server
from moyai.core.clock import Clock
from moyai.core.ids import cluster_tag
from moyai.kube.objects.node import EXCLUDE_LABEL
from moyai.kube.resources import NODES
from tests.fakes.kubernetes import Kubernetes

#: Of ten nodes one leaves, and one is replaced.
SHARE = 10
#: A load balancer sends to the nodes that leave and to so many others.
_OTHERS = 5


class LeavingNodes:
    """The last workers leave, and others after them are replaced; each load balancer sends to all of those."""

    def __init__(self, cloud: MemoryCloud, kube: Kubernetes, *, uid: str, clock: Clock) -> None:
        self._cloud, self._kube, self._uid, self._clock = cloud, kube, uid, clock
        self._left: set[str] = set()

    def balance(self, services: int) -> None:
        """Load balancers of Services that send to the last nodes."""
        workers = self._workers()
        chosen = workers[-2 * (len(workers) // SHARE + 1) - _OTHERS :]
        members = tuple(Member(one.addresses[0].address, 30080, name=one.name) for one in chosen)
        subnet = self._cloud.store.subnets.by("tag", cluster_tag(self._uid))[0]
        for number in range(services):
            pool = Pool(f"p-{number}", TrafficProtocol.TCP, BalancingAlgorithm.ROUND_ROBIN, members)
            listeners = (Listener(f"l-{number}", TrafficProtocol.TCP, 80, pool),)
            tags = (cluster_tag(self._uid),)
            self._cloud.load_balancers.create(
                LoadBalancer(f"web-{number}", vip_subnet_id=subnet.id, listeners=listeners, tags=tags)
            )
        self._clock.sleep(60)
        self._kube.on_call = self._called

    def fail(self, count: int) -> None:
        """The cloud finds the last machines broken; ``count`` is one at least."""
        for server in self._workers()[-count:]:
            self._cloud.store.servers.put(replace(server, status="ERROR", power=Power.FAILED, fault="its host is gone"))

    def _workers(self) -> list[Server]:
        """By the numbers in their names."""
        found = self._cloud.store.servers.by("tag", cluster_tag(self._uid))
        return sorted((one for one in found if "workers" in one.name), key=lambda one: (len(one.name), one.name))

    def _called(self, name: str, after: bool) -> None:
        if name != "patch nodes" or not after:
            return
        excluded = {one["metadata"]["name"] for one in self._kube.all(NODES) if _excluded(one)}
        if new := excluded - self._left:
            self._left |= new
            store = self._cloud.store
            with store.lock:
                for one in store.balancers:
                    store.balancers.put(_without(one, new))


def _excluded(node: Any) -> bool:
    return EXCLUDE_LABEL in node["metadata"].get("labels", {})


def _without(balancer: LoadBalancer, nodes: set[str]) -> LoadBalancer:
    listeners: list[Listener] = []
    for one in balancer.listeners:
        assert one.pool
        kept = tuple(member for member in one.pool.members if member.name not in nodes)
        listeners.append(replace(one, pool=replace(one.pool, members=kept)))
    return replace(balancer, listeners=tuple(listeners))
