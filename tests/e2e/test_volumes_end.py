"""What outlives machines and clusters: a disk whose machine vanishes, and what `down` does with disks and snapshots."""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from moyai.cloud.model import DiskState, Snapshot
from moyai.cloud.openstack import ADAPTER, OpenStackCloud, connect
from moyai.core.ids import cluster_tag
from tests.e2e.conftest import SharedCluster
from tests.e2e.disks import Zoned, until
from tests.e2e.driver import Cluster
from tests.e2e.space import Space

_ANYWHERE = [{"operator": "Exists"}]


class Keeping(Cluster):
    """A cluster of one machine, which keeps its disks when it goes."""

    def write(self, workers: int) -> None:
        del workers  # the pods are the control plane's
        volumes = {"reclaimPolicy": "Retain"}
        spec: dict[str, Any] = {"cloud": self.cloud, "controlPlane": {"zone": "az1"}, "nodePools": [], "volumes": volumes}
        (self.folder / "cluster.yaml").write_text(json.dumps({"metadata": {"name": self.name}, "spec": spec}))


@pytest.fixture
def cloud(cloud_name: str) -> OpenStackCloud:
    return connect(cloud_name)


@pytest.fixture
def own_disk(cloud: OpenStackCloud) -> Generator[str]:
    """A disk that no cluster made; it must be there, and free, in the end."""
    volumes = cloud.disks
    disk = volumes.create_volume(name="precious", size_gb=1, zone="az1", metadata={}).id
    until("the disk is there", lambda: volumes.volume(disk).state is DiskState.AVAILABLE, within=60)
    yield disk
    assert volumes.volume(disk).state is DiskState.AVAILABLE
    volumes.delete_volume(disk)


def _own_disk_in_a_pod(space: Space, disk: str) -> None:
    pv: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": "precious"},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "csi": {"driver": ADAPTER.volume_names.driver, "volumeHandle": disk, "fsType": "ext4"},
        },
    }
    claim = space.claim("precious", storageClassName="", volumeName="precious")
    # on the machine that stays
    plane = {"node-role.kubernetes.io/control-plane": ""}
    space.apply(pv, claim, space.pod("precious", "precious", tolerations=_ANYWHERE, nodeSelector=plane))


def _snapshot(space: Space, cloud: OpenStackCloud) -> tuple[str, Snapshot]:
    """Make one of the claim ``data`` and wait until it is usable: (the claim's volume, its snapshot)."""
    space.apply(
        {
            "apiVersion": "snapshot.storage.k8s.io/v1",
            "kind": "VolumeSnapshot",
            "metadata": space.meta("moment"),
            "spec": {
                "volumeSnapshotClassName": ADAPTER.volume_names.default_class,
                "source": {"persistentVolumeClaimName": "data"},
            },
        }
    )
    space.kubectl("wait", "volumesnapshot/moment", "--for=jsonpath={.status.readyToUse}=true", "--timeout=120s")
    volume = space.volume_of("data")
    return volume, next(one for one in cloud.disks.snapshots() if one.volume_id == volume)


def _deployment(space: Space) -> dict[str, Any]:
    pod = space.pod("app")
    # away from a dead machine at once: what is measured is the disk's way
    spec: dict[str, Any] = {**pod["spec"], "nodeSelector": {"moyai.dev/pool": "a"}}
    labels = {"app": "app"}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": space.meta("app"),
        "spec": {
            "replicas": 1,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }


def _running(space: Space) -> tuple[str, str]:
    """(name, node) of the Deployment's pod that is Ready; empty when there is none."""
    for pod in space.get("pods", "-l", "app=app")["items"]:
        conditions = pod["status"].get("conditions", [])
        ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
        if ready and "deletionTimestamp" not in pod["metadata"]:
            return pod["metadata"]["name"], pod["spec"]["nodeName"]
    return "", ""


def _fates(report: Any) -> dict[str, tuple[str, str]]:
    return {one["id"]: (one["fate"], one["why"]) for one in report["objects"]}


