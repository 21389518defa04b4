"""The spec's section ``network``: the cluster's addresses, the network that its machines are in, how pods reach each other.

Always holds: ranges do not overlap, and hold a node at least. On a network that exists, the range of nodes is that of its
subnet: it is not known before the cloud was asked, so what is compared with it is compared by the plan
(``moyai.plan.given_network``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network
from typing import Annotated, Self

from pydantic import Field, ValidationInfo, model_validator

from moyai.spec.address_types import Cidr, Ip
from moyai.spec.base import Model, problem
from moyai.spec.bgp_network import BgpSpec, check_routers
from moyai.spec.existing_network import ExistingNetwork
from moyai.spec.forbidden_ranges import special_home, special_overlap
from moyai.spec.object_names import Choice, is_new
from moyai.spec.pod_network import Mode, NetConfSource, VxlanSpec, enforces_by_default

#: Address numbers below this one in the node subnet stay free: the gateway and what an operator may want there.
FIRST_NODE_NUMBER = 10
#: That of the API's virtual address, where there is one.
VIRTUAL_NUMBER = 4


def check_once(items: Iterable[object], what: str, *, at: tuple[str | int, ...] = ()) -> None:
    """Raises the validator's error for an item that is there twice."""
    seen: set[object] = set()
    for number, item in enumerate(items):
        if item in seen:
            raise problem(f"another {what}: it is in the list already", at=(*at, number))
        seen.add(item)


