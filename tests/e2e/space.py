"""A namespace of the shared cluster, and what tests of volumes do in it."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from moyai.cloud.openstack import ADAPTER
from moyai.csi import manifests
from moyai.images.references import MOYAI
from tests.e2e.disks import until

if TYPE_CHECKING:
    from tests.e2e.conftest import SharedCluster

NAMES = ADAPTER.volume_names
#: The local cloud's volume type for disks of several machines.
SHARED_TYPE = "files-multiattach"


class Space:
    """A namespace, and what tests do in it."""

    def __init__(self, cluster: SharedCluster) -> None:
        self.cluster = cluster
        self.name = f"vol-{secrets.token_hex(3)}"
        self.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.name}})

    def apply(self, *objects: dict[str, Any]) -> None:
        items = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})
        self.cluster.kubectl("apply", "-f", "-", stdin=items)

    def meta(self, name: str) -> dict[str, str]:
        return {"name": name, "namespace": self.name}

    def claim(self, name: str, *, size: str = "1Gi", **spec: Any) -> dict[str, Any]:
        wanted = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}, **spec}
        return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": self.meta(name), "spec": wanted}

    def pod(self, name: str, claim: str = "data", *, raw: bool = False, **spec: Any) -> dict[str, Any]:
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
        whole = {"containers": [container], "volumes": [volume], "terminationGracePeriodSeconds": 0, **spec}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": self.meta(name), "spec": whole}

    def own_class(self, **more: Any) -> Mapping[str, Any]:
        """A StorageClass of the namespace's name; it goes with the test."""
        made = {**manifests.storage_class(NAMES, "Delete"), "metadata": {"name": self.name}, **more}
        self.apply(made)
        return made

    def ready(self, *names: str, seconds: int = 180) -> None:
        pods = [f"pod/{name}" for name in names]
        try:
            self.kubectl("wait", *pods, "--for=condition=Ready", f"--timeout={seconds}s", timeout=seconds + 20)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.kubectl('get', 'events', '--sort-by=.lastTimestamp')}") from None

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

    def get(self, *words: str) -> Any:
        return self.cluster.get("-n", self.name, *words)

    def volume_of(self, claim: str) -> str:
        """The cloud's id of a claim's volume."""
        name = self.get("pvc", claim)["spec"]["volumeName"]
        return str(self.cluster.get("pv", name)["spec"]["csi"]["volumeHandle"])


def delete_namespaces(cluster: SharedCluster, names: list[str]) -> None:
    """All at once, and the disks with them."""
    cluster.kubectl("delete", "namespace", *names, "--timeout=300s", timeout=320)
    cluster.kubectl("delete", "storageclass", *names, "--ignore-not-found")

    def left() -> list[str]:
        made = cluster.cloud.disks.volumes(metadata={"moyai.cluster": cluster.uid})
        return [one.name for one in made if one.metadata.get("csi.storage.k8s.io/pvc/namespace", "") in names]

    until("their disks are gone", lambda: not left(), within=120)
