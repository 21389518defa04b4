"""Steps that take something away from the cloud."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from moyai.cloud.model import Route
from moyai.core.keys import Kind
from moyai.plan.steps.base import Step, Verb


@dataclass(frozen=True, kw_only=True)
class Delete(Step):
    """Delete an object by its id, and wait until the cloud no longer has it. ``attached_to``: servers that have the volume.

    ``why`` is said where it is not plain.
    """

    verb: ClassVar[Verb] = Verb.DELETE
    object_id: str
    attached_to: tuple[str, ...] = ()
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
    """Shut a machine down, so that it writes what it still holds to the disks that outlive it."""

    verb: ClassVar[Verb] = Verb.STOP
    server_id: str

    @property
    def text(self) -> str:
        return f"stop {self.key}, whose volumes outlive it"


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
