"""`moyai status`: cloud and Kubernetes side by side, typed, and in the form that programs read today."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from moyai.cloud.credentials import Use
from moyai.cloud.memory import Delays, MemoryCloud
from moyai.cloud.memory.store import StoredCredential
from moyai.cloud.model import Address, Power, Server
from moyai.cloud.openstack import ADAPTER
from moyai.core.errors import MoyaiError, Retriable
from moyai.core.ids import POOL_KEY, RESTORED, cluster_tag
from moyai.core.paths import Paths
from moyai.kube.quick import KubeApi
from moyai.kube.resources import CONFIG_MAPS, DAEMON_SETS, DEPLOYMENTS, NODES, SERVICES, Json
from moyai.lifecycle import observe, status
from moyai.lifecycle.record import Record
from moyai.lifecycle.status import AddonStatus, BalancedService, ClusterStatus, CredentialStatus
from moyai.plan.observed import KubeFacts, NodeAllocation
from moyai.spec.load import dump, validate
from tests.fakes.clock import FakeClock
from tests.fakes.kubernetes import QuickKubernetes
from tests.fakes.object_store import ObjectStore

PLANE, WORKER = "demo-control-plane-0", "demo-workers-0"


def machine(name: str, pool: str, power: Power = Power.RUNNING, **more: Any) -> Server:
    address = Address("10.8.0.10", "fixed", "net")
    word = "ACTIVE" if power is Power.RUNNING else "ERROR"
    return Server(f"id-{name}", name, word, "az1", "m1", (address,), {POOL_KEY: pool}, power=power, **more)


class MeetingClock(FakeClock):
    """Each call of a cloud that takes time waits in ``meet``."""

    def __init__(self, meet: Callable[[], None]) -> None:
        super().__init__()
        self._meet = meet

    def sleep(self, seconds: float, *, wake: threading.Event | None = None) -> None:
        self._meet()


def node(name: str, ready: str = "True") -> Json:
    conditions = [{"type": "Ready", "status": ready}]
    return {"metadata": {"name": name}, "status": {"conditions": conditions, "nodeInfo": {"kubeletVersion": "v1.37.1"}}}


def kubernetes(meet: Callable[[], object]) -> QuickKubernetes:
    """An empty Kubernetes, each call of which waits in ``meet``."""
    made = QuickKubernetes(ObjectStore())

    def called(_name: str, after: bool) -> None:
        if not after:
            meet()

    made.store.on_call = called
    return made


class World:
    """A recorded cluster whose cloud and API answer only when all that is asked of them has been asked.

    ``refusal``: the API answers each call with it.
    """

    def __init__(self, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
        cluster = validate({"metadata": {"name": "demo"}, "spec": {"nodePools": [{"replicas": 1}]}}, source="test")
        self.record = Record.create(paths, "demo", spec=dump(cluster))
        self.record.allocate({PLANE: NodeAllocation(10, "az1"), WORKER: NodeAllocation(11, "az1")})
        self.record.set_api_address("203.0.113.9")
        self.cloud = MemoryCloud(clock=MeetingClock(self._meet), delays=Delays(call=1))
        self.machines(machine(PLANE, "control-plane"), machine(WORKER, "workers"))
        self.cloud.store.servers.put(machine("of-another-cluster", "workers"))
        self.kube = kubernetes(self._ask)
        for one in (node(PLANE), node(WORKER)):
            self.kube.store.put(NODES, one)
        self.deployment("coredns", ready=2)
        self.deployment("of-the-user", ready=0, namespace="shop")
        numbers = {"numberReady": 2, "desiredNumberScheduled": 2}
        self.kube.store.put(DAEMON_SETS, {"metadata": {"name": "kube-proxy", "namespace": "kube-system"}, "status": numbers})
        web = {"type": "LoadBalancer", "ports": [{"port": 80}, {"port": 443}]}
        address = {"loadBalancer": {"ingress": [{"ip": "203.0.113.20"}]}}
        self.kube.store.put(SERVICES, {"metadata": {"name": "web", "namespace": "shop"}, "spec": web, "status": address})
        self.kube.store.put(SERVICES, {"metadata": {"name": "inner", "namespace": "shop"}, "spec": {"type": "ClusterIP"}})
        self.refusal: MoyaiError | None = None
        self.finished = True
        self._meeting = threading.Barrier(8, timeout=10)
        monkeypatch.setattr(status, "open_api", self._open)

    def machines(self, *machines: Server) -> None:
        """From now on these are the cluster's machines in the cloud."""
        servers, tag = self.cloud.store.servers, cluster_tag(self.record.uid)
        for one in list(servers.by("tag", tag)):
            servers.drop(one.id)
        for one in machines:
            servers.put(replace(one, tags=(tag,)))

    def deployment(self, name: str, *, ready: int, namespace: str = "kube-system") -> None:
        meta = {"name": name, "namespace": namespace}
        self.kube.store.put(DEPLOYMENTS, {"metadata": meta, "spec": {"replicas": 2}, "status": {"readyReplicas": ready}})

    def credential(self, identity: str, name: str, *, limited: bool, expires: datetime) -> None:
        use = Use.CONTROLLERS if limited else None
        self.cloud.store.credentials[name] = StoredCredential(identity, "secret", use, expires=expires)

    def read(self) -> ClusterStatus:
        return status.read(self.record, self.cloud, clock=FakeClock())

    def _open(self, record: Record) -> QuickKubernetes | None:
        assert record is self.record
        return self.kube if self.finished else None

    def _meet(self) -> None:
        self._meeting.wait()

    def _ask(self) -> None:
        self._meet()
        if self.refusal:
            raise self.refusal


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
        "name", "uid", "cloud", "kubernetes", "api", "api_url", "nodes", "machines", "addons", "addon_pods", "services",
        "certificates", "credentials", "control_planes", "etcd", "upgrade", "problems", "notes",
    }  # fmt: skip
    assert {"name", "role", "pool", "zone", "address", "machine", "node", "version", "fault"} <= set(data["nodes"][0])


