"""`down` against a cloud in memory: what goes, what stays, and what the report says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from moyai.cloud.load_balancers import BalancerState, LoadBalancer
from moyai.cloud.memory.disks import detached
from moyai.cloud.model import DiskState, FloatingIP, Port, PortUse, Route, Server, Snapshot
from moyai.core.errors import MoyaiError, Terminal, UsageError
from moyai.core.ids import CLUSTER_TAG, cluster_tag
from moyai.kube.resources import PODS, SERVICES
from moyai.lifecycle import down as teardown
from moyai.lifecycle.record import Record
from tests.fakes.cloud import add_volume, attach
from tests.unit.lifecycle_world import World, kept, with_disks


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def test_down_leaves_nothing_and_says_so(world: World) -> None:
    result = world.up()
    report = world.down()
    assert world.all_names() == []
    assert not report.left
    assert {entry.outcome for entry in report.entries} == {"gone"}
    assert {entry.kind for entry in report.entries} >= {
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


def test_the_fields_that_programs_read_keep_their_names(world: World) -> None:
    uid = world.up().uid
    data = json.loads(json.dumps(world.down().data()))
    assert (data["name"], data["uid"]) == ("quickstart", uid)
    assert (data["gone"], data["kept"], data["left"]) == (len(data["objects"]), 0, 0)
    network = next(one for one in data["objects"] if one["kind"] == "network")
    assert network == {"kind": "network", "name": "quickstart-network", "id": network["id"], "fate": "gone", "why": ""}


def test_everything_that_hangs_on_a_cluster_goes_and_others_stay(world: World) -> None:
    world.up("metadata: {name: other}")
    others = world.all_names()
    uid = world.up().uid
    tag = cluster_tag(uid)
    cloud = world.cloud
    subnet = next(s for s in cloud.store.subnets if s.name == "quickstart-subnet")
    lb = cloud.load_balancers.create(
        LoadBalancer(name="kube_service_quickstart_default_web", vip_subnet_id=subnet.id, tags=(tag,))
    )
    untagged = cloud.load_balancers.create(LoadBalancer(name="kube_service_quickstart_default_half", vip_subnet_id=subnet.id))
    cloud.store.settle()
    # somebody changes it at this moment
    busy = cloud.store.balancers[lb.id]
    cloud.store.balancers.put(replace(busy, state=BalancerState.BUSY))
    cloud.store.later(10, lambda: cloud.store.balancers.put(busy) and None)
    cloud.store.floating_ips.put(FloatingIP("fip-lb", "203.0.113.77", "ACTIVE", port_id=lb.vip_port_id, tags=(tag,)))
    cloud.store.floating_ips.put(FloatingIP("fip-kept", "203.0.113.79", "DOWN", tags=(tag, "moyai.keep=true")))
    cloud.store.floating_ips.put(FloatingIP("fip-user", "203.0.113.78", "ACTIVE", port_id=untagged.vip_port_id))
    worker = next(s for s in cloud.store.servers if s.name == "quickstart-workers-0")
    attach(cloud, "pvc-1", server_id=worker.id, metadata={CLUSTER_TAG: uid})
    add_volume(cloud, "mine")
    cloud.store.ports.put(Port("loose", "", subnet.network_id, "DOWN", ("10.8.0.99",), (subnet.id,)))
    router = next(r for r in cloud.store.routers if r.name == "quickstart-router")
    cloud.pod_routing.add_routes(router.id, [Route("192.168.0.0/24", "10.8.0.11")])
    report = world.down()
    assert not report.left, report.left
    assert [(entry.kind, entry.name) for entry in report.entries if entry.outcome == "kept"] == [
        ("floating ip", "203.0.113.79")
    ]
    assert world.all_names() == sorted([*others, "fips ", "fips ", "volumes mine"])
    assert cloud.store.floating_ips["fip-user"].port_id == ""


def test_volumes_are_kept_when_the_spec_says_so(world: World) -> None:
    uid = world.up("spec: {volumes: {reclaimPolicy: Retain}}").uid
    vol = add_volume(world.cloud, "pvc-1", metadata={CLUSTER_TAG: uid})
    report = world.down()
    assert [(entry.outcome, entry.kind, entry.name) for entry in report.entries if entry.outcome != "gone"] == [
        ("kept", "volume", "pvc-1")
    ]
    assert world.store.volumes.ids() == [vol.id]


def test_down_deletes_the_snapshots_before_their_volume_and_leaves_the_users_disk(world: World) -> None:
    disks = with_disks(world)
    report = world.down()
    assert not report.left, report.left
    assert kept(report) == [("volume", "precious")]
    assert {("volume", "pvc-own"), ("snapshot", "snapshot-1")} <= {
        (entry.kind, entry.name) for entry in report.entries if entry.outcome == "gone"
    }
    assert world.all_names() == ["volumes precious"]
    # its machine was shut down first
    assert world.torn == ["pvc-own"]
    assert world.store.volumes[disks.static.id].attached_server_ids == ()


def test_down_retains_volumes_and_snapshots_and_takes_them_off_in_order(world: World) -> None:
    with_disks(world, "Retain")
    report = world.down()
    assert not report.left, report.left
    assert kept(report) == [("snapshot", "snapshot-1"), ("volume", "precious"), ("volume", "pvc-own")]
    assert world.all_names() == ["snapshots snapshot-1", "volumes precious", "volumes pvc-own"]
    assert world.torn == []


def test_pods_let_go_of_volumes_that_stay_before_their_machines_are_touched(world: World) -> None:
    disks = with_disks(world, "Retain")
    kube = world.kube()
    kube.claim("database", disks.own)
    kube.claim("web", disks.static)
    kube.pod("other")
    world.cloud.calls.clear()
    report = world.down()
    assert kept(report) == [("snapshot", "snapshot-1"), ("volume", "precious"), ("volume", "pvc-own")]
    assert kube.names(PODS) == ["other"]
    assert set(kube.cordoned) == {"quickstart-control-plane-0", "quickstart-workers-0", "quickstart-workers-1"}
    assert (world.cloud.calls["machines.stop_server"], world.torn) == (0, [])


def test_a_snapshot_that_is_not_the_clusters_keeps_its_volume(world: World) -> None:
    disks = with_disks(world)
    world.store.snapshots.put(Snapshot("mine", "by-hand", "available", disks.own.id, 1, state=DiskState.AVAILABLE))
    report = world.down()
    assert not report.left
    entry = next(entry for entry in report.entries if entry.name == "pvc-own")
    assert (entry.outcome, entry.why) == ("kept", "its snapshot by-hand was not made by the cluster")
    assert world.store.snapshots.ids() == ["mine"]


def test_without_a_record_volumes_stay(world: World) -> None:
    with_disks(world)
    record = Record.open(world.paths, "quickstart")
    assert record is not None
    record.remove()
    report = world.down("", record.uid)
    assert not report.left
    assert kept(report) == [("snapshot", "snapshot-1"), ("volume", "precious"), ("volume", "pvc-own")]
    assert "no record" in next(entry.why for entry in report.entries if entry.name == "pvc-own")


def test_volumes_at_a_vanished_server_go_and_those_at_a_strangers_are_left(world: World) -> None:
    uid = world.up().uid
    attach(world.cloud, "pvc-vanished", server_id="no-such-server", metadata={CLUSTER_TAG: uid})
    world.store.servers.put(Server("vm", "strangers-vm", "ACTIVE", "az1", "m1.small"))
    lent = attach(world.cloud, "pvc-lent", server_id="vm", metadata={CLUSTER_TAG: uid})
    report = world.down()
    assert [(entry.kind, entry.name) for entry in report.left] == [("volume", "pvc-lent")]
    assert "strangers-vm, which is not the cluster's" in report.left[0].why
    assert Record.open(world.paths, "quickstart") is not None
    world.store.volumes.put(detached(lent, "vm"))
    assert not world.down().left
    assert world.all_names() == ["servers strangers-vm"]


def test_what_will_not_go_is_reported_and_keeps_the_record(world: World) -> None:
    world.up()
    subnet = next(iter(world.store.subnets))
    # somebody's own machine on the cluster's network
    port = Port("foreign", "vm", subnet.network_id, "ACTIVE", ("10.8.0.99",), (subnet.id,), device_id="vm", use=PortUse.MACHINE)
    world.store.ports.put(port)
    report = world.down()
    assert {entry.kind for entry in report.left} == {"network", "subnet"}
    with pytest.raises(
        MoyaiError, match=r"2 objects are left in the cloud: network quickstart-network, subnet quickstart-subnet"
    ):
        teardown.check(report)
    assert "foreign" in world.store.ports
    world.store.ports.drop("foreign")
    assert not world.down().left
    assert world.all_names() == []


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
    assert world.all_names() == []


def test_services_go_through_kubernetes_first(world: World) -> None:
    world.up()
    kube = world.kube()
    for name, kind in (("web", "LoadBalancer"), ("kubernetes", "ClusterIP")):
        kube.store.put(SERVICES, {"metadata": {"namespace": "default", "name": name}, "spec": {"type": kind}})
    world.down()
    assert kube.names(SERVICES) == ["kubernetes"]
