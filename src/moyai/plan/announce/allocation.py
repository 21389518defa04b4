"""Which address a Service gets: from pools, what others hold, and what the Service asks for.

Always holds: a Service keeps the address that it has for as long as it is right; two Services have one address only if both
say the same sharing key, use different ports, and route in the same way.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from moyai.core.errors import UsageError
from moyai.kube.objects import AddressPool, AddressRange, Service
from moyai.plan.announce.metallb_words import Wishes, sharing_key, wishes

#: Behind every priority that a pool can have: pools for certain Services without a priority, then those for all.
_NO_PRIORITY, _FOR_ALL = 2.0**64, float("inf")


@dataclass(frozen=True)
class Given:
    """``moved``: why the address is not the one that the Service had, empty where it is, or where it had none."""

    address: IPv4Address
    pool: str
    moved: str = ""


@dataclass(frozen=True)
class Pools:
    """``usable`` in the order in which they are asked. ``refused``: pool → why it is not used."""

    usable: tuple[AddressPool, ...]
    refused: Mapping[str, str]

    def of(self, address: IPv4Address) -> AddressPool | None:
        return next((one for one in self.usable if address in one), None)


@dataclass(frozen=True)
class Request:
    """A Service that asks for an address. ``held``: address → the other Services that have it. ``namespace``: labels of the
    Service's namespace."""

    service: Service
    held: Mapping[IPv4Address, Sequence[Service]]
    namespace: Mapping[str, str] = field(default_factory=dict[str, str])


def judged(pools: Collection[AddressPool], permitted: Collection[AddressRange]) -> Pools:
    """An address is in one pool: a pool that overlaps an older one is refused whole. So is one with addresses outside of
    ``permitted``: the cloud does not let nodes answer for them."""
    usable: list[AddressPool] = []
    refused: dict[str, str] = {}
    for pool in sorted(pools, key=lambda one: (one.created, one.name)):
        if pool.deleting:
            continue
        if why := _problem(pool, usable, permitted=permitted):
            refused[pool.name] = why
        else:
            usable.append(pool)
    return Pools(tuple(sorted(usable, key=lambda one: (_priority(one), one.name))), refused)


def choose(request: Request, pools: Pools) -> Given:
    """Raises UsageError where no address can be given: for wishes that cannot be fulfilled, and where addresses have run
    out."""
    service, wish = request.service, wishes(request.service)
    current, moved = _current(service), ""
    if current is not None and not (moved := _no_longer(request, current, pools=pools, wish=wish)):
        pool = pools.of(current)
        assert pool is not None, "_no_longer"
        return Given(current, pool.name)
    if wish.address is not None:
        pool = pools.of(wish.address)
        if pool is None:
            raise UsageError(f"{wish.address} is in no pool", hint=_known(pools))
        if why := _objection(request, wish.address, pool=pool, wish=wish):
            raise UsageError(why)
        return Given(wish.address, pool.name, moved)
    candidates = _candidates(request, pools, wish=wish)
    for pool in candidates:
        for address in _free(pool, request, wish=wish):
            return Given(address, pool.name, moved)
    if candidates:
        raise UsageError(f"no address is left in {', '.join(one.name for one in candidates)}")
    raise UsageError("no pool gives addresses to this Service", hint=_known(pools))


def _problem(pool: AddressPool, older: Collection[AddressPool], *, permitted: Collection[AddressRange]) -> str:
    if pool.problems:
        return "; ".join(pool.problems)
    for mine in pool.ranges:
        for other in older:
            for theirs in other.ranges:
                if mine.overlaps(theirs):
                    return f"spec.addresses: {mine} overlaps {theirs} of pool {other.name}, which is older"
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


def _no_longer(request: Request, current: IPv4Address, *, pools: Pools, wish: Wishes) -> str:
    """Why the Service cannot keep its address, empty where it can."""
    pool = pools.of(current)
    if pool is None:
        return f"{current} is in no pool"
    if wish.address not in (None, current):
        return f"the Service asks for {wish.address}"
    return _objection(request, current, pool=pool, wish=wish)


def _objection(request: Request, address: IPv4Address, *, pool: AddressPool, wish: Wishes) -> str:
    """Why the Service cannot have this address of this pool."""
    if wish.pool not in ("", pool.name):
        return f"{address} is of pool {pool.name}, and the Service asks for pool {wish.pool}"
    if not _permits(request, pool):
        return f"pool {pool.name} is not for this Service (spec.serviceAllocation of the pool)"
    why = _unshared(request.service, wish, others=request.held.get(address, ()))
    return f"{address} cannot be shared: {why}" if why else ""


def _candidates(request: Request, pools: Pools, *, wish: Wishes) -> list[AddressPool]:
    if wish.pool:
        pool = next((one for one in pools.usable if one.name == wish.pool), None)
        if pool is None:
            why = pools.refused.get(wish.pool, "it does not exist")
            raise UsageError(f"pool {wish.pool} cannot be used: {why}", hint=_known(pools))
        if not _permits(request, pool):
            raise UsageError(f"pool {pool.name} is not for this Service (spec.serviceAllocation of the pool)")
        return [pool]
    return [one for one in pools.usable if one.auto_assign and _permits(request, one)]


def _permits(request: Request, pool: AddressPool) -> bool:
    rule, service = pool.allocation, request.service
    if rule is None:
        return True
    if rule.namespaces or rule.selectors:
        selected = any(one.matches(request.namespace) for one in rule.selectors)
        if service.namespace not in rule.namespaces and not selected:
            return False
    return not rule.services or any(one.matches(service.labels) for one in rule.services)


def _free(pool: AddressPool, request: Request, *, wish: Wishes) -> Iterator[IPv4Address]:
    """Addresses that others share go first."""
    if wish.sharing:
        for address in sorted(request.held):
            if address in pool and not _unshared(request.service, wish, others=request.held[address]):
                yield address
    yield from (one for one in pool.addresses() if one not in request.held)


def _unshared(service: Service, wish: Wishes, *, others: Sequence[Service]) -> str:
    for other in others:
        name = other.key
        if not wish.sharing or sharing_key(other) != wish.sharing:
            return f"Service {name} has it, and the two have no sharing key in common (annotation allow-shared-ip)"
        taken = {(one.protocol, one.port) for one in other.ports}
        if both := sorted((one.protocol, one.port) for one in service.ports if (one.protocol, one.port) in taken):
            return f"Service {name} has port {both[0][1]}/{both[0][0]} of it"
        if (service.local_traffic or other.local_traffic) and (
            service.local_traffic != other.local_traffic or service.selector != other.selector
        ):
            return f"Service {name} routes in another way (externalTrafficPolicy Local needs the same policy and selector)"
    return ""


def _known(pools: Pools) -> str:
    shown = [f"{one.name} ({', '.join(map(str, one.ranges))})" for one in pools.usable]
    return f"pools: {', '.join(shown)}" if shown else "there is no pool that can be used"