def test_a_route_budget_that_runs_out_is_a_note_and_no_problem(world: World) -> None:
    assert world.read().notes == ()
    world.record.set_spec({**world.record.spec, "spec": {**world.record.spec["spec"], "network": {"maxRoutes": 3}}})
    found = world.read()
    assert found.problems == ()
    assert found.notes[0].startswith("1 more node fits into the pod network: 2 of 3 routes of the router")


def test_what_is_not_well_is_a_problem_each(world: World) -> None:
    world.machines(machine(PLANE, "control-plane", Power.FAILED, fault="no host"))
    world.kube.store.put(NODES, node(PLANE, "Unknown"))
    world.kube.store.vanish(NODES, WORKER)
    world.deployment("coredns", ready=1)
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
    world.credential("c2", f"demo-volumes-{uid}", limited=True, expires=now + timedelta(days=20))
    world.credential("c1", f"demo-{uid}", limited=False, expires=now + timedelta(days=40))
    world.credential("c3", "demo-9999999999", limited=True, expires=now)
    found = world.read()
    assert found.credentials == (
        CredentialStatus(f"demo-{uid}", limited=False, expires="2026-02-10T00:00:00+00:00"),
        CredentialStatus(f"demo-volumes-{uid}", limited=True, expires="2026-01-21T00:00:00+00:00"),
    )
    assert found.problems == (
        f"credential demo-volumes-{uid} ends on 2026-01-21: the cluster cannot reach the cloud without it",
    )


def test_a_cloud_that_does_not_answer_leaves_its_part_unknown(world: World) -> None:
    world.cloud.faults.fail_next("machines.servers", Retriable("no answer"))
    found = world.read()
    assert found.problems == ("the cloud cannot be asked: no answer",)
    assert [(one.machine, one.running, one.node) for one in found.nodes] == [("?", None, "Ready")] * 2


def test_an_api_that_does_not_answer_leaves_its_part_unknown(world: World) -> None:
    world.refusal = Retriable("no answer")
    found = world.read()
    assert (found.api, found.problems, found.addons, found.services) == ("no answer", ("no answer",), (), ())
    assert {one.node for one in found.nodes} == {"unknown"}


@pytest.mark.parametrize("power", [Power.OFF, Power.RUNNING])
def test_where_etcd_has_no_majority_it_is_said_how_to_restore(world: World, power: Power) -> None:
    world.record.set_ready()
    world.refusal = Retriable("no answer")
    world.machines(machine(PLANE, "control-plane", power), machine(WORKER, "workers"))
    said = [one for one in world.read().problems if "majority" in one]
    assert [one.partition(":")[0] for one in said] == ["0 of 1 control planes run, so etcd has no majority"] * (
        power is Power.OFF
    )
    assert all("`moyai restore FILE` makes the cluster again from a backup" in one for one in said)


def test_a_restored_cluster_says_what_is_kept_for_it(world: World) -> None:
    meta = {"name": RESTORED, "namespace": "kube-system"}
    world.kube.store.put(CONFIG_MAPS, {"metadata": meta, "data": {"made": "2026-11-29T12:00:00+00:00"}})
    found = world.read()
    assert found.problems == ()
    assert found.notes[0].startswith("restored from a backup of 2026-11-29T12:00:00+00:00: what is in the cloud")


def test_a_cluster_without_a_kubeconfig_was_never_finished(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.machines()
    world.finished = False
    monkeypatch.setattr(world, "_meeting", threading.Barrier(1))
    assert world.read().problems[0] == "the cluster was never finished: `moyai up` goes on"


def test_up_asks_the_api_for_all_kinds_at_the_same_time() -> None:
    api = kubernetes(threading.Barrier(5, timeout=10).wait)
    assert observe.kube_facts(cast("KubeApi", api), ADAPTER.volume_names) == KubeFacts()
    assert sum(api.store.calls.values()) == 5
