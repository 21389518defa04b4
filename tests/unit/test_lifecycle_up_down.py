"""up and down against a cloud in memory: whole, killed at every single change, scaled, and refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from moyai.bootstrap import pki
from moyai.cloud.load_balancers import LoadBalancer
from moyai.cloud.model import FloatingIP, Network, Port, Power, Quota, Route, Server, Snapshot, Volume
from moyai.core.errors import MoyaiError, Terminal, UsageError
from moyai.core.ids import CLUSTER_TAG, cluster_tag
from moyai.core.paths import Paths
from moyai.core.progress import Reporter
from moyai.lifecycle import addons, drain
from moyai.lifecycle import down as teardown
from moyai.lifecycle import up as building
from moyai.lifecycle.record import Record, locked
from moyai.plan import text
from moyai.spec.load import dump, parse
from moyai.spec.model import Cluster
from tests.fakes.clock import FakeClock
from tests.unit.fakecloud import FakeCloud, FakeKube, Killed

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


class World:
    """A cloud, a state folder, and the two commands."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.paths = Paths(tmp_path / "cache", tmp_path / "state")
        self.cloud = FakeCloud()
        self.clock = FakeClock()
        self.kubes: dict[str, FakeKube] = {}

        def open_api(record: Record) -> Any:
            self.cloud.look()
            if not (record.folder / "kubeconfig").exists():
                return None
            return self.kubes.setdefault(record.uid, FakeKube(self.cloud, cluster_tag(record.uid)))

        # what costs time on purpose on real disks and with real secrets
        monkeypatch.setattr("os.fsync", _no_fsync)
        monkeypatch.setattr(pki, "PBKDF2_ROUNDS", 1)
        monkeypatch.setattr(building, "open_api", open_api)
        monkeypatch.setattr(teardown, "open_api", open_api)

    def up(self, spec: str | Cluster = "") -> building.UpResult:
        cluster = parse(spec) if isinstance(spec, str) else spec
        return building.up(cluster, self.cloud, self.paths, Reporter(clock=self.clock), clock=self.clock)

    def down(self, name: str = "quickstart", uid: str = "") -> teardown.DownReport:
        target, record = teardown.target_of(name, self.paths, self.cloud, uid)
        return teardown.down(target, record, self.cloud, self.paths, Reporter(clock=self.clock), clock=self.clock)

    def names(self, name: str = "quickstart") -> list[str]:
        record = Record.open(self.paths, name)
        uid = record.uid if record else "?"
        return [text.replace(uid, "UID") for text in self.cloud.names()]

    def kube(self, name: str = "quickstart") -> FakeKube:
        record = Record.open(self.paths, name)
        assert record is not None
        return self.kubes[record.uid]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def whole() -> list[str]:
    credentials = ["credential quickstart-UID", "credential quickstart-volumes-UID"]
    return sorted([*(line for line in WHOLE if " " in line), *credentials])


def test_up_makes_one_of_everything_and_again_nothing(world: World) -> None:
    first = world.up()
    assert first.changed
    assert world.names() == whole()
    assert {cluster_tag(first.uid)} == {
        tag for kind in ("networks", "ports", "servers") for item in world.cloud.all[kind].values() for tag in item.tags
    }
    router = next(iter(world.cloud.all["routers"].values()))
    assert [(route.destination, route.nexthop) for route in router.routes] == [
        ("10.244.0.0/24", "10.8.0.10"),
        ("10.244.1.0/24", "10.8.0.11"),
        ("10.244.2.0/24", "10.8.0.12"),
    ]
    assert all("moyai.key" not in server.metadata for server in world.cloud.all["servers"].values())
    changes = world.cloud.changes
    again = world.up()
    assert not again.changed
    assert world.cloud.changes == changes
    assert world.names() == whole()


def test_what_machines_do_not_need_to_boot_is_made_once_they_run(world: World) -> None:
    steps: list[tuple[str, str]] = []
    reporter = Reporter(lambda event: steps.append((event.kind, event.step)), clock=world.clock)
    building.up(parse(""), world.cloud, world.paths, reporter, clock=world.clock)
    begun = [name for kind, name in steps if kind == "started"]
    booted = steps.index(("finished", building.MACHINES))
    late = ("gateway", "interface", "rules control-plane", "rules worker")
    assert {name for name in begun if name in late} == set(late)
    assert all(steps.index(("started", name)) > booted for name in late)


