"""The CSIDriver object, the default classes and the definitions of snapshots."""

from __future__ import annotations

from importlib import resources
from typing import Any, Literal

from moyai.cloud.kind import VolumeNames
from moyai.csi.manifests.objects import meta


def definitions() -> list[str]:
    """The definitions of the snapshot kinds, each as upstream's own YAML (see the head of the files)."""
    folder = resources.files("moyai.csi") / "crds"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".yaml")), key=lambda file: file.name)
    # as text: reading and writing them as YAML would cost `up` half a second
    return [file.read_text(encoding="utf-8") for file in files]


def storage_class(names: VolumeNames, reclaim_policy: Literal["Delete", "Retain"]) -> dict[str, Any]:
    """The default StorageClass. Its policy cannot be changed in place: a changed one is a new object of the same name."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": _default_class(names, "storageclass.kubernetes.io"),
        "provisioner": names.driver,
        "reclaimPolicy": reclaim_policy,
        "volumeBindingMode": "WaitForFirstConsumer",
        "allowVolumeExpansion": True,
    }


def snapshot_class(names: VolumeNames, deletion_policy: Literal["Delete", "Retain"]) -> dict[str, Any]:
    return {
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshotClass",
        "metadata": _default_class(names, "snapshot.storage.kubernetes.io"),
        "driver": names.driver,
        "deletionPolicy": deletion_policy,
    }


def _default_class(names: VolumeNames, group: str) -> dict[str, Any]:
    return meta(names, names.default_class, namespaced=False, annotations={f"{group}/is-default-class": "true"})


def csi_driver(names: VolumeNames) -> dict[str, Any]:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "CSIDriver",
        "metadata": meta(names, names.driver, namespaced=False),
        "spec": {
            "attachRequired": True,
            "podInfoOnMount": True,
            "fsGroupPolicy": "ReadWriteOnceWithFSType",
            "volumeLifecycleModes": ["Persistent"],
        },
    }