class NetworkSpec(Model):
    """The cluster's addresses, and how pods reach each other. Ranges must not overlap; other clusters may use the same ones.

    A range must not reach into 0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16 (with the cloud's metadata service), 224.0.0.0/4 or
    240.0.0.0/4, nor into the external network or to the addresses of the cloud's APIs, as far as the cloud shows them.
    """

    node_cidr: Cidr = Field(
        default=IPv4Network("10.8.0.0/24"),
        alias="nodeCIDR",
        description="Range of the machines' subnet (/16 to /26). With `existing.network` it is that of the subnet, and may be "
        "left out.",
    )
    pod_cidr: Cidr = Field(default=IPv4Network("10.244.0.0/16"), alias="podCIDR", description="Range of all pods.")
    node_pod_prefix: Annotated[int, Field(ge=20, le=28)] = Field(
        default=24, description="Prefix length of one node's part of podCIDR (20 to 28)."
    )
    service_cidr: Cidr = Field(
        default=IPv4Network("10.96.0.0/16"), alias="serviceCIDR", description="Range of ClusterIPs (/12 to /24)."
    )
    mode: Mode = Field(
        default="routes",
        description="How pods of different nodes reach each other. `routes`: over the cloud's router. `host-gw`: from "
        "machine to machine, whose ports must be allowed to send from pods' addresses. `vxlan`: encapsulated in UDP. `bgp`: "
        "as `host-gw`, by routes that nodes announce to each other and to routers outside. `auto`: the cheaper of `host-gw` "
        "and `vxlan` that the cloud permits, decided when the cluster is made. `none`: you install a CNI plugin.",
    )
    vxlan: VxlanSpec = Field(default_factory=VxlanSpec, description="For mode `vxlan`.")
    bgp: BgpSpec = Field(default_factory=BgpSpec, description="For mode `bgp`.")
    # not kept with the cluster: what it says becomes the fields that are
    net_conf: NetConfSource | None = Field(default=None, exclude=True, description="Flannel's configuration, if you have one.")
    policy: bool = Field(
        default_factory=enforces_by_default,
        description="Whether NetworkPolicy objects have an effect: an agent on each node enforces them. New clusters of mode "
        "`none` have `false` by default, as the CNI plugin may do it. A cluster that exists keeps what its spec leaves out.",
    )
    external_network: Choice = Field(
        default="", description="The cloud's external network that the router leads to; empty: the only one there is."
    )
    disable_external_network: bool = Field(
        default=False,
        description="Whether the cluster does without an external network and floating IPs: the API and Services have "
        "addresses of `existing.network`.",
    )
    existing: ExistingNetwork = Field(
        default_factory=ExistingNetwork, description="A network, a subnet and a router of yours, in place of moyai's own."
    )
    dns: list[Ip] = Field(
        default_factory=list[IPv4Address], description="Name servers of the machines, 3 at most; empty: the cloud's own."
    )
    max_routes: Annotated[int, Field(ge=1, le=10000)] = Field(
        default=30,
        description="How many routes the cloud allows in one router, which its API does not report (OpenStack: `max_routes`).",
    )

    @model_validator(mode="after")
    def _check(self, info: ValidationInfo) -> Self:
        nodes = (8, 29) if self.existing.network else (16, 26)
        for field, cidr, (least, most) in (
            *((("nodeCIDR", self.node_cidr, nodes),) if self.settled else ()),
            ("podCIDR", self.pod_cidr, (8, 24)),
            ("serviceCIDR", self.service_cidr, (12, 24)),
        ):
            if not least <= cidr.prefixlen <= most:
                raise problem(f"a range of /{least} to /{most}", at=(field,))
            special = special_overlap(cidr) if is_new(info) else ""
            if special:
                raise problem(f"apart from {special}", at=(field,))
        if self.node_pod_prefix <= self.pod_cidr.prefixlen:
            raise problem(f"longer than podCIDR's prefix, /{self.pod_cidr.prefixlen}", at=("nodePodPrefix",))
        ranges = self.ranges
        for first, second in (("nodeCIDR", "podCIDR"), ("nodeCIDR", "serviceCIDR"), ("podCIDR", "serviceCIDR")):
            if first in ranges and ranges[first].overlaps(ranges[second]):
                raise problem(f"apart from {first} {ranges[first]}", at=(second,))
        self._check_existing()
        if not self.existing.network:
            api = self.node_cidr[VIRTUAL_NUMBER]
            check_routers(self.bgp, ranges=ranges, nodes=self.node_addresses, api=api)
        for number, server in enumerate(self.dns):
            if server in self.pod_cidr or server in self.service_cidr:
                raise problem("reachable from the machines, so not within podCIDR or serviceCIDR", at=("dns", number))
            if is_new(info) and (home := special_home(server)):
                raise problem(f"the address of a name server, not one of {home}", at=("dns", number))
        check_once(self.dns if is_new(info) else (), "name server", at=("dns",))
        return self

    def _check_existing(self) -> None:
        if self.disable_external_network and not self.existing.network:
            raise problem(
                "false, or existing.network given: a network of moyai's own leads nowhere without an external one",
                at=("disableExternalNetwork",),
            )
        if self.disable_external_network and self.external_network:
            raise problem("left out where disableExternalNetwork is true", at=("externalNetwork",))
        if self.existing.network and self.dns:
            raise problem("left out where existing.network is given, whose subnet hands out its own", at=("dns",))

    @property
    def settled(self) -> bool:
        """Whether the range of nodes is known: that of a subnet that exists is the cloud's to say."""
        return not self.existing.network or "node_cidr" in self.model_fields_set

    @property
    def ranges(self) -> Mapping[str, IPv4Network]:
        """Field → the range of the cluster that it is."""
        ranges = {"podCIDR": self.pod_cidr, "serviceCIDR": self.service_cidr}
        return {"nodeCIDR": self.node_cidr, **ranges} if self.settled else ranges

    @property
    def max_nodes(self) -> int:
        """How many nodes the ranges hold: pod ranges, and node addresses in the lower half of nodeCIDR. How many addresses a
        subnet that exists has left is the plan's to say."""
        pods = int(2 ** (self.node_pod_prefix - self.pod_cidr.prefixlen))
        return pods if self.existing.network else min(pods, self.node_cidr.num_addresses // 2 - FIRST_NODE_NUMBER)

    @property
    def node_addresses(self) -> tuple[IPv4Address, IPv4Address]:
        """The first and the last address that moyai gives away itself; the cloud gives away the upper half. On a network that
        exists: what the cloud may give away."""
        if self.existing.network:
            return self.node_cidr[1], self.node_cidr[-2]
        return self.node_cidr[FIRST_NODE_NUMBER], self.node_cidr[self.node_cidr.num_addresses // 2 - 1]
