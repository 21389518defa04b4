"""Steps that bring a cluster that runs from one mode of the pod network to another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from moyai.core.keys import Key, Kind
from moyai.plan.steps.base import Step, Verb


def at_stage(stage: str) -> Key:
    """That all agents are at a stage of the change."""
    return Key(Kind.CONDITION, f"agents at {stage}")


@dataclass(frozen=True, kw_only=True)
class ApplyStage(Step):
    """Give the nodes' agents the configuration of a stage. ``stage``: its name, ``final`` for what the new mode is in the end.
    ``does``: what changes, in a few words."""

    verb: ClassVar[Verb] = Verb.APPLY
    stage: str
    does: str

    @property
    def text(self) -> str:
        return f"bring the nodes' agents to {self.stage}, one by one: {self.does}"


@dataclass(frozen=True, kw_only=True)
class WaitWorkload(Step):
    """Until all pods of a Deployment or DaemonSet of kube-system are of its newest version and ready. ``seconds``: at most."""

    verb: ClassVar[Verb] = Verb.WAIT
    workload: str
    daemon_set: bool
    seconds: float

    @property
    def text(self) -> str:
        return f"wait until all pods of {self.workload} are new and ready"


@dataclass(frozen=True, kw_only=True)
class ApplyControllers(Step):
    """Give the cloud controller manager the configuration of the new mode. ``routes``: whether it keeps routes from now on."""

    verb: ClassVar[Verb] = Verb.APPLY
    routes: bool

    @property
    def text(self) -> str:
        return f"let the cloud controller manager {'keep' if self.routes else 'no longer keep'} routes in the router"