def test_down_leaves_nothing_and_says_so(world: World) -> None:
    result = world.up()
    report = world.down()
    assert world.cloud.names() == []
    assert not report.left
    assert {line.fate for line in report.lines} == {"gone"}
    assert {line.kind for line in report.lines} >= {
        "server",
        "port",
        "network",
        "subnet",
        "router",
        "floating ip",
        "key pair",
        "credential",
    }
    assert Record.open(world.paths, result.name) is None


def count_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    world = World(tmp_path / "count", monkeypatch)
    world.up()
    return world.cloud.changes


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_up_killed_at_every_change_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    monkeypatch.setattr(building, "WORKERS", 1)
    changes = count_changes(tmp_path, monkeypatch)
    assert changes > 20
    for number in range(1, changes + 1):
        world = World(tmp_path / f"{number}", monkeypatch)
        world.cloud.kill_at(number, after=after)
        with pytest.raises(Killed):
            world.up()
        world.cloud.revive()
        world.up()
        assert world.names() == whole(), f"killed at change {number}"
        assert not world.up().changed
        world.down()
        assert world.cloud.names() == [], f"killed at change {number}"


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_down_removes_whatever_a_killed_up_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool) -> None:
    monkeypatch.setattr(building, "WORKERS", 1)
    changes = count_changes(tmp_path, monkeypatch)
    for number in range(1, changes + 1):
        world = World(tmp_path / f"{number}", monkeypatch)
        world.cloud.kill_at(number, after=after)
        with pytest.raises(Killed):
            world.up()
        world.cloud.revive()
        report = world.down()
        assert world.cloud.names() == [], f"killed at change {number}"
        assert not report.left


def test_down_killed_at_every_change_is_finished_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teardown, "WORKERS", 1)
    world = World(tmp_path / "count", monkeypatch)
    world.up()
    built = world.cloud.changes
    world.down()
    for number in range(1, world.cloud.changes - built + 1):
        world = World(tmp_path / f"{number}", monkeypatch)
        world.up()
        world.cloud.kill_at(number, after=True)
        with pytest.raises(Killed):
            world.down()
        world.cloud.revive()
        assert not world.down().left
        assert world.cloud.names() == []


def test_many_side_by_side_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3, 30, 4):
        world = World(tmp_path / f"{number}", monkeypatch)
        world.cloud.kill_at(number, after=True)
        with pytest.raises(Killed):
            world.up()
        world.cloud.revive()
        world.up()
        assert world.names() == whole()


def test_scaling_up_keeps_addresses_and_down_drains(world: World) -> None:
    world.up()
    before = {port.name: port.fixed_ips for port in world.cloud.all["ports"].values() if port.name}
    world.up("spec: {nodePools: [{replicas: 4}]}")
    now = {port.name: port.fixed_ips for port in world.cloud.all["ports"].values() if port.name}
    assert before.items() <= now.items()
    assert now["quickstart-workers-3"] == ("10.8.0.14",)
    kube = world.kube()
    kube.pods = [
        {"metadata": {"name": "web", "namespace": "default"}, "spec": {"nodeName": "quickstart-workers-3"}, "status": {}},
        {
            "metadata": {"name": "proxy", "namespace": "kube-system", "ownerReferences": [{"kind": "DaemonSet"}]},
            "spec": {"nodeName": "quickstart-workers-3"},
            "status": {},
        },
    ]
    world.up("spec: {nodePools: [{replicas: 2}]}")
    assert kube.cordoned == ["quickstart-workers-3", "quickstart-workers-2"]
    assert kube.evicted == ["web"]
    assert world.names() == whole()
    router = next(iter(world.cloud.all["routers"].values()))
    assert len(router.routes) == 3
    record = Record.open(world.paths, "quickstart")
    assert record is not None
    assert set(record.recorded().seats) == {"quickstart-control-plane-0", "quickstart-workers-0", "quickstart-workers-1"}
    # the free number is used again
    world.up("spec: {nodePools: [{replicas: 2}, {name: big, replicas: 1}]}")
    assert next(p for p in world.cloud.all["ports"].values() if p.name == "quickstart-big-0").fixed_ips == ("10.8.0.13",)


