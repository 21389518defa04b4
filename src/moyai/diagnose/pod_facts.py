"""What ``plan.explain`` looks at, and what it answers: facts of one pod and of all that it needs to run."""

from __future__ import annotations

from dataclasses import dataclass, field

from moyai.diagnose.placement import Disk, NodeFacts, Wish


@dataclass(frozen=True)
class EventFacts:
    """``time``: as the API has it, for users to read."""

    kind: str
    reason: str
    message: str
    time: str = ""


@dataclass(frozen=True)
class ContainerFacts:
    """``waiting``, ``ended``: the reason that the kubelet gives, empty when it is not so."""

    name: str
    image: str = ""
    waiting: str = ""
    ended: str = ""
    message: str = ""
    ready: bool = False
    restarts: int = 0


@dataclass(frozen=True)
class ClassFacts:
    """A StorageClass. ``waits``: volumes are made where the first pod is placed."""

    name: str
    provisioner: str
    waits: bool = False


@dataclass(frozen=True)
class AttachmentFacts:
    """A VolumeAttachment of one of the pod's volumes."""

    volume: str
    node: str
    attached: bool
    error: str = ""
    leaving: bool = False


@dataclass(frozen=True)
class ClaimFacts:
    """``found``: whether there is such a claim. ``storage``: its StorageClass, None when there is none of that name."""

    name: str
    found: bool = True
    phase: str = ""
    volume: str = ""
    class_name: str = ""
    storage: ClassFacts | None = None
    exclusive: bool = True
    events: tuple[EventFacts, ...] = ()


@dataclass(frozen=True)
class PodFacts:
    namespace: str
    name: str
    phase: str
    node: str = ""
    reason: str = ""
    message: str = ""
    ready: bool = False
    leaving: bool = False
    gates: tuple[str, ...] = ()
    scheduler: str = ""
    containers: tuple[ContainerFacts, ...] = ()


@dataclass(frozen=True)
class PoolFacts:
    """``zones``: those its nodes take turns in, in order; empty when not known."""

    name: str
    replicas: int
    zones: tuple[str, ...] = ()


@dataclass(frozen=True)
class Facts:
    """Everything that is looked at. ``disks``: of the pod's bound claims. ``classes``: names of all StorageClasses."""

    pod: PodFacts
    wish: Wish = field(default_factory=Wish)
    claims: tuple[ClaimFacts, ...] = ()
    disks: tuple[Disk, ...] = ()
    nodes: tuple[NodeFacts, ...] = ()
    attachments: tuple[AttachmentFacts, ...] = ()
    pools: tuple[PoolFacts, ...] = ()
    classes: tuple[str, ...] = ()
    default_class: str = ""
    events: tuple[EventFacts, ...] = ()


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
    events: tuple[EventFacts, ...] = ()
