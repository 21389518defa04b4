"""`moyai status`: cloud and Kubernetes side by side, typed, and in the form that programs read today."""

from __future__ import annotations

import json
import threading
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from moyai.cloud.capabilities import Capability, Cloud
from moyai.cloud.credentials import Credential
from moyai.cloud.model import Address, Power, Server
from moyai.cloud.openstack import ADAPTER
from moyai.core.errors import MoyaiError, NotFound, Retriable
from moyai.core.ids import POOL_KEY
from moyai.core.paths import Paths
from moyai.kube.quick import KubeApi
from moyai.kube.resources import DAEMON_SETS, DEPLOYMENTS, NODES, SERVICES, Json, Resource
from moyai.lifecycle import observe, status
from moyai.lifecycle.record import Record
from moyai.lifecycle.status import AddonStatus, BalancedService, ClusterStatus, CredentialStatus
from moyai.plan.observed import KubeFacts, NodeAllocation
from moyai.spec.load import dump, validate
from tests.fakes.clock import FakeClock

PLANE, WORKER = "demo-control-plane-0", "demo-workers-0"


def machine(name: str, pool: str, power: Power = Power.RUNNING, **more: Any) -> Server:
    address = Address("10.8.0.10", "fixed", "net")
    word = "ACTIVE" if power is Power.RUNNING else "ERROR"
    return Server(f"id-{name}", name, word, "az1", "m1", (address,), {POOL_KEY: pool}, power=power, **more)


def node(name: str, ready: str = "True") -> Json:
    conditions = [{"type": "Ready", "status": ready}]
    return {"metadata": {"name": name}, "status": {"conditions": conditions, "nodeInfo": {"kubeletVersion": "v1.37.1"}}}


class World:
    """A recorded cluster whose cloud and API answer only when all that is asked of them has been asked."""

    def __init__(self, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
        cluster = validate({"metadata": {"name": "demo"}, "spec": {"nodePools": [{"replicas": 1}]}}, source="test")
        self.record = Record.create(paths, "demo", spec=dump(cluster))
        self.record.allocate({PLANE: NodeAllocation(10, "az1"), WORKER: NodeAllocation(11, "az1")})
        self.record.set_api_address("203.0.113.9")
        self.servers: list[Server] | MoyaiError = [machine(PLANE, "control-plane"), machine(WORKER, "workers")]
        self.objects: dict[Resource, list[Json]] = {
            NODES: [node(PLANE), node(WORKER)],
            DEPLOYMENTS: [{"metadata": {"name": "coredns"}, "spec": {"replicas": 2}, "status": {"readyReplicas": 2}}],
            DAEMON_SETS: [{"metadata": {"name": "kube-proxy"}, "status": {"numberReady": 2, "desiredNumberScheduled": 2}}],
            SERVICES: [
                {
                    "metadata": {"name": "web", "namespace": "shop"},
                    "spec": {"type": "LoadBalancer", "ports": [{"port": 80}, {"port": 443}]},
                    "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.20"}]}},
                },
                {"metadata": {"name": "inner", "namespace": "shop"}, "spec": {"type": "ClusterIP"}},
            ],
        }
        self.credentials: list[Credential] = []
        self.refusal: MoyaiError | None = None
        self.finished = True
        self._meeting = threading.Barrier(7, timeout=10)
        monkeypatch.setattr(status, "open_api", self._open)

    def _open(self, record: Record) -> World | None:
        assert record is self.record
        return self if self.finished else None

    def list(self, resource: Resource, *, namespace: str | None = None, timeout: float | None = None) -> list[Json]:
        self._meeting.wait()
        if self.refusal:
            raise self.refusal
        assert namespace == ("kube-system" if resource in (DEPLOYMENTS, DAEMON_SETS) else None)
        return self.objects[resource]

    def serving_certificate(self, *, timeout: float) -> bytes:
        self._meeting.wait()
        raise Retriable("it shows none")

    def _listed(self, tag: str) -> list[Server]:
        assert tag.endswith(self.record.uid)
        self._meeting.wait()
        if isinstance(self.servers, MoyaiError):
            raise self.servers
        return self.servers

    def read(self) -> ClusterStatus:
        parts = {"machines": SimpleNamespace(servers=self._listed), "credentials": SimpleNamespace(credentials=self._issued)}
        cloud = SimpleNamespace(capabilities=lambda: frozenset(Capability), **parts)
        return status.read(self.record, cast("Cloud", cloud), clock=FakeClock())

    def _issued(self, *, name_prefix: str) -> list[Credential]:
        assert name_prefix == "demo-"
        self._meeting.wait()
        return self.credentials


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(Paths(tmp_path / "state", tmp_path / "cache"), monkeypatch)


