"""Which address a Service gets: from pools, what others hold, and what the Service asks for.

Always holds: a Service keeps the address that it has for as long as it is right; two Services have one address only if both
say the same sharing key, use different ports, and route in the same way.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from moyai.core.errors import UsageError
from moyai.kube.objects import AddressPool, AddressRange, Service
from moyai.plan.announce.metallb_words import RequestedAddress, requested_address, sharing_key

#: Behind every priority that a pool can have: pools for certain Services without a priority, then those for all.
_NO_PRIORITY, _FOR_ALL = 2.0**64, float("inf")


@dataclass(frozen=True)
class AllocatedAddress:
    """``moved``: why the address is not the one that the Service had, empty where it is, or where it had none."""

    address: IPv4Address
    pool: str
    moved: str = ""


@dataclass(frozen=True)
class ValidatedPools:
    """``usable`` in the order in which they are asked. ``refused``: pool → why it is not used."""

    usable: tuple[AddressPool, ...]
    refused: Mapping[str, str]

    def of(self, address: IPv4Address) -> AddressPool | None:
        return next((one for one in self.usable if address in one), None)


@dataclass(frozen=True)
class AllocationRequest:
    """A Service that asks for an address. ``held``: address → the other Services that have it. ``namespace``: labels of the
    Service's namespace."""

    service: Service
    held: Mapping[IPv4Address, Sequence[Service]]
    namespace: Mapping[str, str] = field(default_factory=dict[str, str])


def validated(pools: Collection[AddressPool], permitted: Collection[AddressRange]) -> ValidatedPools:
    """An address is in one pool: a pool that overlaps an older one is refused whole. So is one with addresses outside of
    ``permitted``: the cloud does not let nodes answer for them."""
    usable: list[AddressPool] = []
    refused: dict[str, str] = {}
    taken = _TakenRanges()
    for pool in sorted(pools, key=lambda one: (one.created, one.name)):
        if pool.deleting:
            continue
        if why := _problem(pool, taken, permitted=permitted):
            refused[pool.name] = why
        else:
            usable.append(pool)
            taken.add(pool)
    return ValidatedPools(tuple(sorted(usable, key=lambda one: (_priority(one), one.name))), refused)


def allocate_address(request: AllocationRequest, pools: ValidatedPools) -> AllocatedAddress:
    """Raises UsageError where no address can be given: for a request that cannot be met, and where addresses have run
    out."""
    service, wanted = request.service, requested_address(request.service)
    current, moved = _current(service), ""
    if current is not None and not (moved := _no_longer(request, current, pools=pools, wanted=wanted)):
        pool = pools.of(current)
        assert pool is not None, "_no_longer"
        return AllocatedAddress(current, pool.name)
    if wanted.address is not None:
        pool = pools.of(wanted.address)
        if pool is None:
            raise UsageError(f"{wanted.address} is in no pool", hint=_known(pools))
        if why := _objection(request, wanted.address, pool=pool, wanted=wanted):
            raise UsageError(why)
        return AllocatedAddress(wanted.address, pool.name, moved)
    candidates = _candidates(request, pools, wanted=wanted)
    for pool in candidates:
        for address in _free(pool, request, wanted=wanted):
            return AllocatedAddress(address, pool.name, moved)
    if candidates:
        raise UsageError(f"no address is left in {', '.join(one.name for one in candidates)}")
    raise UsageError("no pool gives addresses to this Service", hint=_known(pools))


class _TakenRanges:
    """Those of the pools that are used: no two of them overlap. Found by their places, as there may be many."""

    def __init__(self) -> None:
        #: In the order of their addresses, with the pool's name; beside it the first addresses.
        self._ranges: list[tuple[AddressRange, str]] = []
        self._firsts: list[IPv4Address] = []

    def add(self, pool: AddressPool) -> None:
        self._ranges = sorted([*self._ranges, *((one, pool.name) for one in pool.ranges)], key=lambda one: one[0].first)
        self._firsts = [one.first for one, _ in self._ranges]

    def overlapping(self, mine: AddressRange) -> tuple[AddressRange, str] | None:
        """A range, with the name of its pool."""
        # the last that begins before mine ends is the only one that can reach furthest into it
        place = bisect_right(self._firsts, mine.last) - 1
        found = self._ranges[place] if place >= 0 else None
        return found if found and found[0].overlaps(mine) else None