def test_a_drained_node_goes_after_its_disks_and_not_much_later(world: World) -> None:
    world.up()
    kube = world.kube()
    for looks, least, most in ((5, 2.0, 20.0), (10**6, drain.DISKS_TIMEOUT, 2 * drain.DISKS_TIMEOUT + 20.0)):
        kube.mounted = {"quickstart-workers-1": looks}
        began = world.clock.monotonic()
        world.up("spec: {nodePools: [{replicas: 1}]}")
        assert "server quickstart-workers-1" not in world.names()
        assert least <= world.clock.monotonic() - began <= most
        kube.mounted = {}
        world.up()


def test_a_protected_pod_keeps_its_node(world: World) -> None:
    world.up()
    kube = world.kube()
    kube.pods = [{"metadata": {"name": "db", "namespace": "d"}, "spec": {"nodeName": "quickstart-workers-1"}, "status": {}}]
    kube.protected = {"db"}
    with pytest.raises(Terminal, match=r"node quickstart-workers-1 could not be drained in 180 s.*d/db.*disruption budget"):
        world.up("spec: {nodePools: [{replicas: 1}]}")
    assert world.names() == whole()


def test_late_joiners_get_a_fresh_token(world: World) -> None:
    world.up()
    world.clock.sleep(3600)
    world.up("spec: {nodePools: [{replicas: 3}]}")
    assert len(world.kube().tokens) == 1


def test_a_server_in_error_is_told_and_replaced(world: World) -> None:
    world.cloud.faults["quickstart-workers-1"] = "No valid host was found"
    with pytest.raises(
        Terminal, match=r"server quickstart-workers-1 is in ERROR: No valid host was found; its console ends with: .*"
    ) as caught:
        world.up()
    assert "\n" not in str(caught.value)
    world.cloud.faults.clear()
    world.up()
    assert world.names() == whole()


def test_a_lost_control_plane_is_not_silently_made_anew(world: World) -> None:
    world.up()
    plane = next(s for s in world.cloud.all["servers"].values() if "control-plane" in s.name)
    world.cloud.all["servers"].pop(plane.id)
    with pytest.raises(Terminal, match=r"the control plane's machine .* is gone, and with it the cluster's state"):
        world.up()


def test_a_stopped_machine_is_started(world: World) -> None:
    world.up()
    worker = next(s for s in world.cloud.all["servers"].values() if "workers-0" in s.name)
    world.cloud.machines.stop_server(worker.id)
    assert world.up().changed
    assert all(s.power is Power.RUNNING for s in world.cloud.all["servers"].values())


def test_everything_that_hangs_on_a_cluster_goes_and_others_stay(world: World) -> None:
    world.up("metadata: {name: other}")
    others = world.cloud.names()
    uid = world.up().uid
    tag = cluster_tag(uid)
    cloud = world.cloud
    subnet = next(s for s in cloud.all["subnets"].values() if s.name == "quickstart-subnet")
    lb = cloud.load_balancers.create(
        LoadBalancer(name="kube_service_quickstart_default_web", vip_subnet_id=subnet.id, tags=(tag,))
    )
    cloud.put("balancers", replace(lb, provisioning_status="PENDING_UPDATE"))
    cloud.countdown[lb.id] = 3
    untagged = cloud.load_balancers.create(LoadBalancer(name="kube_service_quickstart_default_half", vip_subnet_id=subnet.id))
    cloud.put("fips", FloatingIP("fip-lb", "203.0.113.77", "ACTIVE", port_id=lb.vip_port_id, tags=(tag,)))
    cloud.put("fips", FloatingIP("fip-kept", "203.0.113.79", "DOWN", tags=(tag, "moyai.keep=true")))
    cloud.put("fips", FloatingIP("fip-user", "203.0.113.78", "ACTIVE", port_id=untagged.vip_port_id))
    worker = next(s for s in cloud.all["servers"].values() if s.name == "quickstart-workers-0")
    cloud.put("volumes", Volume("vol", "pvc-1", "IN-USE", 1, metadata={CLUSTER_TAG: uid}, attached_server_ids=(worker.id,)))
    cloud.put("volumes", Volume("mine", "mine", "AVAILABLE", 1))
    cloud.put("ports", Port("loose", "", subnet.network_id, "DOWN", ("10.8.0.99",), (subnet.id,)))
    router = next(r for r in cloud.all["routers"].values() if r.name == "quickstart-router")
    cloud.pod_routing.add_routes(router.id, [Route("192.168.0.0/24", "10.8.0.11")])
    report = world.down()
    assert not report.left, report.left
    assert [(line.kind, line.name) for line in report.lines if line.fate == "kept"] == [("floating ip", "203.0.113.79")]
    assert cloud.names() == sorted([*others, "fips ", "fips ", "volumes mine"])
    assert cloud.all["fips"]["fip-user"].port_id == ""


