"""The CSIDriver object, the default classes and the definitions of snapshots."""

from __future__ import annotations

from importlib import resources
from typing import Any, Literal

from moyai.csi.manifests.objects import CLASS, meta
from moyai.csi.names import DRIVER


def definitions() -> list[str]:
    """The definitions of the snapshot kinds, each as upstream's own YAML (see the head of the files)."""
    folder = resources.files("moyai.csi") / "crds"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".yaml")), key=lambda file: file.name)
    # as text: reading and writing them as YAML would cost `up` half a second
    return [file.read_text(encoding="utf-8") for file in files]


def storage_class(reclaim_policy: Literal["Delete", "Retain"]) -> dict[str, Any]:
    """The default StorageClass. Its policy cannot be changed in place: a changed one is a new object of the same name."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": meta(CLASS, namespaced=False, annotations={"storageclass.kubernetes.io/is-default-class": "true"}),
        "provisioner": DRIVER,
        "reclaimPolicy": reclaim_policy,
        "volumeBindingMode": "WaitForFirstConsumer",
        "allowVolumeExpansion": True,
    }


def snapshot_class(deletion_policy: Literal["Delete", "Retain"]) -> dict[str, Any]:
    return {
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshotClass",
        "metadata": meta(CLASS, namespaced=False, annotations={"snapshot.storage.kubernetes.io/is-default-class": "true"}),
        "driver": DRIVER,
        "deletionPolicy": deletion_policy,
    }


def csi_driver() -> dict[str, Any]:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "CSIDriver",
        "metadata": meta(DRIVER, namespaced=False),
        "spec": {
            "attachRequired": True,
            "podInfoOnMount": True,
            "fsGroupPolicy": "ReadWriteOnceWithFSType",
            "volumeLifecycleModes": ["Persistent"],
        },
    }
