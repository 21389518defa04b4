"""What a diagnosis looks at and what it answers: facts of one pod and of all that it needs to run.

Always holds: frozen and complete. ``diagnose.gather`` fills them from the API, ``diagnose.pods`` reads nothing else.
"""

from __future__ import annotations

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
class PoolFacts:
    """``zones``: those its nodes take turns in, in order; empty when not known."""

    name: str
    replicas: int
    zones: tuple[str, ...] = ()


@dataclass(frozen=True)
class Facts:
    """Everything that is looked at. ``disks``: of the pod's bound claims. ``attachments``: of these disks.
    ``classes``: names of all StorageClasses."""

    pod: Pod
    requirements: PodRequirements = field(default_factory=PodRequirements)
    claims: tuple[ClaimFacts, ...] = ()
    disks: tuple[Disk, ...] = ()
    nodes: tuple[CandidateNode, ...] = ()
    attachments: tuple[VolumeAttachment, ...] = ()
    pools: tuple[PoolFacts, ...] = ()
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
