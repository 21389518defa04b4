"""The spec's section ``network.existing``: a network, a subnet and a router that are there already, and stay.

Always holds: what is named here is the user's. A plan changes of it only what it says, and ``down`` leaves it.
"""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from moyai.spec.base import Model, problem
from moyai.spec.object_names import Choice


class ExistingNetwork(Model):
    """Networks as they are: each named by its id, its name or a tag of it, which nothing else of its kind has. They are used,
    and neither tagged nor deleted."""

    network: Choice = Field(
        default="",
        description="The network that the machines are in; empty: moyai makes one. The cloud chooses their addresses.",
    )
    subnet: Choice = Field(
        default="", description="The IPv4 subnet of `network` that they are in; empty: the only one there is."
    )
    router: Choice = Field(
        default="",
        description="The router of the machines' network; empty: with `network` the one that has an interface there, else "
        "moyai makes one.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.subnet and not self.network:
            raise problem("left out where network is not given", at=("subnet",))
        return self


#: moyai makes everything.
NONE_EXISTING = ExistingNetwork()