def _problem(pool: AddressPool, older: _TakenRanges, *, permitted: Collection[AddressRange]) -> str:
    if pool.problems:
        return "; ".join(pool.problems)
    for mine in pool.ranges:
        if found := older.overlapping(mine):
            return f"spec.addresses: {mine} overlaps {found[0]} of pool {found[1]}, which is older"
        if not any(mine.within(one) for one in permitted):
            allowed = ", ".join(map(str, permitted))
            return f"spec.addresses: {mine} is not within {allowed}, what the cloud lets nodes answer for"
    return ""


def _priority(pool: AddressPool) -> float:
    """The lowest goes first; 0 is none."""
    return _FOR_ALL if pool.allocation is None else pool.allocation.priority or _NO_PRIORITY


def _current(service: Service) -> IPv4Address | None:
    try:
        return IPv4Address(service.ingress[0].ip) if service.ingress else None
    except ValueError:
        return None


def _no_longer(request: AllocationRequest, current: IPv4Address, *, pools: ValidatedPools, wanted: RequestedAddress) -> str:
    """Why the Service cannot keep its address, empty where it can."""
    pool = pools.of(current)
    if pool is None:
        return f"{current} is in no pool"
    if wanted.address not in (None, current):
        return f"the Service asks for {wanted.address}"
    return _objection(request, current, pool=pool, wanted=wanted)


def _objection(request: AllocationRequest, address: IPv4Address, *, pool: AddressPool, wanted: RequestedAddress) -> str:
    """Why the Service cannot have this address of this pool."""
    if wanted.pool not in ("", pool.name):
        return f"{address} is of pool {pool.name}, and the Service asks for pool {wanted.pool}"
    if not _permits(request, pool):
        return f"pool {pool.name} is not for this Service (spec.serviceAllocation of the pool)"
    why = _unshared(request.service, wanted, others=request.held.get(address, ()))
    return f"{address} cannot be shared: {why}" if why else ""


def _candidates(request: AllocationRequest, pools: ValidatedPools, *, wanted: RequestedAddress) -> list[AddressPool]:
    if wanted.pool:
        pool = next((one for one in pools.usable if one.name == wanted.pool), None)
        if pool is None:
            why = pools.refused.get(wanted.pool, "it does not exist")
            raise UsageError(f"pool {wanted.pool} cannot be used: {why}", hint=_known(pools))
        if not _permits(request, pool):
            raise UsageError(f"pool {pool.name} is not for this Service (spec.serviceAllocation of the pool)")
        return [pool]
    return [one for one in pools.usable if one.auto_assign and _permits(request, one)]


def _permits(request: AllocationRequest, pool: AddressPool) -> bool:
    rule, service = pool.allocation, request.service
    if rule is None:
        return True
    if rule.namespaces or rule.selectors:
        selected = any(one.matches(request.namespace) for one in rule.selectors)
        if service.namespace not in rule.namespaces and not selected:
            return False
    return not rule.services or any(one.matches(service.labels) for one in rule.services)


def _free(pool: AddressPool, request: AllocationRequest, *, wanted: RequestedAddress) -> Iterator[IPv4Address]:
    """Addresses that others share go first."""
    if wanted.sharing:
        for address in sorted(request.held):
            if address in pool and not _unshared(request.service, wanted, others=request.held[address]):
                yield address
    yield from (one for one in pool.addresses() if one not in request.held)


def _unshared(service: Service, wanted: RequestedAddress, *, others: Sequence[Service]) -> str:
    for other in others:
        name = other.key
        if not wanted.sharing or sharing_key(other) != wanted.sharing:
            return f"Service {name} has it, and the two have no sharing key in common (annotation allow-shared-ip)"
        taken = {(one.protocol, one.port) for one in other.ports}
        if both := sorted((one.protocol, one.port) for one in service.ports if (one.protocol, one.port) in taken):
            return f"Service {name} has port {both[0][1]}/{both[0][0]} of it"
        if (service.local_traffic or other.local_traffic) and (
            service.local_traffic != other.local_traffic or service.selector != other.selector
        ):
            return f"Service {name} routes in another way (externalTrafficPolicy Local needs the same policy and selector)"
    return ""


def _known(pools: ValidatedPools) -> str:
    shown = [f"{one.name} ({', '.join(map(str, one.ranges))})" for one in pools.usable]
    return f"pools: {', '.join(shown)}" if shown else "there is no pool that can be used"
