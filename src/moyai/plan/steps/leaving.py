"""Steps with which a control plane leaves the others: its leadership first, then its API server, then its place in etcd.

Each looks at the cluster itself before it acts, and is content where its work is done.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from moyai.plan.steps.base import Step, Verb


@dataclass(frozen=True, kw_only=True)
class LeavingPlane(Step):
    """``node``: the control plane that leaves, ``address``: its own. ``stay``: names of those that stay."""

    node: str
    address: str
    stay: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class MoveLeadership(LeavingPlane):
    """If etcd's leader is the control plane that leaves, another member becomes the leader. Otherwise nothing is done."""

    verb: ClassVar[Verb] = Verb.MOVE

    @property
    def text(self) -> str:
        return f"move etcd's leadership away from {self.node}, once etcd can lose it"


@dataclass(frozen=True, kw_only=True)
class StopServing(LeavingPlane):
    """Another control plane takes the API's address; then the machine's API server, controller manager and scheduler end. Its
    etcd goes on. ``stay_addresses``: of those that stay."""

    verb: ClassVar[Verb] = Verb.STOP
    stay_addresses: tuple[str, ...]

    @property
    def text(self) -> str:
        return f"hand the API's address on, and end the API server of {self.node}"


@dataclass(frozen=True, kw_only=True)
class RemoveMember(LeavingPlane):
    """Take the machine's member out of etcd, once a majority of those that stay is healthy.

    ``release``: nothing else of the machine is left, so its place in the cluster's ranges is free afterwards.
    """

    verb: ClassVar[Verb] = Verb.REMOVE
    release: bool = False

    @property
    def text(self) -> str:
        return f"remove {self.node} from etcd's members, once etcd can lose it"
