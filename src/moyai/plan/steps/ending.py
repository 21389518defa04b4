"""Steps that end a cluster's work through Kubernetes, while its controllers still live, before the cloud is asked to remove any
of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from moyai.core.keys import Key, Kind
from moyai.plan.steps.base import Step, Verb

#: The conditions, as a display shows them.
SERVICES_GONE = Key(Kind.CONDITION, "load balancers of Services gone")
VOLUMES_RELEASED = Key(Kind.CONDITION, "volumes that stay released")


@dataclass(frozen=True, kw_only=True)
class DeleteService(Step):
    """Delete a Service of type LoadBalancer; its controller removes the load balancer."""

    verb: ClassVar[Verb] = Verb.DELETE
    namespace: str
    service: str


@dataclass(frozen=True, kw_only=True)
class WaitServices(Step):
    """``services``: namespace/name of those whose end is waited for. After a time-out the cloud is asked instead."""

    verb: ClassVar[Verb] = Verb.WAIT
    services: tuple[str, ...]

    @property
    def text(self) -> str:
        return "wait until Kubernetes has removed the load balancers of Services"


@dataclass(frozen=True, kw_only=True)
class CordonNode(Step):
    """Let no new pod onto a node: it would take a volume that another has just let go of."""

    verb: ClassVar[Verb] = Verb.CORDON
    node: str


@dataclass(frozen=True, kw_only=True)
class DeletePod(Step):
    """End a pod that uses a volume which outlives the cluster."""

    verb: ClassVar[Verb] = Verb.DELETE
    namespace: str
    pod: str

    @property
    def text(self) -> str:
        return f"delete {self.key}, which uses a volume that outlives the cluster"


@dataclass(frozen=True, kw_only=True)
class WaitReleased(Step):
    """Until Kubernetes has detached volumes. ``volumes``: names of PersistentVolumes. After a time-out machines are stopped."""

    verb: ClassVar[Verb] = Verb.WAIT
    volumes: tuple[str, ...]

    @property
    def text(self) -> str:
        return "wait until Kubernetes has detached the volumes that outlive the cluster"
