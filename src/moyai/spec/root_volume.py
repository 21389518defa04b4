"""Where a machine's root is, and how machines of a group are kept apart: parts of the control plane and of pools."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from moyai.spec.base import Model, problem
from moyai.spec.object_names import Choice

#: ``soft``: on different hosts where that is possible. ``hard``: always; a machine that finds no host of its own is not made.
AntiAffinity = Literal["auto", "soft", "hard", "none"]


class RootVolume(Model):
    """A volume that a machine has its root on, in the place of the flavor's disk. It goes with the machine."""

    size_gib: Annotated[int, Field(ge=0, le=16384)] = Field(
        default=0, alias="sizeGiB", description="Its size in GiB; 0: no volume, the machine has the flavor's disk."
    )
    type: Choice = Field(default="", description="The cloud's volume type; empty: its default.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.type and not self.size_gib:
            raise problem("given where type is: a volume needs a size", at=("sizeGiB",))
        return self


class MachineForm(Model):
    """What the control plane's machines and those of pools are told in the same words."""

    root_volume: RootVolume = Field(
        default_factory=RootVolume, description="A volume that each of the machines has its root on."
    )
    anti_affinity: AntiAffinity = Field(
        default="auto",
        description="Whether the cloud keeps the machines on different hosts. `soft`: where that is possible. `hard`: always. "
        "`auto`: `soft` for a control plane with a virtual address, on a cloud that can do it; otherwise `none`.",
    )
