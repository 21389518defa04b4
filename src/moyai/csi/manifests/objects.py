"""Options of the driver's manifests, and what several of its objects share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from moyai.cloud.kind import VolumeNames
from moyai.kube.resources import KUBE_SYSTEM

NAMESPACE = KUBE_SYSTEM
SNAPSHOT_CONTROLLER = "snapshot-controller"
#: Short names of the images that are used beside moyai's own.
SIDECARS = ("csi-attacher", "csi-provisioner", "csi-resizer", "csi-snapshotter", "snapshot-controller")


@dataclass(frozen=True)
class CsiManifestOptions:
    """``names``: the driver's. ``provider_args``: by ``cloud.factory``. ``guest_folders``: the adapter's.
    ``cloud_conf``: the driver's configuration file, with its secret. ``image``: the moyai OCI image.

    ``images``: short name → reference, for each of ``SIDECARS``; all are present in the node's store. ``api_server``:
    ``host:port`` of an API server address on the node network, with which the sidecars need not wait for kube-proxy (empty: by
    the Service's address). ``login_files`` (name → content) and ``environment`` (variables): what the driver needs beside that
    file to reach the cloud; they are in the same Secret. ``reclaim_policy``: of the default classes, and so of the volumes of
    these classes. ``snapshots``: whether the cloud has any; without them, none of their controllers run.
    """

    cluster_name: str
    names: VolumeNames
    cloud_conf: str = field(repr=False)
    image: str
    images: Mapping[str, str]
    api_server: str = ""
    reclaim_policy: Literal["Delete", "Retain"] = "Delete"
    replicas: int = 1
    elected: bool = False
    pull_policy: str = "IfNotPresent"
    log_level: str = "info"
    provider_args: tuple[str, ...] = ()
    guest_folders: tuple[str, ...] = ()
    snapshots: bool = True
    login_files: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    environment: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)

    @property
    def controller_account(self) -> str:
        return f"{self.names.objects}-controller-sa"

    @property
    def node_account(self) -> str:
        return f"{self.names.objects}-node-sa"


def meta(
    names: VolumeNames, name: str, *, namespaced: bool = True, annotations: Mapping[str, str] | None = None
) -> dict[str, Any]:
    meta: dict[str, Any] = {"name": name}
    if namespaced:
        meta["namespace"] = NAMESPACE
    meta["labels"] = {"app.kubernetes.io/name": names.objects, "app.kubernetes.io/managed-by": "moyai"}
    return {**meta, "annotations": dict(annotations)} if annotations else meta
