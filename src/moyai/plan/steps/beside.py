"""Steps that make what stands beside a cluster: machines that are no nodes, and their ports and addresses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from moyai.core.keys import Key, Kind
from moyai.plan.machines_beside import MachinePlace, PlannedMachine
from moyai.plan.steps.base import Step, Verb

#: That the machines run.
BESIDE = Key(Kind.CONDITION, "machines beside the cluster run")


@dataclass(frozen=True, kw_only=True)
class CreateMachinePort(Step):
    """``transit``: packets of others pass the port, and no rule of a security group holds at it."""

    verb: ClassVar[Verb] = Verb.CREATE
    machine: str
    place: MachinePlace
    transit: bool = False

    @property
    def text(self) -> str:
        return f"create port {self.place.port} {self.place.address}{', open for packets of others' if self.transit else ''}"


@dataclass(frozen=True, kw_only=True)
class CreateMachine(Step):
    verb: ClassVar[Verb] = Verb.CREATE
    machine: PlannedMachine
    image_id: str
    flavor_id: str

    @property
    def text(self) -> str:
        entry = self.machine.entry
        return f"create server {self.machine.name} ({entry.role}, {entry.flavor})"


@dataclass(frozen=True, kw_only=True)
class StartMachine(Step):
    """``resume``: it is paused, suspended or shelved."""

    verb: ClassVar[Verb] = Verb.START
    server_id: str
    resume: bool = False


@dataclass(frozen=True, kw_only=True)
class CreateMachineAddress(Step):
    """A floating IP on the machine's first port."""

    verb: ClassVar[Verb] = Verb.CREATE
    machine: str
    network_id: str
    description: str

    @property
    def text(self) -> str:
        return f"create floating ip for {self.machine}"


@dataclass(frozen=True, kw_only=True)
class AttachMachineAddress(Step):
    verb: ClassVar[Verb] = Verb.ATTACH
    machine: str
    port: str

    @property
    def text(self) -> str:
        return f"put the floating ip of {self.machine} on port {self.port}"
