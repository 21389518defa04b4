"""The machines of the control plane, and the way to their API.

Always holds: a control plane of several machines has an address that no machine keeps for good, and that outlives each of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self, cast

from pydantic import Field, model_validator

from moyai.spec.address_types import Ip
from moyai.spec.base import problem
from moyai.spec.object_names import Choice, Name
from moyai.spec.root_volume import MachineForm

Endpoint = Literal["auto", "single", "vrrp", "load-balancer"]
#: How the API is really reached: ``auto`` stands for one of the others.
Way = Literal["single", "vrrp", "load-balancer"]
#: etcd's own advice: more members make each write slower.
MOST = 5


class ControlPlane(MachineForm):
    """The machines of the control plane."""

    replicas: int = Field(
        default=1,
        description="How many machines: 1, 3 or 5. Of 3 one may die, of 5 two. An even number survives no more deaths than the "
        "odd number below it.",
    )
    flavor: Name = Field(
        default="m1.medium", description="The cloud's flavor for them: at least 2 CPUs' worth of work and 1.5 GB."
    )
    zone: Choice = Field(default="", description="Availability zone; empty: the first zone that the cloud offers.")
    zones: list[Name] = Field(
        default_factory=list[str],
        description="Availability zones that several machines take turns in; empty: all that the cloud offers, or `zone`.",
    )
    endpoint: Endpoint = Field(
        default="auto",
        description="How the API is reached. `single`: at the address of the only machine. `vrrp`: at a virtual address that "
        "one of the machines holds, and another one takes over. `load-balancer`: through a load balancer of the cloud, for one "
        "machine or more. `auto`: `single` for one machine, `vrrp` for more.",
    )

    api_server_fixed_ip: Ip | None = Field(
        default=None,
        alias="apiServerFixedIP",
        description="The virtual address on a network that exists (`network.existing.network`), which the cloud gives to "
        "nobody else. On a network of moyai's own it is the fourth of nodeCIDR.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.replicas not in range(1, MOST + 1, 2):
            raise problem("1, 3 or 5 (an even number survives no more deaths than the odd number below it)", at=("replicas",))
        if self.zone and self.zones:
            raise problem("left out where zone is given", at=("zones",))
        if len(set(self.zones)) != len(self.zones):
            raise problem("zones, each of them once", at=("zones",))
        if self.replicas > 1 and self.endpoint == "single":
            what = "vrrp, load-balancer or auto: a control plane of several machines has no single address"
            raise problem(what, at=("endpoint",))
        return self

    @property
    def way(self) -> Way:
        return way_of(self.replicas, self.endpoint)

    @property
    def virtual(self) -> bool:
        """Whether the API has an address that no machine keeps for good."""
        return self.way != "single"

    @property
    def balanced(self) -> bool:
        """Whether a load balancer of the cloud has the API's address."""
        return self.way == "load-balancer"


def way_of(replicas: int, endpoint: str) -> Way:
    """How the API of such a control plane is reached."""
    if endpoint == "load-balancer":
        return "load-balancer"
    return "vrrp" if endpoint == "vrrp" or (endpoint == "auto" and replicas > 1) else "single"


def way_before(before: Mapping[str, Any]) -> Way:
    """The same of a dumped control plane, perhaps of a cluster that was made before there was a choice."""
    return way_of(cast("int", before.get("replicas", 1)), cast("str", before.get("endpoint", "auto")))


def was_virtual(before: Mapping[str, Any]) -> bool:
    """Whether the API of a dumped control plane has an address that no machine keeps for good."""
    return way_before(before) != "single"


def kept(plane: ControlPlane, before: Mapping[str, Any]) -> ControlPlane:
    """What a cluster that exists has where its spec leaves it to moyai. ``before``: the dumped control plane on record."""
    had = way_before(before)
    if plane.endpoint == "auto" and had != "single":
        plane = plane.model_copy(update={"endpoint": had})
    word = cast("str", before.get("endpoint", "auto"))
    if plane.way == had == way_of(plane.replicas, word):
        # in the words on record: a word that means the same is no change
        return plane.model_copy(update={"endpoint": word})
    return plane
