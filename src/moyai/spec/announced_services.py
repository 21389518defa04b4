"""The spec's section ``services``: addresses of Services that the nodes announce themselves.

Always holds: without ranges a cluster has nothing of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from moyai.spec.address_types import Cidr
from moyai.spec.base import Model, problem
from moyai.spec.forbidden_ranges import special_overlap

#: A port of the cloud may send from 10 addresses besides its own; pods and the API have two of them.
MOST_RANGES = 8
_LARGEST = 20
_CLASS = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


def _class(value: str) -> str:
    if value and not _CLASS.fullmatch(value):
        raise problem("a loadBalancerClass such as example.com/lan")
    return value


class Announce(Model):
    """Services of `type: LoadBalancer` whose addresses the nodes announce by ARP, configured by
    [MetalLB's resources](../how-to/announced-services.md)."""

    ranges: list[Cidr] = Field(
        default_factory=list[Cidr],
        description="Addresses that nodes may answer for besides their own; 8 ranges at most. Each is within the lower half of "
        "nodeCIDR, where no node gets an address of it, or apart from all ranges of the cluster: then only BGP leads to it. "
        "Empty: no Service is announced.",
    )
    load_balancer_class: Annotated[str, AfterValidator(_class)] = Field(
        default="",
        description="One more `loadBalancerClass` of announced Services, besides `moyai.dev/announced`, `metallb.io/metallb` "
        "and `metallb.universe.tf/metallb`.",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.ranges) > MOST_RANGES:
            raise problem(f"at most {MOST_RANGES} ranges", at=("ranges",))
        for number, cidr in enumerate(self.ranges):
            other = next((one for one in self.ranges[:number] if one.overlaps(cidr)), None)
            if other is not None:
                raise problem(f"apart from {other}", at=("ranges", number))
        if self.load_balancer_class and not self.ranges:
            raise problem("left out where no ranges are given", at=("loadBalancerClass",))
        return self


class Services(Model):
    """Addresses of Services that nodes announce themselves."""

    announce: Announce = Field(default_factory=Announce, description="Announced by ARP, on the machines' own network.")


def check_announced(announce: Announce, *, homes: Iterable[IPv4Network], nodes: tuple[IPv4Address, IPv4Address]) -> None:
    """``homes``: all ranges of the cluster. ``nodes``: the first and the last address that nodes get. Raises the validator's
    error, with its place below ``spec``."""
    first, last = nodes
    homes = tuple(homes)
    for number, cidr in enumerate(announce.ranges):
        at = ("services", "announce", "ranges", number)
        if first <= cidr[0] <= cidr[-1] <= last:
            continue
        if any(cidr.overlaps(one) for one in homes):
            should = (
                f"within {first} to {last}, the addresses of nodeCIDR that neither the cloud nor the API has, or apart from "
                "all ranges of the cluster"
            )
            raise problem(should, at=at)
        if cidr.prefixlen < _LARGEST:
            raise problem(f"a range of /{_LARGEST} to /32", at=at)
        if special := special_overlap(cidr):
            raise problem(f"apart from {special}", at=at)
