"""Steps that end a cluster's work through Kubernetes, while its controllers still live, before the cloud is asked to remove any
of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from moyai.core.keys import Key, Kind
from moyai.plan.steps.base import Step, Verb

PODS_OF_VOLUMES = Key(Kind.PODS, "with volumes that stay")
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
class DeletePods(Step):
    """End the pods that use volumes which outlive the cluster, as they are when the step runs: others may have taken the place
    of those that were seen. ``volumes``: names of PersistentVolumes. ``claims``: (namespace, name) of their claims.
    """

    verb: ClassVar[Verb] = Verb.DELETE
    volumes: tuple[str, ...]
    claims: frozenset[tuple[str, str]]

    @property
    def text(self) -> str:
        many = len(self.volumes) > 3
        which = f"{len(self.volumes)} volumes" if many else ", ".join(self.volumes)
        return f"delete the pods that use volumes which outlive the cluster: {which}"


@dataclass(frozen=True, kw_only=True)
class WaitReleased(Step):
    """Until Kubernetes has detached volumes. ``volumes``: names of PersistentVolumes. After a time-out machines are stopped."""

    verb: ClassVar[Verb] = Verb.WAIT
    volumes: tuple[str, ...]

    @property
    def text(self) -> str:
        return "wait until Kubernetes has detached the volumes that outlive the cluster"