def test_volumes_are_kept_when_the_spec_says_so(world: World) -> None:
    uid = world.up("spec: {volumes: {reclaimPolicy: Retain}}").uid
    world.cloud.put("volumes", Volume("vol", "pvc-1", "AVAILABLE", 1, metadata={CLUSTER_TAG: uid}))
    report = world.down()
    assert [(line.fate, line.kind, line.name) for line in report.lines if line.fate != "gone"] == [("kept", "volume", "pvc-1")]
    assert list(world.cloud.all["volumes"]) == ["vol"]


@dataclass(frozen=True)
class Disks:
    """Volumes at the workers: the cluster's own one with a snapshot, one that is the user's."""

    own: Volume
    static: Volume
    snapshot: Snapshot


def with_disks(world: World, policy: str = "Delete") -> Disks:
    uid = world.up(f"spec: {{volumes: {{reclaimPolicy: {policy}}}}}").uid
    first, second = (s for s in world.cloud.all["servers"].values() if "workers" in s.name)
    own = world.cloud.attach("pvc-own", first.id, metadata={CLUSTER_TAG: uid})
    static = world.cloud.attach("precious", second.id)
    snap = Snapshot("snap", "snapshot-1", "AVAILABLE", own.id, 1, metadata={CLUSTER_TAG: uid})
    return Disks(own, static, world.cloud.put("snapshots", snap))


def kept(report: teardown.DownReport) -> list[tuple[str, str]]:
    return sorted((line.kind, line.name) for line in report.lines if line.fate == "kept")


def test_down_deletes_the_snapshots_before_their_volume_and_leaves_the_users_disk(world: World) -> None:
    disks = with_disks(world)
    report = world.down()
    assert not report.left, report.left
    assert kept(report) == [("volume", "precious")]
    assert {("volume", "pvc-own"), ("snapshot", "snapshot-1")} <= {
        (line.kind, line.name) for line in report.lines if line.fate == "gone"
    }
    assert world.cloud.names() == ["volumes precious"]
    # its machine was shut down first
    assert world.cloud.torn == ["pvc-own"]
    assert world.cloud.all["volumes"][disks.static.id].attached_server_ids == ()


def test_down_retains_volumes_and_snapshots_and_takes_them_off_in_order(world: World) -> None:
    with_disks(world, "Retain")
    report = world.down()
    assert not report.left, report.left
    assert kept(report) == [("snapshot", "snapshot-1"), ("volume", "precious"), ("volume", "pvc-own")]
    assert world.cloud.names() == ["snapshots snapshot-1", "volumes precious", "volumes pvc-own"]
    assert world.cloud.torn == []


def test_pods_let_go_of_volumes_that_stay_before_their_machines_are_touched(world: World) -> None:
    disks = with_disks(world, "Retain")
    kube = world.kube()
    kube.claim("database", disks.own)
    kube.claim("web", disks.static)
    kube.pods.append({"metadata": {"name": "other", "namespace": "default"}, "spec": {}, "status": {}})
    stopped: list[str] = []
    world.cloud.on_stop = stopped.append
    report = world.down()
    assert kept(report) == [("snapshot", "snapshot-1"), ("volume", "precious"), ("volume", "pvc-own")]
    assert [pod["metadata"]["name"] for pod in kube.pods] == ["other"]
    assert set(kube.cordoned) == {"quickstart-control-plane-0", "quickstart-workers-0", "quickstart-workers-1"}
    assert (stopped, world.cloud.torn) == ([], [])


