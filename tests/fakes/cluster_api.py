"""The Kubernetes API of a cluster whose machines are in a cloud in memory: whoever runs is a node that is Ready."""

from __future__ import annotations

from moyai.cloud.memory import MemoryCloud
from moyai.cloud.model import Power, Server
from moyai.kube.watching import NODES, Resource
from tests.fakes.kubernetes import QuickKubernetes
from tests.fakes.object_store import ObjectStore

DEPLOYMENTS = Resource("apps", "v1", "deployments", namespaced=True)
DAEMON_SETS = Resource("apps", "v1", "daemonsets", namespaced=True)
STORAGE_CLASSES = Resource("storage.k8s.io", "v1", "storageclasses", namespaced=False)


class ClusterApi(QuickKubernetes):
    """``add_ons`` run from the beginning. The API answers while a machine of the control plane runs."""

    def __init__(
        self,
        store: ObjectStore,
        cloud: MemoryCloud,
        *,
        deployments: tuple[str, ...] = (
            "moyai-cloud-controller-manager",
            "coredns",
            "csi-cinder-controllerplugin",
            "snapshot-controller",
        ),
        daemon_sets: tuple[str, ...] = ("kube-proxy", "csi-cinder-nodeplugin"),
    ) -> None:
        super().__init__(store)
        self._planes: set[str] = set()
        for name in deployments:
            status = {"updatedReplicas": 1, "availableReplicas": 1}
            meta = {"name": name, "namespace": "kube-system"}
            store.put(DEPLOYMENTS, {"metadata": meta, "spec": {"replicas": 1}, "status": status})
        for name in daemon_sets:
            meta = {"name": name, "namespace": "kube-system"}
            status = {"numberReady": 1, "desiredNumberScheduled": 1}
            store.put(DAEMON_SETS, {"metadata": meta, "status": status})
        cloud.store.servers.watch(self._machine)

    def ready(self, *, timeout: float = 2.0) -> bool:
        self.store.calls["get readyz"] += 1
        return bool(self._planes)

    def _machine(self, before: Server | None, after: Server | None) -> None:
        server = after or before
        assert server is not None
        runs = after is not None and after.power is Power.RUNNING
        if "control-plane" in server.name:
            (self._planes.add if runs else self._planes.discard)(server.name)
        if runs and (NODES.plural, "", server.name) not in self.store.objects:
            status = {"conditions": [{"type": "Ready", "status": "True"}]}
            self.store.put(NODES, {"metadata": {"name": server.name}, "spec": {}, "status": status})
