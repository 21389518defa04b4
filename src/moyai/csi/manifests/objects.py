"""Options of the driver's manifests, and the names that several of its objects share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

NAMESPACE = "kube-system"
CONTROLLER = "csi-cinder-controllerplugin"
NODE = "csi-cinder-nodeplugin"
SNAPSHOT_CONTROLLER = "snapshot-controller"
#: The default StorageClass, and the default VolumeSnapshotClass.
CLASS = "csi-cinder"
SECRET = "csi-cinder-cloud-config"
CONTROLLER_ACCOUNT, NODE_ACCOUNT = "csi-cinder-controller-sa", "csi-cinder-node-sa"
#: Short names of the images that are used beside moyai's own.
SIDECARS = ("csi-attacher", "csi-provisioner", "csi-resizer", "csi-snapshotter", "snapshot-controller")


@dataclass(frozen=True)
class CsiManifestOptions:
    """``cloud_conf``: the driver's configuration file, with its secret. ``image``: the moyai OCI image.

    ``images``: short name → reference, for each of ``SIDECARS``; all are present in the node's store. ``api_server``:
    ``host:port`` of an API server address on the node network, with which the sidecars need not wait for kube-proxy (empty: by
    the Service's address). ``reclaim_policy``: of the default classes, and so of the volumes of these classes.
    """

    cluster_name: str
    cloud_conf: str = field(repr=False)
    image: str
    images: Mapping[str, str]
    api_server: str = ""
    reclaim_policy: Literal["Delete", "Retain"] = "Delete"
    replicas: int = 1
    pull_policy: str = "IfNotPresent"
    log_level: str = "info"


def meta(name: str, *, namespaced: bool = True, annotations: Mapping[str, str] | None = None) -> dict[str, Any]:
    meta: dict[str, Any] = {"name": name}
    if namespaced:
        meta["namespace"] = NAMESPACE
    meta["labels"] = {"app.kubernetes.io/name": "csi-cinder", "app.kubernetes.io/managed-by": "moyai"}
    return {**meta, "annotations": dict(annotations)} if annotations else meta
