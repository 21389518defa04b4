"""A cloud in memory, a state folder, and the two commands: what the tests of `up` and `down` share."""

from __future__ import annotations

import threading
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from moyai.bootstrap import pki
from moyai.cloud.capabilities import Capability
from moyai.cloud.load_balancers import BalancerState, LoadBalancer
from moyai.cloud.memory import MemoryCloud
from moyai.cloud.model import DiskState, Image, PortUse, Power, Snapshot, Volume
from moyai.core.ids import CLUSTER_TAG, cluster_tag
from moyai.core.paths import Paths
from moyai.core.progress import Reporter
from moyai.kube.quick import KubeApi
from moyai.kube.resources import NODES, SERVICES
from moyai.lifecycle import down as teardown
from moyai.lifecycle import leaving_planes
from moyai.lifecycle import up as building
from moyai.lifecycle import work as working
from moyai.lifecycle.record import Record
from moyai.lifecycle.tokens import add_token
from moyai.plan.graph import Plan
from moyai.plan.teardown import Target
from moyai.spec.load import parse
from moyai.spec.model import Cluster
from tests.fakes.clock import FakeClock
from tests.fakes.cloud import attach, memory, named
from tests.fakes.cluster_api import ClusterApi
from tests.fakes.object_store import ObjectStore

WHOLE = [
    "balancers",
    "fips moyai.cluster=UID api",
    "groups quickstart-control-plane",
    "groups quickstart-worker",
    "keypair quickstart-UID",
    "networks quickstart-network",
    "ports quickstart-control-plane-0",
    "ports quickstart-workers-0",
    "ports quickstart-workers-1",
    "routers quickstart-router",
    "servers quickstart-control-plane-0",
    "servers quickstart-workers-0",
    "servers quickstart-workers-1",
    "subnets quickstart-subnet",
]


def _no_fsync(handle: int) -> None:
    """Disks are slow."""


def _shown_names(api: ClusterApi) -> frozenset[str]:
    return frozenset(filter(None, [api.etcd.shown]))


def node_cloud(*, capabilities: Collection[Capability] = tuple(Capability)) -> MemoryCloud:
    """A cloud that has the node image, and a mirror of container images."""
    cloud = memory(looks=2, capabilities=capabilities)
    cloud.account.mirror = "http://192.0.2.1:5001"
    properties = {"moyai_kubernetes_version": "1.37.1"}
    cloud.store.images.put(Image("img", "moyai-node-1.37.1", "ACTIVE", properties=properties))
    return cloud


