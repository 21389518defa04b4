"""Volumes, claims, classes, and which disk is at which node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from moyai.kube.objects.meta import deleting, number, part, rows, text, text_map, texts
from moyai.kube.objects.scheduling import Terms, parse_terms
from moyai.kube.resources import Json

_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
_SHARED_MODES = frozenset({"ReadWriteMany", "ReadOnlyMany"})


@dataclass(frozen=True)
class PersistentVolume:
    """``driver``, ``handle``: of a CSI volume, empty for others. ``claim``: (namespace, name) of the claim that it is bound or
    promised to. ``terms``: from which nodes it can be reached."""

    name: str
    driver: str = ""
    handle: str = ""
    claim: tuple[str, str] | None = None
    terms: Terms = ()


@dataclass(frozen=True)
class Claim:
    """``volume``: the name of the PersistentVolume, empty until it has one. ``exclusive``: for one node at a time."""

    namespace: str
    name: str
    uid: str = ""
    phase: str = ""
    volume: str = ""
    class_name: str = ""
    exclusive: bool = True


@dataclass(frozen=True)
class StorageClass:
    """``waits``: volumes are made where the first pod is placed. ``default``: of claims that name no class. ``reclaim_policy``:
    Delete or Retain, for the volumes that it makes."""

    name: str
    provisioner: str = ""
    waits: bool = False
    default: bool = False
    reclaim_policy: str = ""


@dataclass(frozen=True)
class VolumeAttachment:
    """A disk that is, or is to be, at a node. ``attacher``: the CSI driver. ``volume``: the PersistentVolume's name, empty for
    an inline volume. ``error``: why the last try to attach or detach failed."""

    name: str
    volume: str = ""
    node: str = ""
    attacher: str = ""
    attached: bool = False
    error: str = ""
    deleting: bool = False


@dataclass(frozen=True)
class CsiNode:
    """``limits``: CSI driver → how many volumes may be attached to the node, -1 for no limit."""

    name: str
    limits: Mapping[str, int] = field(default_factory=dict[str, int])


def parse_volume(found: Json) -> PersistentVolume:
    spec = part(found, "spec")
    claim, csi = part(spec, "claimRef"), part(spec, "csi")
    return PersistentVolume(
        name=str(part(found, "metadata")["name"]),
        driver=text(csi, "driver"),
        handle=text(csi, "volumeHandle"),
        claim=(text(claim, "namespace"), text(claim, "name")) if claim else None,
        terms=parse_terms(part(spec, "nodeAffinity", "required")),
    )


def parse_claim(found: Json) -> Claim:
    meta, spec = part(found, "metadata"), part(found, "spec")
    return Claim(
        namespace=text(meta, "namespace"),
        name=str(meta["name"]),
        uid=text(meta, "uid"),
        phase=text(part(found, "status"), "phase"),
        volume=text(spec, "volumeName"),
        class_name=text(spec, "storageClassName"),
        exclusive=not _SHARED_MODES.intersection(texts(spec, "accessModes")),
    )


def parse_storage_class(found: Json) -> StorageClass:
    return StorageClass(
        name=str(part(found, "metadata")["name"]),
        provisioner=text(found, "provisioner"),
        waits=found.get("volumeBindingMode") == "WaitForFirstConsumer",
        default=text_map(found, "metadata", "annotations").get(_DEFAULT_CLASS) == "true",
        reclaim_policy=text(found, "reclaimPolicy"),
    )


def parse_attachment(found: Json) -> VolumeAttachment:
    spec, status = part(found, "spec"), part(found, "status")
    return VolumeAttachment(
        name=text(part(found, "metadata"), "name"),
        volume=text(part(spec, "source"), "persistentVolumeName"),
        node=text(spec, "nodeName"),
        attacher=text(spec, "attacher"),
        attached=bool(status.get("attached")),
        error=text(part(status, "attachError") or part(status, "detachError"), "message"),
        deleting=deleting(found),
    )


def parse_csi_node(found: Json) -> CsiNode:
    drivers = rows(part(found, "spec"), "drivers")
    limits = {text(one, "name"): number(part(one, "allocatable"), "count", default=-1) for one in drivers}
    return CsiNode(str(part(found, "metadata")["name"]), limits)
