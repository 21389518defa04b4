"""The Kubernetes API of a cluster whose machines are in a cloud in memory. Each running machine is a Ready node."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from moyai.cloud.memory import MemoryCloud
from moyai.cloud.memory.disks import detached
from moyai.cloud.model import Power, Server, Volume
from moyai.core.errors import Retriable
from moyai.core.ids import CLUSTER_RECORD
from moyai.kube.objects.meta import part
from moyai.kube.objects.node import CONTROL_PLANE
from moyai.kube.resources import (
    CONFIG_MAPS,
    DAEMON_SETS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    NODES,
    PODS,
    SECRETS,
    STORAGE_CLASSES,
    VOLUME_ATTACHMENTS,
    VOLUMES,
    Json,
    Resource,
)
from tests.fakes.etcd import FakeEtcd
from tests.fakes.kubernetes import QuickKubernetes
from tests.fakes.machine_folders import MachineFolders
from tests.fakes.object_store import ObjectStore

_CSI = "disks.memory.test"
_COUNTS = {"numberReady": 1, "updatedNumberScheduled": 1, "desiredNumberScheduled": 1}
_ADD_ONS = ("moyai-cloud-controller-manager", "coredns", "csi-memory-controllerplugin", "snapshot-controller")


class ClusterApi(QuickKubernetes):
    """The add-ons run from the beginning. Nothing is listed while no machine of the control plane runs.

    ``protected``: names of pods that a disruption budget keeps. ``mounted``: nodes at which another driver's disk stays for
    so many looks. ``evicted`` and ``cordoned`` tell what was done, in order. ``releasing``: a volume is being let go of as the
    CSI driver does it, its machine running. ``mute``: no answer comes through, whatever runs. ``awaits_data``: its first
    machine waits for etcd's data. ``sent``: what it got.
    """

    mute = awaits_data = False
    #: Metrics of the API server about deprecated APIs.
    deprecated = ""
    sent = b""
    #: The folders of its machines, for tests that change what is in them.
    folders: MachineFolders | None = None
    #: Nodes that the controller of DaemonSets has counted; None where it has always counted all.
    counted: int | None = None

    def __init__(self, store: ObjectStore, cloud: MemoryCloud, *, tag: str, copies: int = 1, elected: bool = False) -> None:
        """``copies``, ``elected``: of the controllers that run on control planes."""
        super().__init__(store)
        self._copies, self._elected = copies, elected
        self._cloud, self._tag = cloud, tag
        self.etcd = FakeEtcd()
        #: Control plane → the id of the server that ran last.
        self._servers: dict[str, str] = {}
        self._marked: set[str] = set()
        self.protected: set[str] = set()
        self.mounted: dict[str, int] = {}
        self.evicted: list[str] = []
        self.cordoned: list[str] = []
        self.releasing = False
        for name in _ADD_ONS:
            self.deployment(name)
        for name in ("kube-proxy", "csi-memory-nodeplugin"):
            self.daemon_set(name)
        text = "kind: ClusterConfiguration\nkubernetesVersion: v1.37.1\n"
        meta = {"name": "kubeadm-config", "namespace": "kube-system"}
        store.put(CONFIG_MAPS, {"metadata": meta, "data": {"ClusterConfiguration": text}})
        self.daemon_set("moyai-agent", "--controllers=policy")
        store.put(STORAGE_CLASSES, {"metadata": {"name": "csi-memory"}, "reclaimPolicy": "Delete"})
        # first: a machine that starts in between is heard of twice rather than not at all
        cloud.store.servers.watch(self._machine)
        for server in cloud.store.servers.by("tag", tag):
            self._machine(None, server)

    # ---- for tests

    def deployment(self, name: str, *, runs: bool = True) -> None:
        meta = {"name": name, "namespace": "kube-system"}
        container: Json = {"name": name, "image": "registry.test/moyai:1", "args": ["--leader-elect=true"] * self._elected}
        spec = {"replicas": self._copies, "template": {"spec": {"containers": [container]}}}
        self.store.put(DEPLOYMENTS, {"metadata": meta, "spec": spec, "status": _runs(self._copies) if runs else {}})

    def daemon_set(self, name: str, *args: str) -> None:
        image = "registry.k8s.io/kube-proxy:v1.37.1" if name == "kube-proxy" else "registry.test/moyai:1"
        pod = {"spec": {"containers": [{"name": name, "image": image, "args": list(args)}]}}
        meta = {"name": name, "namespace": "kube-system"}
        self.store.put(DAEMON_SETS, {"metadata": meta, "spec": {"template": pod}, "status": dict(_COUNTS)})

    def pod(self, name: str, *, namespace: str = "default", node: str = "", owner: str = "", **spec: Any) -> None:
        meta: Json = {"name": name, "namespace": namespace}
        if owner:
            meta["ownerReferences"] = [{"kind": owner}]
        self.store.put(PODS, {"metadata": meta, "spec": {**({"nodeName": node} if node else {}), **spec}, "status": {}})

    def claim(self, pod: str, volume: Volume) -> None:
        """A pod with a claim, bound to a volume of the cloud."""
        reference = {"namespace": "default", "name": f"claim-of-{pod}"}
        source = {"driver": _CSI, "volumeHandle": volume.id}
        self.store.put(VOLUMES, {"metadata": {"name": f"pv-of-{pod}"}, "spec": {"claimRef": reference, "csi": source}})
        self.pod(pod, volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": reference["name"]}}])

    def names(self, resource: Resource) -> list[str]:
        return [one["metadata"]["name"] for one in self.store.all(resource)]

    def metrics(self, *, timeout: float | None = None) -> str:
        return self.deprecated

    # ---- what a cluster does

    def ready(self, *, timeout: float = 2.0) -> bool:
        return super().ready() and self._answers

    @property
    def _answers(self) -> bool:
        self._boot()
        return self.etcd.answers and not self.mute and not self.awaits_data

    def _boot(self) -> None:
        """A machine starts in its time, whether or not anybody looks at it in the cloud."""
        store = self._cloud.store
        if store.delays.call:
            store.clock.sleep(store.delays.call)
        with store.lock:
            store.catch_up()

    def list(
        self, resource: Resource, *, namespace: str | None = None, fields: str = "", timeout: float | None = None
    ) -> list[Json]:
        found = super().list(resource, namespace=namespace, fields=fields)
        if not self._answers:
            raise Retriable(f"the API at {self.server} does not answer")
        if resource == DAEMON_SETS:
            return [self._counted(one) for one in found]
        return [*found, *self._attachments()] if resource == VOLUME_ATTACHMENTS else found

    def _counted(self, daemon_set: Json) -> Json:
        """Its controller counts one node after the other, one more with each look."""
        counted = max(1, len(self.store.all(NODES)))
        if self.counted is not None:
            self.counted = counted = min(self.counted + 1, counted)
        return {**daemon_set, "status": {what: number * counted for what, number in daemon_set["status"].items()}}

    def get(self, resource: Resource, name: str, *, namespace: str | None = None, timeout: float | None = None) -> Json:
        if resource == ENDPOINT_SLICES and name == "kubernetes":
            self._check()
            return self.etcd.endpoints()
        if name == CLUSTER_RECORD:
            self._check()
        return super().get(resource, name, namespace=namespace)

    def create(
        self, resource: Resource, body: Mapping[str, Any], *, namespace: str | None = None, timeout: float | None = None
    ) -> Json:
        if body["metadata"].get("name") == CLUSTER_RECORD:
            self._check()
        made = super().create(resource, body, namespace=namespace)
        node = body["spec"].get("nodeName", "") if resource == PODS else ""
        if node in self.etcd.serving or (node and "control-plane" not in node):
            # a kubelet without an API server can report nothing
            made = {**made, "status": {"phase": "Running"}}
            self.store.put(PODS, made)
        return made

    def replace(
        self,
        resource: Resource,
        body: Mapping[str, Any],
        *,
        namespace: str | None = None,
        subresource: str = "",
        timeout: float | None = None,
    ) -> Json:
        self._check()
        return super().replace(resource, body, namespace=namespace)

    def execute(self, namespace: str, pod: str, *, command: Sequence[str], timeout: float, given: bytes = b"") -> str:
        self._check()
        if given:
            assert self.folders
            with self.store.call(f"execute {command[0]}"):
                return self.folders.work(pod.removeprefix("keys-"), given)
        with self.store.call(f"execute {command[0]}"):
            said = self.etcd.execute(pod, command)
        plane = pod.removeprefix("leave-")
        if plane != pod and plane not in self.etcd.serving:
            self._status(plane, "Unknown")
        return said

    def output(self, namespace: str, pod: str, *, command: Sequence[str], timeout: float) -> Iterator[bytes]:
        self._check()
        with self.store.call(f"execute {command[0]}"):
            printed = self.etcd.snapshot(pod)
        # in pieces that do not end where a line does
        yield from (printed[at : at + 11] for at in range(0, len(printed), 11))

    def send(self, path: str, content: BinaryIO, *, size: int, headers: Mapping[str, str], timeout: float) -> tuple[int, str]:
        self._boot()
        with self.store.call(f"send {path}"):
            data = content.read()
            if not self.etcd.running or not self.awaits_data:
                raise Retriable(f"the API at {self.server} does not answer")
            assert (len(data), hashlib.sha256(data).hexdigest()) == (size, headers["X-Sha256"])
            self.sent, self.awaits_data = data, False
        return 200, "{}"

    def _check(self) -> None:
        if not self._answers:
            raise Retriable(f"the API at {self.server} does not answer")

    def patch(self, resource: Resource, name: str, *, body: Mapping[str, Any], namespace: str | None = None) -> Json:
        if part(body, "spec").get("unschedulable"):
            self.cordoned.append(name)
        done = super().patch(resource, name, body=body, namespace=namespace)
        if resource == SECRETS and self.folders:
            self.folders.stored(f"{namespace}/{name}", by=self.etcd.holder)
        if resource == DEPLOYMENTS:
            self.store.put(DEPLOYMENTS, {**done, "status": _runs(done["spec"]["replicas"])})
        return done

    def apply(self, resource: Resource, body: Mapping[str, Any], *, manager: str) -> Json:
        """A DaemonSet's pods run at once."""
        made = {**body, "status": dict(_COUNTS)} if resource == DAEMON_SETS else body
        return super().apply(resource, made, manager=manager)

    def evict(self, namespace: str, pod: str) -> None:
        if pod in self.protected:
            raise Retriable("Kubernetes answered 429: Cannot evict pod as it would violate the pod's disruption budget.")
        super().evict(namespace, pod)
        self.evicted.append(pod)

    def _attachments(self) -> list[Json]:
        """As the CSI driver does it: a volume that no pod uses any more comes off its machine."""
        found: list[Json] = []
        for node, looks in self.mounted.items():
            if looks:
                self.mounted[node] = looks - 1
                found.append({"spec": {"attacher": "other", "source": {}, "nodeName": node}})
        for one in self.store.all(VOLUMES):
            claim = one["spec"]["claimRef"]["name"]
            if any(claim in str(pod["spec"].get("volumes")) for pod in self.store.all(PODS)):
                source = {"persistentVolumeName": one["metadata"]["name"]}
                found.append({"spec": {"attacher": _CSI, "source": source}})
            else:
                self._release(one["spec"]["csi"]["volumeHandle"])
        return found

    def _release(self, volume_id: str) -> None:
        self.releasing = True
        try:
            volumes = self._cloud.store.volumes
            for server in volumes[volume_id].attached_server_ids:
                volumes.put(detached(volumes[volume_id], server))
        finally:
            self.releasing = False

    def _machine(self, before: Server | None, after: Server | None) -> None:
        server = after or before
        if server is None or self._tag not in server.tags:
            return
        runs = after is not None and after.power is Power.RUNNING
        if "control-plane" in server.name:
            blank = self._servers.get(server.name) != server.id
            if runs:
                self.etcd.start(server.name, _address(self._cloud, server), blank=blank)
                self._servers[server.name] = server.id
            else:
                self.etcd.stop(server.name)
        # a Node object outlives its machine
        there = self.store.objects.get((NODES.plural, "", server.name))
        if runs or there:
            kept: Json = there or {"metadata": {"name": server.name, **self._registered(server.name)}, "spec": {}}
            status = {"conditions": [{"type": "Ready", "status": str(runs)}]}
            self.store.put(NODES, {**kept, "status": status})

    def _status(self, name: str, ready: str) -> None:
        kept = self.store.find(NODES, name)
        self.store.put(NODES, {**kept, "status": {"conditions": [{"type": "Ready", "status": ready}]}})

    def _registered(self, name: str) -> Json:
        """What a Node has at first: kubeadm marks that of a control plane once."""
        if "control-plane" not in name or name in self._marked:
            return {}
        self._marked.add(name)
        return {"labels": {CONTROL_PLANE: ""}}


def _runs(copies: int) -> Json:
    return {"readyReplicas": copies, "updatedReplicas": copies, "availableReplicas": copies}


def _address(cloud: MemoryCloud, server: Server) -> str:
    ports = (port.fixed_ips[0] for port in cloud.store.ports if port.name == server.name and port.fixed_ips)
    return next(ports, server.name)
