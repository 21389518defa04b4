"""What users ask of claims, right and wrong: copies of live disks for many readers, mount options, zones, sizes, other types.

A wrong demand is answered by an event of the claim or pod that names the demand and what would be right.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from moyai.cloud.model import DiskState
from moyai.cloud.openstack import ADAPTER
from tests.e2e.disks import until
from tests.e2e.space import SHARED_TYPE, Space

NAMES = ADAPTER.volume_names
STANDARD_ZONE = "topology.kubernetes.io/zone"
_WRITE = "import os; f = open('/data/word', 'w'); f.write('hello'); f.flush(); os.fsync(f.fileno())"
_OPTIONS = "print(next(line.split()[3] for line in open('/proc/mounts') if line.split()[1] == '/data'))"


def snapshot(space: Space, name: str, *, claim: str) -> dict[str, Any]:
    return {
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshot",
        "metadata": space.meta(name),
        "spec": {"volumeSnapshotClassName": NAMES.default_class, "source": {"persistentVolumeClaimName": claim}},
    }


def of_snapshot(name: str) -> dict[str, str]:
    return {"name": name, "kind": "VolumeSnapshot", "apiGroup": "snapshot.storage.k8s.io"}


def told(space: Space, about: str, *, words: str, within: float = 90) -> str:
    """The message of an event of this object that has the words."""

    def find() -> str:
        events = space.get("events", f"--field-selector=involvedObject.name={about}")["items"]
        return next((one["message"] for one in events if words in one["message"]), "")

    return until(f"an event of {about} says {words!r}", find, within=within)


def two_nodes_of_one_zone(space: Space) -> dict[str, dict[str, Any]]:
    """For pods on two machines that reach the same disk; the control plane may be one of them."""
    nodes = [one["metadata"] for one in space.cluster.get("nodes")["items"]]
    zones = {one["name"]: one["labels"][STANDARD_ZONE] for one in nodes}
    plane = next(one["name"] for one in nodes if "node-role.kubernetes.io/control-plane" in one["labels"])
    worker = next(name for name, zone in zones.items() if zone == zones[plane] and name != plane)
    anywhere = [{"operator": "Exists"}]
    return {
        pod: {"nodeSelector": {"kubernetes.io/hostname": node}, "tolerations": anywhere}
        for pod, node in (("here", plane), ("there", worker))
    }


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_readers_of_a_snapshot_of_a_live_disk_see_all_that_was_synced(space: Space, kind: str) -> None:
    space.own_class(parameters={"type": SHARED_TYPE, "csi.storage.k8s.io/fstype": kind})
    places = two_nodes_of_one_zone(space)
    space.apply(space.claim("source", storageClassName=space.name), space.pod("writer", "source", **places["there"]))
    space.ready("writer")
    space.python("writer", _WRITE)
    space.apply(snapshot(space, "live", claim="source"))
    space.kubectl("wait", "volumesnapshot/live", "--for=jsonpath={.status.readyToUse}=true", "--timeout=120s", timeout=140)
    many: dict[str, Any] = {"storageClassName": space.name, "accessModes": ["ReadOnlyMany"], "dataSource": of_snapshot("live")}
    pods = [space.pod(name, "readers", **where) for name, where in places.items()]
    for pod in pods:
        pod["spec"]["volumes"][0]["persistentVolumeClaim"]["readOnly"] = True
    # both at once: one machine replays the journal, and neither writes while the other reads
    space.apply(space.claim("readers", **many), *pods)
    space.ready(*places)
    assert [space.load(name) for name in places] == ["hello", "hello"]
    assert all("ro" in space.python(name, _OPTIONS).split(",") for name in places)
    assert space.python("writer", "print(open('/data/word').read())") == "hello"


@pytest.mark.long
def test_a_wrong_mount_option_is_named_with_its_class(space: Space) -> None:
    space.own_class(mountOptions=["noatime", "notaime"])
    space.apply(space.claim("data", storageClassName=space.name), space.pod("pod"))
    said = told(space, "pod", words="notaime", within=150)
    assert "ext4 refuses a mount option: 'notaime' (Unknown parameter 'notaime')" in said
    assert "mountOptions of the PersistentVolume, which has them from its StorageClass" in said
    volume = space.get("pvc", "data")["spec"]["volumeName"]
    space.cluster.kubectl("patch", "pv", volume, "-p", json.dumps({"spec": {"mountOptions": ["noatime"]}}))
    # What the message advises is enough. The kubelet reads the volume again once its wait of 2 min 3 s for the pod's mounts is
    # over, and tries again after a pause of up to 2 min 2 s.
    space.ready("pod", seconds=360)
    assert "noatime" in space.python("pod", _OPTIONS)


@pytest.mark.parametrize("key", [STANDARD_ZONE, NAMES.zone_key])
def test_a_class_allows_zones_by_the_standard_key_and_by_the_driver_s_own(space: Space, key: str) -> None:
    nodes = [one["metadata"]["labels"] for one in space.cluster.get("nodes")["items"]]
    zone = next(one[STANDARD_ZONE] for one in nodes if "node-role.kubernetes.io/control-plane" not in one)
    space.own_class(allowedTopologies=[{"matchLabelExpressions": [{"key": key, "values": [zone]}]}])
    space.apply(space.claim("data", storageClassName=space.name), space.pod("pod"))
    space.ready("pod")
    volume = space.cluster.get("pv", space.get("pvc", "data")["spec"]["volumeName"])
    terms = volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]
    assert terms == [{"matchExpressions": [{"key": NAMES.zone_key, "operator": "In", "values": [zone]}]}]
    assert space.cluster.cloud.disks.volume(space.volume_of("data")).zone == zone


def test_a_claim_that_is_smaller_than_its_source_says_what_to_ask_for(space: Space) -> None:
    space.apply(
        space.claim("data", size="100Mi"), space.claim("large", size="2Gi"), space.pod("pod"), space.pod("other", "large")
    )
    space.ready("pod", "other")
    space.apply(snapshot(space, "moment", claim="data"))
    space.kubectl("wait", "volumesnapshot/moment", "--for=jsonpath={.status.readyToUse}=true", "--timeout=120s", timeout=140)
    space.apply(
        space.claim("restored", size="100Mi", dataSource=of_snapshot("moment")),
        space.claim("cloned", size="1Gi", dataSource={"name": "large", "kind": "PersistentVolumeClaim"}),
        space.pod("restored", "restored"),
        space.pod("cloned", "cloned"),
    )
    assert "the claim asks for 100Mi and its source has 1Gi" in told(
        space, "restored", words="spec.resources.requests.storage: 1Gi"
    )
    assert "the claim asks for 1Gi and its source has 2Gi" in told(
        space, "cloned", words="spec.resources.requests.storage: 2Gi"
    )


def test_a_volume_attributes_class_changes_the_volume_type(space: Space) -> None:
    attributes = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "VolumeAttributesClass",
        "metadata": {"name": space.name},
        "driverName": NAMES.driver,
        "parameters": {"type": SHARED_TYPE},
    }
    space.apply(attributes, space.claim("data"), space.pod("pod"))
    try:
        space.ready("pod")
        space.store("pod", "kept")
        volumes, identity = space.cluster.cloud.disks, space.volume_of("data")
        change = {"spec": {"volumeAttributesClassName": space.name}}
        space.kubectl("patch", "pvc", "data", "-p", json.dumps(change))
        # this type cannot be had by a disk in use: the cloud says so, and the claim shows it
        assert "only allowed on available volumes" in told(space, "data", words="multiattach")
        space.end("pod")
        until("the disk is free", lambda: volumes.volume(identity).state is DiskState.AVAILABLE, within=60)
        until("it has the type", lambda: volumes.volume(identity).type_name == SHARED_TYPE, within=120)
        until(
            "the claim says so",
            lambda: space.get("pvc", "data")["status"].get("currentVolumeAttributesClassName") == space.name,
            within=60,
        )
        space.apply(space.pod("again"))
        space.ready("again")
        assert space.load("again") == "kept"
        # a claim may have one from the start
        space.apply(space.claim("new", volumeAttributesClassName=space.name), space.pod("new", "new"))
        space.ready("new")
        assert volumes.volume(space.volume_of("new")).type_name == SHARED_TYPE
    finally:
        space.kubectl("delete", "pod", "--all", "--timeout=120s", timeout=140)
        space.kubectl("delete", "pvc", "--all", "--timeout=120s", timeout=140)
        space.cluster.kubectl("delete", "volumeattributesclass", space.name)
