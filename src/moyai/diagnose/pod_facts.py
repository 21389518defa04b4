"""What a diagnosis looks at and what it answers: facts of one pod and of all that it needs to run.

Always holds: frozen and complete. ``diagnose.gather`` fills them from the API, ``diagnose.pods`` reads nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from moyai.diagnose.placement import CandidateNode, Disk
from moyai.kube.objects import ObjectEvent, Pod, StorageClass, VolumeAttachment
from moyai.kube.objects.scheduling import PodRequirements


@dataclass(frozen=True)
class ClaimFacts:
    """``found``: whether there is such a claim. ``storage``: its StorageClass, None when there is none of that name."""

    name: str
    found: bool = True
    phase: str = ""
    volume: str = ""
    class_name: str = ""
    storage: StorageClass | None = None
    exclusive: bool = True
    events: tuple[ObjectEvent, ...] = ()


@dataclass(frozen=True)
class CloudDisk:
    """What the cloud says of a disk. ``handle``: its id there. ``found``: whether there is such a disk. ``status``: the cloud's
    own word. ``machines``: names of those that have it, as the cloud calls them."""

    handle: str
    found: bool = True
    status: str = ""
    broken: bool = False
    machines: tuple[str, ...] = ()


@dataclass(frozen=True)
class MissingNode:
    """A worker that the cluster has a place for, and no Node object."""

    name: str
    zone: str


@dataclass(frozen=True)
class PoolFacts:
    """``zones``: those its nodes take turns in, in order; empty when not known."""

    name: str
    replicas: int
    zones: tuple[str, ...] = ()


@dataclass(frozen=True)
class Facts:
    """Everything that is looked at. ``disks``: of the pod's bound claims. ``attachments``: of these disks.
    ``classes``: names of all StorageClasses. ``cloud_disks``: by volume; empty where the cloud was not asked or did not answer.
    """

    pod: Pod
    requirements: PodRequirements = field(default_factory=PodRequirements)
    claims: tuple[ClaimFacts, ...] = ()
    disks: tuple[Disk, ...] = ()
    nodes: tuple[CandidateNode, ...] = ()
    attachments: tuple[VolumeAttachment, ...] = ()
    pools: tuple[PoolFacts, ...] = ()
    missing: tuple[MissingNode, ...] = ()
    cloud_disks: Mapping[str, CloudDisk] = field(default_factory=dict[str, CloudDisk])
    classes: tuple[str, ...] = ()
    default_class: str = ""
    events: tuple[ObjectEvent, ...] = ()


@dataclass(frozen=True)
class NodeVerdict:
    """``why``: what keeps the pod from it; empty when nothing known does."""

    name: str
    zone: str
    why: tuple[str, ...]


@dataclass(frozen=True)
class Explanation:
    """``cause``: a word for programs. ``summary``: the sentence. ``help``: what would help, most likely first."""

    pod: str
    state: str
    cause: str
    summary: str
    help: tuple[str, ...] = ()
    volume: str = ""
    zone: str = ""
    nodes: tuple[NodeVerdict, ...] = ()
    events: tuple[ObjectEvent, ...] = ()


def several(names: list[str]) -> str:
    """The first of them, and how many more there are."""
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
