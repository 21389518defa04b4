"""Claims on a real cluster: disks that outlive pods, a user's own disk, raw, shared, larger, snapshots, clones, fifty at once,
crashes, a machine that is gone.

The pods run Python of moyai's own image, which every node holds; each test has a namespace of its own, and in the end the
cloud must have none of their disks.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from moyai.cloud.model import DiskState
from moyai.cloud.openstack import ADAPTER
from moyai.csi import manifests
from tests.e2e.disks import until
from tests.e2e.space import SHARED_TYPE, Space

NAMES = ADAPTER.volume_names
CLAIMS = 50
GIB = 1 << 30
#: Size of what stands at a path: a file system, or a raw disk.
_SIZE = "import os; s = os.statvfs('/data'); print(s.f_blocks * s.f_frsize)"
_KIND = "print(next(line.split()[2] for line in open('/proc/mounts') if line.split()[1] == '/data'))"
_RAW_SIZE = "import os; print(os.lseek(os.open('/dev/raw', os.O_RDONLY), 0, 2))"
_RAW_WRITE = "import os; f = os.open('/dev/raw', os.O_WRONLY | os.O_SYNC); os.write(f, b'moyai' + bytes(507))"
_RAW_READ = "print(open('/dev/raw', 'rb').read(5).decode())"


def test_what_is_written_outlives_the_pod_and_goes_with_the_claim(space: Space) -> None:
    space.apply(space.claim("data"), space.pod("first"))
    space.ready("first")
    space.store("first", "kept")
    space.end("first")
    space.apply(space.pod("second"))
    space.ready("second")
    assert space.load("second") == "kept"
    volumes, identity = space.cluster.cloud.disks, space.volume_of("data")
    assert volumes.volume(identity).metadata["moyai.cluster"] == space.cluster.uid
    space.end("second")
    space.kubectl("delete", "pvc", "data")
    until("the volume is gone", lambda: identity not in {one.id for one in volumes.volumes()}, within=60)


def test_a_disk_that_was_there_before_is_used_and_left_as_it_is(space: Space) -> None:
    volumes, name = space.cluster.cloud.disks, f"precious-{space.name}"
    disk = volumes.create_volume(name=name, size_gb=1, zone="az1", metadata={})
    until("the disk is there", lambda: volumes.volume(disk.id).state is DiskState.AVAILABLE, within=60)
    term = {"matchExpressions": [{"key": NAMES.zone_key, "operator": "In", "values": ["az1"]}]}
    pv = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "",
            "csi": {"driver": NAMES.driver, "volumeHandle": disk.id, "fsType": "ext4"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}},
        },
    }
    try:
        for number in range(2):
            pod = f"pod-{number}"
            space.apply(pv, space.claim("data", storageClassName="", volumeName=name), space.pod(pod))
            space.ready(pod)
            if number == 0:
                space.store(pod, "precious")
            else:
                assert space.load(pod) == "precious"
            space.end(pod)
            space.kubectl("delete", "pvc/data", f"pv/{name}")
        until("it is free", lambda: volumes.volume(disk.id).state is DiskState.AVAILABLE, within=60)
    finally:
        volumes.delete_volume(disk.id)


def test_a_raw_disk(space: Space) -> None:
    space.apply(space.claim("data", volumeMode="Block"), space.pod("first", raw=True))
    space.ready("first")
    assert int(space.python("first", _RAW_SIZE)) == GIB
    space.python("first", _RAW_WRITE)
    space.end("first")
    space.apply(space.pod("again", raw=True))
    space.ready("again")
    assert space.python("again", _RAW_READ) == "moyai"


def test_a_raw_disk_of_two_nodes_at_once(space: Space) -> None:
    """The control plane and a worker are in one zone; the others would have to reach over."""
    space.own_class(parameters={"type": SHARED_TYPE})
    nodes = [one["metadata"] for one in space.cluster.get("nodes")["items"]]
    zones = {one["name"]: one["labels"]["topology.kubernetes.io/zone"] for one in nodes}
    plane = next(one["name"] for one in nodes if "node-role.kubernetes.io/control-plane" in one["labels"])
    worker = next(name for name, zone in zones.items() if zone == zones[plane] and name != plane)
    claim = space.claim("data", volumeMode="Block", accessModes=["ReadWriteMany"], storageClassName=space.name)
    anywhere = [{"operator": "Exists"}]
    pods = {
        pod: space.pod(pod, raw=True, nodeSelector={"kubernetes.io/hostname": node}, tolerations=anywhere)
        for pod, node in (("here", plane), ("there", worker))
    }
    space.apply(claim, *pods.values())
    space.ready(*pods)
    volume = space.cluster.cloud.disks.volume(space.volume_of("data"))
    assert len(volume.attached_server_ids) == 2
    space.python("here", _RAW_WRITE)
    assert space.python("there", _RAW_READ) == "moyai"
    # one that leaves takes nothing from the other
    space.end("here")
    until("one has let go", lambda: len(space.cluster.cloud.disks.volume(volume.id).attached_server_ids) == 1, within=60)
    assert space.python("there", _RAW_READ) == "moyai"


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_a_claim_grows_at_once_or_with_its_next_pod(space: Space, kind: str) -> None:
    space.own_class(parameters={"csi.storage.k8s.io/fstype": kind})
    # a pod that is given no time at all is gone before the kubelet has let go of its disk
    pod = space.pod("first", terminationGracePeriodSeconds=1)
    space.apply(space.claim("data", storageClassName=space.name), pod)
    space.ready("first")
    assert space.python("first", _KIND) == kind
    space.store("first", "kept")
    patch = {"spec": {"resources": {"requests": {"storage": "2Gi"}}}}
    space.kubectl("patch", "pvc", "data", "-p", json.dumps(patch))
    volumes, identity = space.cluster.cloud.disks, space.volume_of("data")
    until("the disk is larger", lambda: volumes.volume(identity).size_gb == 2, within=60)

    def status() -> Any:
        return space.get("pvc", "data")["status"]

    def told() -> str:
        return next((one["message"] for one in status().get("conditions", []) if one["type"] == "NodeResizeError"), "")

    def pending() -> bool:
        found = status()
        kinds = {one["type"] for one in found.get("conditions", [])}
        return found["capacity"]["storage"] == "2Gi" or "FileSystemResizePending" in kinds

    until("it is the node's turn", pending, within=60)
    # a kubelet looks at once at a pod that changes, else within a minute and a half
    space.kubectl("annotate", "pod", "first", "looked=at")
    until("the claim says how it stands", lambda: status()["capacity"]["storage"] == "2Gi" or told(), within=60)
    if message := told():
        assert "delete the pod, so that it is restarted" in message
        space.end("first")
        space.apply(pod)
        space.ready("first")
    assert int(space.python("first", _SIZE)) > 1.8 * GIB
    assert space.load("first") == "kept"
    until("the claim has grown", lambda: status()["capacity"]["storage"] == "2Gi", within=60)
    until("nothing is left to be said", lambda: not told(), within=60)


def test_snapshot_restore_and_clone(space: Space) -> None:
    space.apply(space.claim("data"), space.pod("source"))
    space.ready("source")
    space.store("source", "before")
    snapshot = {
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshot",
        "metadata": space.meta("moment"),
        "spec": {"volumeSnapshotClassName": NAMES.default_class, "source": {"persistentVolumeClaimName": "data"}},
    }
    space.apply(snapshot)
    space.kubectl("wait", "volumesnapshot/moment", "--for=jsonpath={.status.readyToUse}=true", "--timeout=120s", timeout=140)
    space.store("source", "after")
    space.end("source")
    source = {"name": "moment", "kind": "VolumeSnapshot", "apiGroup": "snapshot.storage.k8s.io"}
    clone = {"name": "data", "kind": "PersistentVolumeClaim"}
    space.apply(
        space.claim("restored", dataSource=source),
        space.claim("cloned", dataSource=clone),
        *(space.pod(name, name) for name in ("restored", "cloned")),
    )
    space.ready("restored", "cloned")
    assert (space.load("restored"), space.load("cloned")) == ("before", "after")
    # a disk with a snapshot is not deleted and reports the reason; it is deleted after the snapshot
    volume, identity = space.get("pvc", "data")["spec"]["volumeName"], space.volume_of("data")
    space.kubectl("delete", "pvc", "data")

    def why() -> str:
        events = space.cluster.get("events", "-A", f"--field-selector=involvedObject.name={volume}")["items"]
        return " ".join(one["message"] for one in events if one["reason"] == "VolumeFailedDelete")

    until("the claim's disk says why it stays", lambda: "delete the VolumeSnapshots first" in why(), within=60)
    space.kubectl("delete", "volumesnapshot", "moment")
    volumes = space.cluster.cloud.disks
    until("then it goes", lambda: identity not in {one.id for one in volumes.volumes()}, within=90)


def test_fifty_claims_at_once(space: Space) -> None:
    names = [f"data-{number}" for number in range(CLAIMS)]
    # bound at once: fifty volumes, without fifty pods on a small machine
    space.own_class(volumeBindingMode="Immediate")
    space.apply(*(space.claim(name, storageClassName=space.name) for name in names))
    space.kubectl("wait", "pvc", "--all", "--for=jsonpath={.status.phase}=Bound", "--timeout=300s", timeout=320)
    claimed = {one["spec"]["volumeName"] for one in space.get("pvc")["items"]}
    pvs = space.cluster.get("pv")["items"]
    found = {one["spec"]["csi"]["volumeHandle"] for one in pvs if one["metadata"]["name"] in claimed}
    volumes = space.cluster.cloud.disks
    mine = [one for one in volumes.volumes(metadata={"moyai.cluster": space.cluster.uid}) if one.name in claimed]
    assert {one.id for one in mine} == found
    assert len(mine) == CLAIMS
    space.kubectl("delete", "pvc", "--all", "--timeout=300s", timeout=320)
    until("all are gone", lambda: not found & {one.id for one in volumes.volumes()}, within=180)


@pytest.mark.parametrize("part", [NAMES.controller, NAMES.node])
def test_killed_between_calls_it_goes_on_and_makes_nothing_twice(space: Space, part: str) -> None:
    names = [f"data-{number}" for number in range(3)]
    space.apply(*(space.claim(name) for name in names), *(space.pod(name, name) for name in names))
    # in the middle of making, attaching and mounting
    for _ in range(2):
        words = ("delete", "pod", "-n", manifests.NAMESPACE, "-l", f"app={part}", "--grace-period=0", "--force")
        space.cluster.kubectl(*words)
    space.ready(*names, seconds=240)
    found = space.cluster.cloud.disks.volumes(metadata={"moyai.cluster": space.cluster.uid})
    wanted = [one["spec"]["volumeName"] for one in space.get("pvc")["items"]]
    assert sorted(one.name for one in found if one.name in wanted) == sorted(wanted)
    assert len(wanted) == len(names)