def test_a_whole_cluster_has_no_problems_and_its_parts_are_typed(world: World) -> None:
    found = world.read()
    assert found.problems == ()
    assert (found.api, found.api_url) == ("ready", "https://203.0.113.9:6443")
    assert [(one.name, one.role, one.pool, one.machine, one.node, one.version, one.running) for one in found.nodes] == [
        (PLANE, "control-plane", "control-plane", "ACTIVE", "Ready", "v1.37.1", True),
        (WORKER, "worker", "workers", "ACTIVE", "Ready", "v1.37.1", True),
    ]
    assert found.addons == (AddonStatus("coredns", 2, 2), AddonStatus("kube-proxy", 2, 2))
    assert found.services == (BalancedService("shop/web", "203.0.113.20", (80, 443)),)


def test_the_fields_that_programs_read_keep_their_form(world: World) -> None:
    data = json.loads(json.dumps(world.read().data()))
    assert data["addons"] == [["coredns", "2/2"], ["kube-proxy", "2/2"]]
    assert data["addon_pods"][0] == {"name": "coredns", "ready": 2, "wanted": 2}
    assert data["services"] == [{"service": "shop/web", "address": "203.0.113.20", "ports": [80, 443]}]
    assert set(data) == {
        "name", "uid", "cloud", "kubernetes", "api", "api_url", "nodes", "addons", "addon_pods", "services",
        "certificates", "credentials", "problems",
    }  # fmt: skip
    assert {"name", "role", "pool", "zone", "address", "machine", "node", "version", "fault"} <= set(data["nodes"][0])


def test_what_is_not_well_is_a_problem_each(world: World) -> None:
    world.servers = [machine(PLANE, "control-plane", Power.FAILED, fault="no host")]
    world.objects[NODES] = [node(PLANE, "Unknown")]
    world.objects[DEPLOYMENTS][0]["status"] = {"readyReplicas": 1}
    found = world.read()
    assert found.problems == (
        f"machine {PLANE} is ERROR: no host",
        f"machine {WORKER} is gone: no reason given",
        f"node {PLANE} is NotReady",
        f"node {WORKER} is absent",
        "add-on coredns has 1/2 pods ready",
    )
    assert found.nodes[1].pool == "workers"


def test_credentials_of_the_cluster_are_shown_with_their_end(world: World) -> None:
    uid, now = world.record.uid, FakeClock().now()
    world.credentials = [
        Credential("c2", f"demo-volumes-{uid}", limited=True, expires=now + timedelta(days=20)),
        Credential("c1", f"demo-{uid}", expires=now + timedelta(days=40)),
        Credential("c3", "demo-9999999999", expires=now),
    ]
    found = world.read()
    assert found.credentials == (
        CredentialStatus(f"demo-{uid}", limited=False, expires="2026-02-10T00:00:00+00:00"),
        CredentialStatus(f"demo-volumes-{uid}", limited=True, expires="2026-01-21T00:00:00+00:00"),
    )
    assert found.problems == (
        f"credential demo-volumes-{uid} ends on 2026-01-21: the cluster cannot reach the cloud without it",
    )


def test_a_cloud_that_does_not_answer_leaves_its_part_unknown(world: World) -> None:
    world.servers = Retriable("no answer")
    found = world.read()
    assert found.problems == ("the cloud cannot be asked: no answer",)
    assert [(one.machine, one.running, one.node) for one in found.nodes] == [("?", None, "Ready")] * 2


def test_an_api_that_does_not_answer_leaves_its_part_unknown(world: World) -> None:
    world.refusal = Retriable("no answer")
    found = world.read()
    assert (found.api, found.problems, found.addons, found.services) == ("no answer", ("no answer",), (), ())
    assert {one.node for one in found.nodes} == {"unknown"}


def test_a_cluster_without_a_kubeconfig_was_never_finished(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.servers = []
    world.finished = False
    monkeypatch.setattr(world, "_meeting", threading.Barrier(1))
    assert world.read().problems[0] == "the cluster was never finished: `moyai up` goes on"


def test_up_asks_the_api_for_all_kinds_at_the_same_time() -> None:
    meeting = threading.Barrier(5, timeout=10)

    def listed(*_: object, **__: object) -> list[Json]:
        meeting.wait()
        return []

    def shown(*_: object, **__: object) -> Json:
        meeting.wait()
        raise NotFound("no such class")

    api = cast("KubeApi", SimpleNamespace(list=listed, get=shown))
    assert observe.kube_facts(api, ADAPTER.volume_names) == KubeFacts()
