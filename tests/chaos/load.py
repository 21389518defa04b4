"""Services and claims in a cluster, by the dozen: made, waited for, taken away; and the pods that work on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.chaos.site import Place

#: The parts of the control plane that talk to the cloud, by a part of their pods' names.
CONTROLLERS = ("moyai-cloud-controller-manager", "controllerplugin")
#: Where the quickstart's web server is, which all Services lead to.
NAMESPACE = "default"
_CLASS, _DEFAULT = "chaos", "storageclass.kubernetes.io/is-default-class"


class Load:
    """``services`` and ``claims``: how many of each; ``name`` tells several loads apart."""

    def __init__(self, place: Place, folder: Path, *, name: str, services: int, claims: int) -> None:
        self.place, self.name, self._file = place, name, folder / f"{name}.json"
        self.services, self.claims = services, claims
        items = [self._service(number) for number in range(services)] + [self._claim(number) for number in range(claims)]
        self._file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))

    def make(self) -> None:
        self.place.cluster.kubectl("apply", "-f", str(self._file))

    def delete(self) -> None:
        """Ask for it; what hangs on it goes later."""
        self.place.cluster.kubectl("delete", "-f", str(self._file), "--wait=false")

    def addresses(self) -> dict[str, str]:
        """Service → its address, of those that have one."""
        found: dict[str, str] = {}
        for one in self._get("services"):
            ingress = one["status"].get("loadBalancer", {}).get("ingress", [])
            if ingress:
                found[one["metadata"]["name"]] = ingress[0]["ip"]
        return found

    def bound(self) -> dict[str, str]:
        """Claim → its volume, of those that have one."""
        return {
            one["metadata"]["name"]: one["spec"]["volumeName"]
            for one in self._get("persistentvolumeclaims")
            if one["status"].get("phase") == "Bound"
        }

    def left(self) -> list[str]:
        """What Kubernetes still has of it."""
        return [one["metadata"]["name"] for kind in ("services", "persistentvolumeclaims") for one in self._get(kind)]

    def _get(self, kind: str) -> list[dict[str, Any]]:
        text = self.place.cluster.kubectl("-n", NAMESPACE, "get", kind, "-l", f"load={self.name}", "-o", "json")
        found: list[dict[str, Any]] = json.loads(text)["items"]
        return found

    def _meta(self, kind: str, number: int) -> dict[str, Any]:
        return {"name": f"{self.name}-{kind}{number}", "namespace": NAMESPACE, "labels": {"load": self.name}}

    def _service(self, number: int) -> dict[str, Any]:
        spec = {"type": "LoadBalancer", "selector": {"app": "web"}, "ports": [{"port": 80}]}
        return {"apiVersion": "v1", "kind": "Service", "metadata": self._meta("s", number), "spec": spec}

    def _claim(self, number: int) -> dict[str, Any]:
        spec = {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": _CLASS,
            "resources": {"requests": {"storage": "1Gi"}},
        }
        return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": self._meta("c", number), "spec": spec}


def prepare(place: Place) -> None:
    """A class whose claims become volumes at once, without a pod that asks for them."""
    classes = json.loads(place.cluster.kubectl("get", "storageclasses", "-o", "json"))["items"]
    usual = next(one for one in classes if one["metadata"].get("annotations", {}).get(_DEFAULT) == "true")
    immediate = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": _CLASS},
        "provisioner": usual["provisioner"],
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "Immediate",
    }
    apply(place, immediate)


def apply(place: Place, *objects: dict[str, Any]) -> None:
    """Put objects into the cluster."""
    # not in the cluster's own folder, whose files are its manifests
    file = place.cluster.folder.with_name("objects.json")
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))
    place.cluster.kubectl("apply", "-f", str(file))


def controllers(place: Place) -> dict[str, list[str]]:
    """The running pods of each of ``CONTROLLERS``."""
    text = place.cluster.kubectl("-n", "kube-system", "get", "pods", "-o", "jsonpath={.items[*].metadata.name}")
    return {part: [name for name in text.split() if part in name] for part in CONTROLLERS}


def kill_controllers(place: Place) -> None:
    """End the pods that lead at once, without a word to them."""
    for pods in controllers(place).values():
        place.cluster.kubectl("-n", "kube-system", "delete", "pod", *pods, "--force", "--grace-period=0", "--wait=false")