def test_down_keeps_what_the_spec_says_and_touches_no_other_cluster(
    zoned: Zoned, cloud: OpenStackCloud, own_disk: str, tmp_path: Path
) -> None:
    others = zoned.objects()
    keeping = Keeping(tmp_path, zoned.cloud)
    try:
        uid = keeping.up()["uid"]
        space = Space(SharedCluster(keeping.name, uid, cloud))
        # a load balancer and its floating IP that nobody cleans up
        space.kubectl("create", "service", "loadbalancer", "hanging", "--tcp=80:80")
        space.apply(space.claim("data"), space.pod("app", tolerations=_ANYWHERE))
        _own_disk_in_a_pod(space, own_disk)
        space.ready("app", "precious")
        space.store("app", "kept")
        made, snapshot = _snapshot(space, cloud)
        until("a load balancer", lambda: any(name.startswith("balancer ") for name in keeping.objects()), within=120)
    finally:
        report = json.loads(keeping.moyai("down", keeping.name, "--yes", "--output", "json").stdout)
    fates = _fates(report)
    assert report["left"] == 0
    policy = ("kept", "spec.volumes.reclaimPolicy is Retain")
    assert (fates[made], fates[snapshot.id]) == (policy, policy)
    assert fates[own_disk][0] == "kept"
    assert "load balancer" in {one["kind"] for one in report["objects"]}
    assert {one["fate"] for one in report["objects"] if one["id"] not in (made, snapshot.id, own_disk)} == {"gone"}
    assert not keeping.objects()
    assert "there is no cluster" in keeping.moyai("status", keeping.name, expect=2).stderr
    assert zoned.objects() == others
    assert {node["node"] for node in zoned.status()["nodes"]} == {"Ready"}
    assert cloud.disks.volume(made).state is DiskState.AVAILABLE
    assert cloud.disks.snapshot(snapshot.id).state is DiskState.AVAILABLE
    cloud.disks.delete_snapshot(snapshot.id)
    until("the snapshot is gone", lambda: snapshot.id not in {one.id for one in cloud.disks.snapshots()}, within=60)
    cloud.disks.delete_volume(made)


def test_a_vanished_machine_gives_its_disk_back_and_down_deletes_what_it_made(
    zoned: Zoned, cloud: OpenStackCloud, own_disk: str
) -> None:
    uid = zoned.status()["uid"]
    space = Space(SharedCluster(zoned.name, uid, cloud))
    space.apply(space.claim("data"), _deployment(space))
    _own_disk_in_a_pod(space, own_disk)
    pod, node = until("the pod runs", lambda: _running(space) if all(_running(space)) else None, within=120)
    space.ready("precious")
    space.store(pod, "kept")
    made = space.volume_of("data")

    gone = next(one for one in cloud.machines.servers(tag=cluster_tag(uid)) if one.name == node)
    start = time.monotonic()
    cloud.machines.delete_server(gone.id)
    moved, other = until(
        "the pod runs on another node",
        lambda: _running(space) if _running(space)[1] not in ("", node) else None,
        within=240,
    )
    print(f"[a machine vanished: its pod and its disk on another after {time.monotonic() - start:.1f} s]")
    assert other != node
    assert space.load(moved) == "kept"
    assert cloud.disks.volume(made).attached_server_ids != (gone.id,)

    _, snapshot = _snapshot(space, cloud)

    report = json.loads(zoned.moyai("down", zoned.name, "--yes", "--output", "json").stdout)
    fates = _fates(report)
    assert report["left"] == 0
    assert fates[made][0] == "gone"
    assert fates[snapshot.id][0] == "gone"
    assert fates[own_disk] == ("kept", "not made by the cluster")
    assert made not in {one.id for one in cloud.disks.volumes()}
    assert snapshot.id not in {one.id for one in cloud.disks.snapshots()}
    assert not zoned.objects()