class World:
    """A cloud, a state folder, and the two commands."""

    def __init__(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, capabilities: Collection[Capability] = tuple(Capability)
    ) -> None:
        self.paths = Paths(tmp_path / "cache", tmp_path / "state")
        self.cloud = node_cloud(capabilities=capabilities)
        self.store = self.cloud.store
        self.mortal = self.cloud.mortal
        #: Names of volumes that were taken from a machine that still ran.
        self.torn: list[str] = []
        self.store.volumes.watch(self._torn)
        self.clock = FakeClock()
        self.kubes: dict[str, ClusterApi] = {}

        def open_api(record: Record) -> Any:
            # steps run side by side, and a second API would not know what the first one was told
            with opening:
                return opened(record)

        def opened(record: Record) -> Any:
            self.mortal.check()
            if not (record.folder / "kubeconfig").exists():
                return None
            if record.uid not in self.kubes:
                store = ObjectStore()
                store.on_call = lambda _name, _after: self.mortal.check()
                plane = record.cluster.spec.control_plane
                self.kubes[record.uid] = ClusterApi(
                    *(store, self.cloud),
                    tag=cluster_tag(record.uid),
                    copies=min(2, plane.replicas),
                    elected=plane.virtual,
                )
                if plane.balanced:
                    self.kubes[record.uid].etcd.led = self.led
                if token := record.secret("token"):
                    # as `kubeadm init` makes it
                    add_token(cast("KubeApi", self.kubes[record.uid]), token, clock=self.clock)
            if record.restores and record.uid not in restored:
                restored.add(record.uid)
                self.kubes[record.uid].awaits_data = True
            return self.kubes[record.uid]

        restored, opening = set[str](), threading.Lock()
        # what costs time on purpose on real disks and with real secrets
        monkeypatch.setattr("os.fsync", _no_fsync)
        monkeypatch.setattr(pki, "PBKDF2_ROUNDS", 1)
        # no machine here shows a certificate
        monkeypatch.setattr(leaving_planes, "shown_names", _shown_names)
        self.open_api = open_api
        monkeypatch.setattr(building, "open_api", open_api)
        monkeypatch.setattr(teardown, "open_api", open_api)
        monkeypatch.setattr(working, "open_api", open_api)

    def led(self) -> list[str]:
        """Addresses that the load balancer before the API sends to."""
        found = [one for one in self.store.balancers.by("name", "quickstart-api") if one.state is not BalancerState.FAILED]
        pools = [listener.pool for one in found for listener in one.listeners if listener.pool]
        return [member.address for pool in pools for member in pool.members]

    def up(self, spec: str | Cluster = "", *, replaced: str = "") -> building.UpResult:
        cluster = parse(spec) if isinstance(spec, str) else spec
        reporter = Reporter(clock=self.clock)
        return building.up(cluster, self.cloud, paths=self.paths, reporter=reporter, clock=self.clock, replaced=replaced)

    def preview(self, spec: str = "", *, replaced: str = "") -> Plan:
        return building.preview(parse(spec), self.cloud, paths=self.paths, clock=self.clock, replaced=replaced)

    def down(self, name: str = "quickstart", uid: str = "") -> teardown.DownReport:
        return self.tear_down(*teardown.target_of(name, self.paths, cloud=self.cloud, uid=uid))

    def tear_down(self, target: Target, record: Record | None) -> teardown.DownReport:
        return teardown.down(
            target, record, cloud=self.cloud, paths=self.paths, reporter=Reporter(clock=self.clock), clock=self.clock
        )

    def fail(self, name: str, fault: str) -> None:
        """The cloud finds a machine broken."""
        server = named(self.store.servers, name)
        self.store.servers.put(replace(server, status="ERROR", power=Power.FAILED, fault=fault))

    def power(self, name: str, power: Power) -> None:
        """Somebody does this to a machine in the cloud."""
        server = named(self.store.servers, name)
        self.store.servers.put(replace(server, status=power.value, power=power))

    def silence(self, name: str, *, minutes: float) -> None:
        """A node whose kubelet has not been heard of for so long, although its machine runs."""
        moment = (self.clock.now() - timedelta(minutes=minutes)).isoformat()
        node = self.kube().store.find(NODES, name)
        status = {"conditions": [{"type": "Ready", "status": "Unknown", "lastTransitionTime": moment}]}
        self.kube().store.put(NODES, {**node, "status": status})

    def api(self) -> KubeApi:
        return cast("KubeApi", self.kube())

    def _torn(self, before: Volume | None, after: Volume | None) -> None:
        if before is None or any(one.releasing for one in self.kubes.values()):
            return
        kept = after.attached_server_ids if after else ()
        for server_id in set(before.attached_server_ids) - set(kept):
            server = self.store.servers.get(server_id)
            if server is not None and server.power is Power.RUNNING:
                self.torn.append(before.name)

    def all_names(self) -> list[str]:
        """Everything that is in the cloud: ``kind name``, sorted; what the cloud itself makes is left out."""
        store = self.store
        found = [
            f"{kind} {getattr(item, 'name', None) or getattr(item, 'description', '')}"
            for kind, table in (
                ("networks", store.networks),
                ("subnets", store.subnets),
                ("routers", store.routers),
                ("ports", store.ports),
                ("groups", store.groups),
                ("fips", store.floating_ips),
                ("servers", store.servers),
                ("volumes", store.volumes),
                ("snapshots", store.snapshots),
                ("balancers", store.balancers),
            )
            for item in table
            if not getattr(item, "external", False) and getattr(item, "use", PortUse.OTHER).deletable
        ]
        found += [f"keypair {name}" for name in store.keypairs]
        return sorted([*found, *(f"credential {name}" for name in store.credentials)])

    def names(self, name: str = "quickstart") -> list[str]:
        record = Record.open(self.paths, name)
        uid = record.uid if record else "?"
        return [text.replace(uid, "UID") for text in self.all_names()]

    def kube(self, name: str = "quickstart") -> ClusterApi:
        record = Record.open(self.paths, name)
        assert record is not None
        return self.kubes[record.uid]


def whole() -> list[str]:
    credentials = ["credential quickstart-UID", "credential quickstart-volumes-UID"]
    return sorted([*(line for line in WHOLE if " " in line), *credentials])


def count_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    world = World(tmp_path / "count", monkeypatch)
    world.up()
    return world.mortal.changes


@dataclass(frozen=True)
class Disks:
    """Volumes at the workers: the cluster's own one with a snapshot, one that is the user's."""

    own: Volume
    static: Volume
    snapshot: Snapshot


def with_disks(world: World, policy: str = "Delete") -> Disks:
    uid = world.up(f"spec: {{volumes: {{reclaimPolicy: {policy}}}}}").uid
    first, second = (one for one in world.store.servers if "workers" in one.name)
    own = attach(world.cloud, "pvc-own", server_id=first.id, metadata={CLUSTER_TAG: uid})
    static = attach(world.cloud, "precious", server_id=second.id)
    snap = Snapshot("snap", "snapshot-1", "available", own.id, 1, metadata={CLUSTER_TAG: uid}, state=DiskState.AVAILABLE)
    return Disks(own, static, world.store.snapshots.put(snap))


def in_use(world: World) -> None:
    """Services with a load balancer, a pod with a disk that stays, and a disk that stays and that no pod uses."""
    disks = with_disks(world, "Retain")
    world.kube().claim("database", disks.own)
    tag = cluster_tag(next(iter(world.kubes)))
    subnet = next(one.id for one in world.store.subnets if tag in one.tags)
    for name in ("web", "chat"):
        spec = {"type": "LoadBalancer"}
        world.kube().store.put(SERVICES, {"metadata": {"namespace": "default", "name": name}, "spec": spec})
        made = LoadBalancer(name=f"kube_service_quickstart_default_{name}", vip_subnet_id=subnet, tags=(tag,))
        world.cloud.load_balancers.create(made)
    world.store.settle()


def kept(report: teardown.DownReport) -> list[tuple[str, str]]:
    return sorted((entry.kind, entry.name) for entry in report.entries if entry.outcome == "kept")