def test_a_snapshot_that_is_not_the_clusters_keeps_its_volume(world: World) -> None:
    disks = with_disks(world)
    world.cloud.put("snapshots", Snapshot("mine", "by-hand", "AVAILABLE", disks.own.id, 1))
    report = world.down()
    assert not report.left
    line = next(line for line in report.lines if line.name == "pvc-own")
    assert (line.fate, line.why) == ("kept", "its snapshot by-hand was not made by the cluster")
    assert set(world.cloud.all["snapshots"]) == {"mine"}


def test_without_a_record_volumes_stay(world: World) -> None:
    with_disks(world)
    record = Record.open(world.paths, "quickstart")
    assert record is not None
    record.remove()
    report = world.down("", record.uid)
    assert not report.left
    assert kept(report) == [("snapshot", "snapshot-1"), ("volume", "precious"), ("volume", "pvc-own")]
    assert "no record" in next(line.why for line in report.lines if line.name == "pvc-own")


def test_volumes_at_a_vanished_server_go_and_those_at_a_strangers_are_left(world: World) -> None:
    uid = world.up().uid
    world.cloud.attach("pvc-vanished", "no-such-server", metadata={CLUSTER_TAG: uid})
    world.cloud.put("servers", Server("vm", "strangers-vm", "ACTIVE", "az1", "m1.small"))
    lent = world.cloud.attach("pvc-lent", "vm", metadata={CLUSTER_TAG: uid})
    report = world.down()
    assert [(line.kind, line.name) for line in report.left] == [("volume", "pvc-lent")]
    assert "strangers-vm, which is not the cluster's" in report.left[0].why
    assert Record.open(world.paths, "quickstart") is not None
    world.cloud.let_go(lent, "vm")
    assert not world.down().left
    assert world.cloud.names() == ["servers strangers-vm"]


@pytest.mark.parametrize("policy", ["Delete", "Retain"])
def test_down_with_volumes_killed_at_every_change_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    monkeypatch.setattr(teardown, "WORKERS", 1)
    stay = ["volumes precious"] if policy == "Delete" else ["snapshots snapshot-1", "volumes precious", "volumes pvc-own"]
    world = World(tmp_path / "count", monkeypatch)
    with_disks(world, policy)
    built = world.cloud.changes
    world.down()
    changes = world.cloud.changes - built
    assert changes > 15
    for number in range(1, changes + 1):
        for after in (False, True):
            world = World(tmp_path / f"{number}-{after}", monkeypatch)
            with_disks(world, policy)
            world.cloud.kill_at(number, after=after)
            with pytest.raises(Killed):
                world.down()
            world.cloud.revive()
            assert not world.down().left, f"killed at change {number}"
            assert world.cloud.names() == stay, f"killed at change {number}"
            assert "precious" not in world.cloud.torn


def test_a_changed_reclaim_policy_makes_the_default_class_anew(world: World) -> None:
    world.up()
    classes = world.kube().objects
    assert world.up("spec: {volumes: {reclaimPolicy: Retain}}").changed
    assert [one["reclaimPolicy"] for one in classes.values()] == ["Retain"]
    assert not world.up("spec: {volumes: {reclaimPolicy: Retain}}").changed
    # killed between the two calls: gone, and the spec on record is still the old one
    record = Record.open(world.paths, "quickstart")
    assert record is not None
    record.set_spec(dump(parse("")))
    classes.clear()
    assert world.up("spec: {volumes: {reclaimPolicy: Retain}}").changed
    assert [one["reclaimPolicy"] for one in classes.values()] == ["Retain"]
    # taken away on purpose
    classes.clear()
    assert not world.up("spec: {volumes: {reclaimPolicy: Retain}}").changed
    assert not classes


def test_a_cluster_whose_volumes_do_not_come_up_is_up_and_says_so(world: World) -> None:
    world.up()
    kube = world.kube()
    kube.down.add("csi-cinder-controllerplugin")
    again = world.up()
    assert "claims of volumes must wait" in again.notes[-1]
    assert "csi-cinder-controllerplugin is not ready yet" in again.notes[-1]
    kube.down.clear()
    assert not world.up().notes
    kube.down.add("coredns")
    with pytest.raises(Terminal, match="coredns is not ready yet"):
        world.up()


