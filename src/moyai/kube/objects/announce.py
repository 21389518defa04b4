"""MetalLB's custom resources of addresses that nodes announce: pools, and how they are announced (metallb.io/v1beta1).

What this version does not know is in ``problems`` or ``remarks``, a sentence each; nothing is silently ignored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address, IPv4Network, IPv6Address
from itertools import islice

from moyai.kube.objects.meta import Reference, deleting, number, part, rows, text, text_map, texts
from moyai.kube.objects.policy import Selector, parse_selector
from moyai.kube.resources import Json

#: Of one pool. More could be compared with each other for minutes.
MOST_RANGES = 1000
#: So many sentences are said of one pool.
_MOST_SAID = 5


@dataclass(frozen=True)
class AddressRange:
    """From ``first`` to ``last``, both included."""

    first: IPv4Address
    last: IPv4Address

    def __contains__(self, address: IPv4Address) -> bool:
        return self.first <= address <= self.last

    def __len__(self) -> int:
        return int(self.last) - int(self.first) + 1

    def overlaps(self, other: AddressRange) -> bool:
        return self.first <= other.last and other.first <= self.last

    def within(self, other: AddressRange) -> bool:
        return other.first <= self.first and self.last <= other.last

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


@dataclass(frozen=True)
class Allocation:
    """``serviceAllocation``: which Services a pool is for. Lower ``priority`` goes first, 0 last. ``namespaces`` and
    ``selectors`` (of namespaces' labels) both empty: those of each namespace. ``services`` empty: each Service."""

    priority: int = 0
    namespaces: tuple[str, ...] = ()
    selectors: tuple[Selector, ...] = ()
    services: tuple[Selector, ...] = ()


@dataclass(frozen=True)
class AddressPool:
    """``allocation`` None: for every Service. ``created``: when, as the API writes it. ``problems``: why the pool is not used.
    ``remarks``: what of it has no effect. ``status``: as it is in the API."""

    name: str
    uid: str
    namespace: str = ""
    created: str = ""
    ranges: tuple[AddressRange, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    auto_assign: bool = True
    avoid_buggy: bool = False
    allocation: Allocation | None = None
    problems: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    deleting: bool = False
    status: Json = field(default_factory=dict[str, object], compare=False)

    @property
    def reference(self) -> Reference:
        return Reference("IPAddressPool", self.name, self.uid, self.namespace)

    def __contains__(self, address: IPv4Address) -> bool:
        return any(address in one for one in self.ranges) and not (self.avoid_buggy and is_buggy(address))

    def addresses(self) -> Iterator[IPv4Address]:
        """Those that may be given, in the order of the ranges."""
        for one in self.ranges:
            for value in range(int(one.first), int(one.last) + 1):
                if not (self.avoid_buggy and is_buggy(IPv4Address(value))):
                    yield IPv4Address(value)

    @property
    def size(self) -> int:
        """How many addresses may be given."""
        all_of_them = sum(map(len, self.ranges))
        return all_of_them - sum(map(_buggy, self.ranges)) if self.avoid_buggy else all_of_them


@dataclass(frozen=True)
class L2Advertisement:
    """``pools`` and ``selectors`` both empty: all pools. ``services`` empty: all Services. ``nodes`` empty: all nodes.
    ``interfaces`` empty: the interface of the node's own address."""

    name: str
    uid: str
    namespace: str = ""
    pools: tuple[str, ...] = ()
    selectors: tuple[Selector, ...] = ()
    services: tuple[Selector, ...] = ()
    nodes: tuple[Selector, ...] = ()
    interfaces: tuple[str, ...] = ()

    def covers(self, pool: AddressPool) -> bool:
        if not self.pools and not self.selectors:
            return True
        return pool.name in self.pools or any(one.matches(pool.labels) for one in self.selectors)

    def leads_to(self, labels: Mapping[str, str]) -> bool:
        """Whether Services with these labels are announced."""
        return not self.services or any(one.matches(labels) for one in self.services)

    def on(self, labels: Mapping[str, str]) -> bool:
        """Whether nodes with these labels announce."""
        return not self.nodes or any(one.matches(labels) for one in self.nodes)


def is_buggy(address: IPv4Address) -> bool:
    """Whether an address ends in .0 or .255, which some old equipment takes for a network's or for everybody's."""
    return int(address) & 0xFF in (0, 0xFF)


def parse_range(said: str) -> AddressRange:
    """``192.0.2.0/28`` or ``192.0.2.1-192.0.2.9``. Raises ValueError with a sentence."""
    first, dash, last = (one.strip() for one in said.partition("-"))
    try:
        if dash:
            found = AddressRange(IPv4Address(first), IPv4Address(last))
        else:
            # MetalLB clears the bits behind the length, too
            network = IPv4Network(first, strict=False)
            found = AddressRange(network[0], network[-1])
    except ValueError as error:
        raise ValueError(f"{said!r} is neither a CIDR nor a range of addresses ({error})") from None
    if found.last < found.first:
        raise ValueError(f"{said!r} ends before it begins")
    return found


def parse_address_pool(found: Json) -> AddressPool:
    meta, spec = part(found, "metadata"), part(found, "spec")
    ranges: list[AddressRange] = []
    problems: list[str] = []
    remarks: list[str] = []
    addresses = texts(spec, "addresses")
    if len(addresses) > MOST_RANGES:
        problems.append(f"spec.addresses: {len(addresses)} ranges, should be at most {MOST_RANGES}")
    for said in addresses[:MOST_RANGES]:
        try:
            if _is_v6(said):
                remarks.append(f"spec.addresses: {said} has no effect: IPv6 addresses are not supported")
                continue
            ranges.append(parse_range(said))
        except ValueError as error:
            problems.append(f"spec.addresses: {error}")
    problems += islice(_overlaps(ranges), _MOST_SAID + 1)
    if not ranges and not problems:
        problems.append("spec.addresses has no IPv4 address")
    said = part(spec, "serviceAllocation")
    allocation = Allocation(
        priority=number(said, "priority"),
        namespaces=texts(said, "namespaces"),
        selectors=tuple(parse_selector(one) for one in rows(said, "namespaceSelectors")),
        services=tuple(parse_selector(one) for one in rows(said, "serviceSelectors")),
    )
    return AddressPool(
        name=str(meta["name"]),
        uid=text(meta, "uid"),
        namespace=text(meta, "namespace"),
        created=text(meta, "creationTimestamp"),
        ranges=tuple(ranges),
        labels=text_map(meta, "labels"),
        auto_assign=spec.get("autoAssign") is not False,
        avoid_buggy=spec.get("avoidBuggyIPs") is True,
        allocation=allocation if said else None,
        problems=_few(problems),
        remarks=_few(remarks),
        deleting=deleting(found),
        status=part(found, "status"),
    )


def parse_l2_advertisement(found: Json) -> L2Advertisement:
    meta, spec = part(found, "metadata"), part(found, "spec")

    def selectors(key: str) -> tuple[Selector, ...]:
        return tuple(parse_selector(one) for one in rows(spec, key))

    return L2Advertisement(
        name=str(meta["name"]),
        uid=text(meta, "uid"),
        namespace=text(meta, "namespace"),
        pools=texts(spec, "ipAddressPools"),
        selectors=selectors("ipAddressPoolSelectors"),
        services=selectors("serviceSelectors"),
        nodes=selectors("nodeSelectors"),
        interfaces=texts(spec, "interfaces"),
    )


def _overlaps(ranges: list[AddressRange]) -> Iterator[str]:
    """By their places: comparing each with each takes long where there are many."""
    ordered = sorted(enumerate(ranges), key=lambda one: one[1].first)
    reaching = ordered[0] if ordered else None
    for one in ordered[1:]:
        assert reaching is not None
        if one[1].first <= reaching[1].last:
            earlier, later = sorted((one, reaching), key=lambda both: both[0])
            yield f"spec.addresses: {later[1]} overlaps {earlier[1]}"
        if one[1].last > reaching[1].last:
            reaching = one


def _few(said: list[str]) -> tuple[str, ...]:
    """An event and a status take no more."""
    shown = [one if len(one) <= 200 else f"{one[:199]}…" for one in said[:_MOST_SAID]]
    return (*shown, "and more of this kind") if len(said) > _MOST_SAID else tuple(shown)


def _is_v6(said: str) -> bool:
    try:
        IPv6Address(said.partition("-")[0].partition("/")[0].strip())
    except AddressValueError:
        return False
    return True


def _buggy(one: AddressRange) -> int:
    """How many addresses of a range end in .0 or .255."""
    first, last = int(one.first), int(one.last)

    def up_to(value: int, ending: int) -> int:
        """Of 0 to ``value``."""
        return (value - ending) // 256 + 1 if value >= ending else 0

    return sum(up_to(last, ending) - up_to(first - 1, ending) for ending in (0, 255))
