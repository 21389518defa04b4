"""The spec's section ``network.bgp``: the nodes' autonomous system, and the routers outside that nodes speak to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from moyai.spec.address_types import Cidr, Ip
from moyai.spec.base import Model, problem
from moyai.spec.forbidden_ranges import special_home
from moyai.spec.kubernetes import is_key

#: RFC 6793: numbers have 32 bits, and these two mean something else (RFC 7607, RFC 7300).
_LAST_ASN = 2**32 - 2
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SECRET = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise problem("a name of small letters, digits and hyphens, such as rt-01")
    return value


def _label(value: str) -> str:
    if not is_key(value):
        raise problem("the key of a label, such as moyai.dev/route-reflector")
    return value


def _secret(value: str) -> str:
    if value and not _SECRET.fullmatch(value):
        raise problem("the name of a Secret: small letters, digits, hyphens and dots")
    return value


def _router(value: IPv4Address) -> IPv4Address:
    if home := special_home(value):
        raise problem(f"the address of a router, not one of {home}")
    return value


Asn = Annotated[int, Field(ge=1, le=_LAST_ASN)]


class BgpRouter(Model):
    """A router outside of the cluster. Each node has a session with it. Where the cluster has `networks`, only nodes on the
    router's own network have one, unless it is `multihop`. In another mode than `bgp` the nodes tell it addresses of Services
    alone."""

    name: Annotated[str, AfterValidator(_name)] = Field(
        default="", validate_default=True, description="By which objects of MetalLB and messages name it."
    )
    address: Annotated[Ip, AfterValidator(_router)] = Field(description="Its address, which no node gets.")
    asn: Asn = Field(description="Number of its autonomous system.")
    password_secret: Annotated[str, AfterValidator(_secret)] = Field(
        default="",
        description="Name of a Secret of type kubernetes.io/basic-auth in namespace metallb-system: the session's password.",
    )
    bfd: bool = Field(
        default=True,
        description="Whether a silent end is noticed within a second (BFD, 300 ms, three times), and a restart of bgpd loses "
        "no path (graceful restart). The router must have BFD for the session, too.",
    )
    multihop: bool = Field(default=False, description="Whether the router is on another network than the machines.")
    announce_pods: bool = Field(default=True, description="Whether it is told the nodes' pod ranges.")
    accept: list[Cidr] = Field(
        default_factory=list[Cidr],
        description="Ranges that nodes learn from it, with all their parts; all else is dropped. 32 at most.",
    )
    maximum_prefixes: Annotated[int, Field(ge=1, le=10000)] = Field(
        default=100, description="A router that sends more ends its session for a minute."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.accept) > 32:
            raise problem("at most 32 ranges", at=("accept",))
        return self


class BgpSpec(Model):
    """BGP of the nodes. Nodes up to `meshUpTo` have a session with each other; in a larger cluster nodes with the label
    `reflectorLabel` are route reflectors."""

    asn: Asn = Field(default=64522, description="Number of the nodes' autonomous system. 64512 to 65534 are private.")
    routers: list[BgpRouter] = Field(
        default_factory=list[BgpRouter], description="Routers outside, 16 at most. MetalLB's BGPPeer adds others."
    )
    mesh_up_to: Annotated[int, Field(ge=2, le=100)] = Field(
        default=10, description="How many nodes have sessions with each other without route reflectors."
    )
    reflector_label: Annotated[str, AfterValidator(_label)] = Field(
        default="moyai.dev/route-reflector", description="Nodes with this label reflect routes; label two at least."
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.routers) > 16:
            raise problem("at most 16 routers", at=("routers",))
        for number, router in enumerate(self.routers):
            for other in self.routers[:number]:
                if router.name == other.name:
                    raise problem(f"another name than {other.name}", at=("routers", number, "name"))
                if router.address == other.address:
                    raise problem(f"another address than that of {other.name}", at=("routers", number, "address"))
        return self


def check_routers(
    bgp: BgpSpec,
    *,
    ranges: Mapping[str, IPv4Network],
    nodes: tuple[IPv4Address, IPv4Address],
    api: IPv4Address,
) -> None:
    """``ranges``: field → the cluster's range. ``nodes``: the first and the last address that nodes get. ``api``: what the API
    has where it has an address of its own. Raises the validator's error, with its place below ``network``."""
    for number, router in enumerate(bgp.routers):
        at = ("bgp", "routers", number)
        if nodes[0] <= router.address <= nodes[1] or router.address == api:
            raise problem(f"apart from {nodes[0]} to {nodes[1]}, which nodes get, and {api}, the API's", at=(*at, "address"))
        for name, cidr in ranges.items():
            # a router may be a machine of the cluster's network
            if router.address in cidr and name != "nodeCIDR":
                raise problem(f"apart from {name} {cidr}", at=(*at, "address"))
            for index, accepted in enumerate(router.accept):
                if accepted.overlaps(cidr):
                    raise problem(f"apart from {name} {cidr}", at=(*at, "accept", index))


def check_bgp_use(bgp: BgpSpec, *, mode: str, announces: bool) -> None:
    """Raises the validator's error, with its place below ``spec``."""
    if bgp.routers and mode != "bgp" and not announces:
        should = "left out where mode is not bgp and services.announce.ranges is empty: nodes have nothing to tell them"
        raise problem(should, at=("network", "bgp", "routers"))