def test_a_cluster_from_before_volumes_is_not_waited_for_in_vain(world: World) -> None:
    world.up()
    record = Record.open(world.paths, "quickstart")
    assert record is not None
    record.forget("volumes-credential", "volumes-credential secret")
    again = world.up()
    assert not again.changed
    assert "built by a moyai without volumes" in again.notes[0]
    assert addons.deployments(record) == ("moyai-cloud-controller-manager", "coredns")
    assert world.up("spec: {nodePools: [{replicas: 3}]}").changed


def test_what_will_not_go_is_reported_and_keeps_the_record(world: World) -> None:
    world.up()
    subnet = next(iter(world.cloud.all["subnets"].values()))
    # somebody's own machine on the cluster's network
    port = Port(
        "foreign", "vm", subnet.network_id, "ACTIVE", ("10.8.0.99",), (subnet.id,), device_id="vm", device_owner="compute:az1"
    )
    world.cloud.put("ports", port)
    report = world.down()
    assert {line.kind for line in report.left} == {"network", "subnet"}
    with pytest.raises(
        MoyaiError, match=r"2 objects are left in the cloud: network quickstart-network, subnet quickstart-subnet"
    ):
        teardown.check(report)
    assert "foreign" in world.cloud.all["ports"]
    world.cloud.all["ports"].pop("foreign")
    assert not world.down().left
    assert world.cloud.names() == []


def test_down_without_a_record_finds_the_cluster_by_its_tags(world: World) -> None:
    uid = world.up().uid
    record = Record.open(world.paths, "quickstart")
    assert record is not None
    record.remove()
    with pytest.raises(UsageError, match="no cluster with UID 0123456789 is in this cloud"):
        world.down("", "0123456789")
    with pytest.raises(Terminal, match=f"'quickstart' is taken in cloud moyai by cluster {uid}"):
        world.up()
    assert not world.down("", uid).left
    assert world.cloud.names() == []


def test_nothing_is_made_when_it_cannot_fit(world: World) -> None:
    cases: list[tuple[Callable[[], None], str]] = [
        (lambda: world.cloud.quota.update(cores=Quota("cores", 3, 0)), r"4 CPUs are needed and 3 are free \(cores\)"),
        (
            lambda: world.cloud.quota.update(cores=Quota("cores", 20, 0), port=Quota("port", 4, 0)),
            r"5 ports are needed and 4 are free",
        ),
    ]
    for change, message in cases:
        change()
        with pytest.raises(Terminal, match=message):
            world.up()
        assert world.cloud.names() == []
        assert Record.open(world.paths, "quickstart") is None


def test_a_name_that_a_stranger_has_is_refused(world: World) -> None:
    world.cloud.put("networks", Network(id="x", name="quickstart-network"))
    with pytest.raises(Terminal, match="is taken in cloud moyai by somebody else's network"):
        world.up()


def test_what_cannot_change_is_refused(world: World) -> None:
    world.up()
    with pytest.raises(UsageError, match=r"spec.network.podCIDR: '10.200.0.0/16', should stay '10.244.0.0/16'"):
        world.up("spec: {network: {podCIDR: 10.200.0.0/16}}")


def test_two_at_once(world: World) -> None:
    with (
        locked(world.paths, "quickstart"),
        pytest.raises(Terminal, match=r"another moyai \(process \d+\) is working on cluster quickstart"),
    ):
        world.up()


def test_a_preview_changes_nothing(world: World) -> None:
    plan = building.preview(parse(""), world.cloud, world.paths)
    assert world.cloud.changes == 0
    assert not world.paths.clusters.exists()
    assert text.lines(plan)[0].endswith("create network quickstart-network")


def test_services_go_through_kubernetes_first(world: World) -> None:
    world.up()
    kube = world.kube()
    kube.services = [
        {"metadata": {"namespace": "default", "name": "web"}, "spec": {"type": "LoadBalancer"}},
        {"metadata": {"namespace": "default", "name": "kubernetes"}, "spec": {"type": "ClusterIP"}},
    ]
    world.down()
    assert [service["metadata"]["name"] for service in kube.services] == ["kubernetes"]
