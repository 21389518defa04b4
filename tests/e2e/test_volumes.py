"""Claims on a real cluster: disks that outlive pods, a user's own disk, raw, larger, snapshots, clones, fifty at once, crashes.

The pods run Python of moyai's own image, which every node holds; each test has a namespace of its own.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Generator
from typing import Any

import pytest

from moyai.csi import manifests
from moyai.csi.names import DRIVER, ZONE_KEY
from moyai.images.references import MOYAI
from tests.e2e.conftest import SharedCluster
from tests.e2e.disks import until

CLAIMS = 50
GIB = 1 << 30
#: Size of what stands at a path: a file system, or a raw disk.
_SIZE = "import os; s = os.statvfs('/data'); print(s.f_blocks * s.f_frsize)"
_RAW_SIZE = "import os; print(os.lseek(os.open('/dev/raw', os.O_RDONLY), 0, 2))"


class Space:
    def __init__(self, cluster: SharedCluster) -> None:
        self.cluster = cluster
        self.name = f"vol-{secrets.token_hex(3)}"
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.name}})

    def apply(self, *objects: dict[str, Any]) -> None:
        items = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        self.cluster.kubectl("apply", "-f", "-", stdin=items)

    def claim(self, name: str, *, size: str = "1Gi", **spec: Any) -> None:
        wanted = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}, **spec}
        meta = {"name": name, "namespace": self.name}
        self.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": wanted})

    def pod(self, name: str, claim: str, *, raw: bool = False) -> None:
        place = {"name": "data", "devicePath": "/dev/raw"} if raw else {"name": "data", "mountPath": "/data"}
        container = {
            "name": "python",
            "image": MOYAI,
            "imagePullPolicy": "Never",
            "command": ["python3", "-c", "import time; time.sleep(100000)"],
            "securityContext": {"runAsUser": 0},
            "volumeDevices" if raw else "volumeMounts": [place],
        }
        volume = {"name": "data", "persistentVolumeClaim": {"claimName": claim}}
        spec = {"containers": [container], "volumes": [volume], "terminationGracePeriodSeconds": 0}
        self.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": self.name}, "spec": spec})

    def ready(self, name: str, *, seconds: int = 180) -> None:
        self.kubectl("wait", f"pod/{name}", "--for=condition=Ready", f"--timeout={seconds}s", timeout=seconds + 20)

    def end(self, *pods: str) -> None:
        self.kubectl("delete", "pod", *pods, "--timeout=120s", timeout=140)

    def python(self, pod: str, code: str) -> str:
        return self.kubectl("exec", pod, "--", "python3", "-c", code).strip()

    def kubectl(self, *words: str, timeout: float = 120) -> str:
        return self.cluster.kubectl("-n", self.name, *words, timeout=timeout)

    def store(self, pod: str, text: str) -> None:
        self.python(pod, f"import os; f = open('/data/word', 'w'); f.write({text!r}); f.flush(); os.fsync(f.fileno())")

    def load(self, pod: str) -> str:
        return self.python(pod, "print(open('/data/word').read())")

    def volume_of(self, claim: str) -> str:
        """The cloud's id of a claim's volume."""
        name = self.cluster.get("-n", self.name, "pvc", claim)["spec"]["volumeName"]
        return str(self.cluster.get("pv", name)["spec"]["csi"]["volumeHandle"])


@pytest.fixture
def space(shared: SharedCluster) -> Generator[Space]:
    made = Space(shared)
    yield made
    shared.kubectl("delete", "namespace", made.name, "--timeout=300s", timeout=320)


def test_what_is_written_outlives_the_pod_and_goes_with_the_claim(space: Space) -> None:
    space.claim("data")
    space.pod("first", "data")
    space.ready("first")
    space.store("first", "kept")
    space.end("first")
    space.pod("second", "data")
    space.ready("second")
    assert space.load("second") == "kept"
    volumes, identity = space.cluster.cloud.volumes, space.volume_of("data")
    assert volumes.volume(identity).metadata["moyai.cluster"] == space.cluster.uid
    space.end("second")
    space.kubectl("delete", "pvc", "data")
    until("the volume is gone", lambda: identity not in {one.id for one in volumes.volumes()}, 60)


def test_a_disk_that_was_there_before_is_used_and_left_as_it_is(space: Space) -> None:
    volumes = space.cluster.cloud.volumes
    disk = volumes.create_volume(name=f"precious-{space.name}", size_gb=1, zone="az1", metadata={})
    until("the disk is there", lambda: volumes.volume(disk.id).status == "AVAILABLE", 60)
    term = {"matchExpressions": [{"key": ZONE_KEY, "operator": "In", "values": ["az1"]}]}
    pv = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"precious-{space.name}"},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "",
            "csi": {"driver": DRIVER, "volumeHandle": disk.id, "fsType": "ext4"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}},
        },
    }
    try:
        for number in range(2):
            space.apply(pv)
            space.claim("data", storageClassName="", volumeName=f"precious-{space.name}")
            space.pod(f"pod-{number}", "data")
            space.ready(f"pod-{number}")
            if number == 0:
                space.store("pod-0", "precious")
            else:
                assert space.load("pod-1") == "precious"
            space.end(f"pod-{number}")
            space.kubectl("delete", "pvc/data", f"pv/precious-{space.name}")
        until("it is free", lambda: volumes.volume(disk.id).status == "AVAILABLE", 60)
    finally:
        volumes.delete_volume(disk.id)


def test_a_raw_disk(space: Space) -> None:
    space.claim("raw", volumeMode="Block")
    space.pod("raw", "raw", raw=True)
    space.ready("raw")
    assert int(space.python("raw", _RAW_SIZE)) == GIB
    space.python("raw", "import os; f = os.open('/dev/raw', os.O_WRONLY | os.O_SYNC); os.write(f, b'moyai' + bytes(507))")
    space.end("raw")
    space.pod("again", "raw", raw=True)
    space.ready("again")
    assert space.python("again", "print(open('/dev/raw', 'rb').read(5).decode())") == "moyai"


def test_a_claim_grows_at_once_or_with_its_next_pod(space: Space) -> None:
    space.claim("data")
    space.pod("first", "data")
    space.ready("first")
    space.store("first", "kept")
    patch = {"spec": {"resources": {"requests": {"storage": "2Gi"}}}}
    space.kubectl("patch", "pvc", "data", "-p", json.dumps(patch))
    volumes, identity = space.cluster.cloud.volumes, space.volume_of("data")
    until("the disk is larger", lambda: volumes.volume(identity).size_gb == 2, 60)

    def grown_or_told() -> bool:
        status = space.cluster.get("-n", space.name, "pvc", "data")["status"]
        told = {one["type"] for one in status.get("conditions", [])}
        return status["capacity"]["storage"] == "2Gi" or bool(told & {"NodeResizeError", "FileSystemResizePending"})

    until("the claim says how it stands", grown_or_told, 90)
    space.end("first")
    space.pod("second", "data")
    space.ready("second")
    assert int(space.python("second", _SIZE)) > 1.8 * GIB
    assert space.load("second") == "kept"


def test_snapshot_restore_and_clone(space: Space) -> None:
    space.claim("data")
    space.pod("source", "data")
    space.ready("source")
    space.store("source", "before")
    snapshot = {
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshot",
        "metadata": {"name": "moment", "namespace": space.name},
        "spec": {"volumeSnapshotClassName": manifests.CLASS, "source": {"persistentVolumeClaimName": "data"}},
    }
    space.apply(snapshot)
    space.kubectl("wait", "volumesnapshot/moment", "--for=jsonpath={.status.readyToUse}=true", "--timeout=120s", timeout=140)
    space.store("source", "after")
    space.end("source")
    source = {"name": "moment", "kind": "VolumeSnapshot", "apiGroup": "snapshot.storage.k8s.io"}
    space.claim("restored", dataSource=source)
    space.claim("cloned", dataSource={"name": "data", "kind": "PersistentVolumeClaim"})
    for name in ("restored", "cloned"):
        space.pod(name, name)
    for name, word in (("restored", "before"), ("cloned", "after")):
        space.ready(name)
        assert space.load(name) == word


def test_fifty_claims_at_once(space: Space) -> None:
    names = [f"data-{number}" for number in range(CLAIMS)]
    # bound at once: fifty volumes, without fifty pods on a small machine
    immediate = {**manifests.storage_class("Delete"), "metadata": {"name": space.name}, "volumeBindingMode": "Immediate"}
    space.apply(immediate)
    try:
        claims = [
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": name, "namespace": space.name},
                "spec": {
                    "storageClassName": space.name,
                    "accessModes": ["ReadWriteOnce"],
                    "resources": {"requests": {"storage": "1Gi"}},
                },
            }
            for name in names
        ]
        space.apply(*claims)
        space.kubectl("wait", "pvc", "--all", "--for=jsonpath={.status.phase}=Bound", "--timeout=300s", timeout=320)
        found = {space.volume_of(name) for name in names}
        assert len(found) == CLAIMS
        mine = {one.id for one in space.cluster.cloud.volumes.volumes(metadata={"moyai.cluster": space.cluster.uid})}
        assert found <= mine
        space.kubectl("delete", "pvc", "--all", "--timeout=300s", timeout=320)
        volumes = space.cluster.cloud.volumes
        until("all are gone", lambda: not found & {one.id for one in volumes.volumes()}, 180)
    finally:
        space.cluster.kubectl("delete", "storageclass", space.name)


@pytest.mark.parametrize("part", [manifests.CONTROLLER, manifests.NODE])
def test_killed_between_calls_it_goes_on_and_makes_nothing_twice(space: Space, part: str) -> None:
    names = [f"data-{number}" for number in range(3)]
    for name in names:
        space.claim(name)
        space.pod(name, name)
    # in the middle of making, attaching and mounting
    for _ in range(2):
        words = ("delete", "pod", "-n", manifests.NAMESPACE, "-l", f"app={part}", "--grace-period=0", "--force")
        space.cluster.kubectl(*words)
    for name in names:
        space.ready(name, seconds=240)
    found = space.cluster.cloud.volumes.volumes(metadata={"moyai.cluster": space.cluster.uid})
    wanted = {space.cluster.get("-n", space.name, "pvc", name)["spec"]["volumeName"] for name in names}
    assert sorted(one.name for one in found if one.name in wanted) == sorted(wanted)
