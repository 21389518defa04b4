"""The spec's fields for how pods of different nodes reach each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from moyai.spec.base import Model

Mode = Literal["routes", "host-gw", "vxlan", "auto", "none"]
#: Where nodes had agents before there was a choice, and those enforced network policies.
_ALWAYS = ("host-gw", "vxlan")


def enforces_by_default(before: Mapping[str, Any]) -> bool:
    """Whether a new cluster enforces network policies where its spec does not say so. ``before``: the fields of the network
    that have been read already. In mode `none` a CNI plugin of the user's may do it."""
    return before.get("mode") != "none"


def enforced(network: Mapping[str, Any]) -> bool:
    """Whether a cluster that exists enforces them. ``network``: the dumped section, perhaps of a cluster that was made before
    there was a choice."""
    return bool(network.get("policy", network.get("mode", "routes") in _ALWAYS))


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
