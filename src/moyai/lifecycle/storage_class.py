"""The default StorageClass of a cluster that runs: its policy is read, and changed by recreating the class."""

from __future__ import annotations

from typing import Literal

from moyai.cloud.kind import VolumeNames
from moyai.core.errors import Conflict, NotFound
from moyai.csi import manifests as csi
from moyai.kube.objects import parse_storage_class
from moyai.kube.quick import KubeApi
from moyai.kube.resources import STORAGE_CLASSES


def reclaim_policy(api: KubeApi, names: VolumeNames) -> str:
    """The policy of the default StorageClass, empty where there is none."""
    try:
        return parse_storage_class(api.get(STORAGE_CLASSES, names.default_class, timeout=3)).reclaim_policy
    except NotFound:
        return ""


def set_reclaim_policy(api: KubeApi, names: VolumeNames, *, policy: Literal["Delete", "Retain"]) -> None:
    """Recreate the class under its name, since a policy cannot be changed in place.

    Volumes and claims that exist keep what they were made with.
    """
    api.delete(STORAGE_CLASSES, names.default_class)
    try:
        api.create(STORAGE_CLASSES, csi.storage_class(names, policy))
    except Conflict:
        return  # somebody else was faster
