"""MetalLB's custom resources of addresses that nodes announce: pools, and how they are announced (metallb.io/v1beta1).

What this version does not know is in ``problems``, a sentence each; nothing is silently ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address

from moyai.kube.objects.meta import Reference, deleting, number, part, rows, text, text_map, texts
from moyai.kube.objects.policy import Selector, parse_selector
from moyai.kube.resources import Json


@dataclass(frozen=True)
class AddressRange:
    """From ``first`` to ``last``, both included."""

    first: IPv4Address
    last: IPv4Address

    def __contains__(self, address: IPv4Address) -> bool:
        return self.first <= address <= self.last

    def overlaps(self, other: AddressRange) -> bool:
        return self.first <= other.last and other.first <= self.last

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


@dataclass(frozen=True)
class Allocation:
    """``serviceAllocation``: which Services a pool is for. Lower ``priority`` goes first, 0 last."""

    priority: int = 0
    namespaces: tuple[str, ...] = ()
    services: tuple[Selector, ...] = ()


@dataclass(frozen=True)
class AddressPool:
    """``allocation`` None: for every Service. ``problems``: why the pool is not used."""

    name: str
    uid: str
    namespace: str = ""
    ranges: tuple[AddressRange, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    auto_assign: bool = True
    avoid_buggy: bool = False
    allocation: Allocation | None = None
    problems: tuple[str, ...] = ()
    deleting: bool = False

    @property
    def reference(self) -> Reference:
        return Reference("IPAddressPool", self.name, self.uid, self.namespace)

    def __contains__(self, address: IPv4Address) -> bool:
        return any(address in one for one in self.ranges)


@dataclass(frozen=True)
class L2Advertisement:
    """``pools`` and ``selectors`` both empty: all pools. ``nodes`` empty: all nodes. ``interfaces`` empty: the interface of
    the node's own address."""

    name: str
    uid: str
    namespace: str = ""
    pools: tuple[str, ...] = ()
    selectors: tuple[Selector, ...] = ()
    nodes: tuple[Selector, ...] = ()
    interfaces: tuple[str, ...] = ()

    def covers(self, pool: AddressPool) -> bool:
        if not self.pools and not self.selectors:
            return True
        return pool.name in self.pools or any(one.matches(pool.labels) for one in self.selectors)

    def on(self, labels: Mapping[str, str]) -> bool:
        """Whether nodes with these labels announce."""
        return not self.nodes or any(one.matches(labels) for one in self.nodes)


def parse_range(said: str) -> AddressRange:
    """``192.0.2.0/28`` or ``192.0.2.1-192.0.2.9``. Raises ValueError with a sentence."""
    first, dash, last = (one.strip() for one in said.partition("-"))
    try:
        if dash:
            found = AddressRange(IPv4Address(first), IPv4Address(last))
        else:
            network = IPv4Network(first)
            found = AddressRange(network[0], network[-1])
    except ValueError as error:
        raise ValueError(_not_a_range(said, first, error=error)) from None
    if found.last < found.first:
        raise ValueError(f"{said!r} ends before it begins")
    return found


def _not_a_range(said: str, first: str, *, error: ValueError) -> str:
    try:
        IPv6Address(first.partition("/")[0])
    except AddressValueError:
        return f"{said!r} is neither a CIDR nor a range of addresses ({error})"
    return f"{said!r}: IPv6 addresses are not supported"


def parse_address_pool(found: Json) -> AddressPool:
    meta, spec = part(found, "metadata"), part(found, "spec")
    ranges: list[AddressRange] = []
    problems: list[str] = []
    for said in texts(spec, "addresses"):
        try:
            ranges.append(parse_range(said))
        except ValueError as error:
            problems.append(f"spec.addresses: {error}")
    if not ranges and not problems:
        problems.append("spec.addresses is empty")
    said = part(spec, "serviceAllocation")
    if rows(said, "namespaceSelectors"):
        problems.append("spec.serviceAllocation.namespaceSelectors is not supported; spec.serviceAllocation.namespaces is")
    allocation = Allocation(
        priority=number(said, "priority"),
        namespaces=texts(said, "namespaces"),
        services=tuple(parse_selector(one) for one in rows(said, "serviceSelectors")),
    )
    return AddressPool(
        name=str(meta["name"]),
        uid=text(meta, "uid"),
        namespace=text(meta, "namespace"),
        ranges=tuple(ranges),
        labels=text_map(meta, "labels"),
        auto_assign=spec.get("autoAssign") is not False,
        avoid_buggy=spec.get("avoidBuggyIPs") is True,
        allocation=allocation if said else None,
        problems=tuple(problems),
        deleting=deleting(found),
    )


def parse_l2_advertisement(found: Json) -> L2Advertisement:
    meta, spec = part(found, "metadata"), part(found, "spec")
    return L2Advertisement(
        name=str(meta["name"]),
        uid=text(meta, "uid"),
        namespace=text(meta, "namespace"),
        pools=texts(spec, "ipAddressPools"),
        selectors=tuple(parse_selector(one) for one in rows(spec, "ipAddressPoolSelectors")),
        nodes=tuple(parse_selector(one) for one in rows(spec, "nodeSelectors")),
        interfaces=texts(spec, "interfaces"),
    )
