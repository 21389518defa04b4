"""The spec's fields for how pods of different nodes reach each other."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from moyai.spec.base import Model

Mode = Literal["routes", "host-gw", "vxlan", "auto", "none"]


class VxlanSpec(Model):
    """Encapsulation of pods' packets, in the way of flannel."""

    vni: Annotated[int, Field(ge=1, le=2**24 - 1)] = Field(default=1, description="Number of the network in each packet.")
    port: Annotated[int, Field(ge=1, le=65535)] = Field(
        default=8472, description="UDP port of the machines. 8472 is the kernel's, 4789 the standard's."
    )
    direct_routing: bool = Field(
        default=False,
        description="Whether machines of one subnet reach each other's pods without encapsulation. Their ports must be allowed "
        "to send from pods' addresses.",
    )
