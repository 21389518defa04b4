"""Steps that take something away from the cloud.

Each ends when the cloud shows its own effect. What another step brings about has a wait of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from moyai.cloud.model import Route
from moyai.core.keys import Kind
from moyai.plan.steps.base import Step, Verb


@dataclass(frozen=True, kw_only=True)
class Delete(Step):
    """Delete an object by its id: done when the cloud no longer has it. ``why`` is said where it is not plain."""

    verb: ClassVar[Verb] = Verb.DELETE
    object_id: str
    why: str = ""

    @property
    def kind(self) -> Kind:
        return self.key.kind

    @property
    def name(self) -> str:
        return self.key.name

    @property
    def text(self) -> str:
        return f"delete {self.key}" + (f": {self.why}" if self.why else "")


@dataclass(frozen=True, kw_only=True)
class StopServer(Step):
    """Shut a machine down, so that it writes what it still holds to the disks that outlive it.

    ``volume_ids``: those disks. A machine that none of them is attached to any more is left alone.
    """

    verb: ClassVar[Verb] = Verb.STOP
    server_id: str
    volume_ids: tuple[str, ...]

    @property
    def text(self) -> str:
        return f"stop {self.key} if a volume that outlives it is still attached"


@dataclass(frozen=True, kw_only=True)
class DetachVolume(Step):
    """``key`` names the volume."""

    verb: ClassVar[Verb] = Verb.DETACH
    volume_id: str
    server: str
    server_id: str

    @property
    def text(self) -> str:
        return f"detach {self.key} from server {self.server}"


@dataclass(frozen=True, kw_only=True)
class WaitFree(Step):
    """Until a volume is attached to no server: a server that goes lets go of it in the cloud's own time."""

    verb: ClassVar[Verb] = Verb.WAIT
    volume: str
    volume_id: str

    @property
    def text(self) -> str:
        return f"wait until volume {self.volume} is attached to no server"


@dataclass(frozen=True, kw_only=True)
class RemoveInterface(Step):
    verb: ClassVar[Verb] = Verb.REMOVE
    router_id: str
    subnet_id: str

    @property
    def text(self) -> str:
        return "take the subnet off the router"


@dataclass(frozen=True, kw_only=True)
class RemoveRoutes(Step):
    verb: ClassVar[Verb] = Verb.REMOVE
    router_id: str
    routes: tuple[Route, ...]

    @property
    def text(self) -> str:
        if len(self.routes) > 3:
            return f"remove {len(self.routes)} routes"
        return ", ".join(f"remove route {route.destination} via {route.nexthop}" for route in self.routes)
