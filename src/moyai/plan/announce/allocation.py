"""Which address a Service gets: from pools, what others hold, and what the Service asks for.

Always holds: a Service keeps the address that it has for as long as it is right; two Services have one address only if both
say the same sharing key, use different ports, and route in the same way.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from moyai.core.errors import MoyaiError, Retriable, UsageError
from moyai.kube.objects import AddressPool, Service
from moyai.plan.announce.metallb_words import Wishes, wishes


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


def judged(pools: Collection[AddressPool]) -> Pools:
    """A pool that overlaps one that goes before it, by name, is refused whole: an address is in one pool."""
    usable: list[AddressPool] = []
    refused: dict[str, str] = {}
    for pool in sorted(pools, key=lambda one: one.name):
        if pool.deleting:
            continue
        others = ((mine, other, theirs) for mine in pool.ranges for other in usable for theirs in other.ranges)
        crossed = next((found for found in others if found[0].overlaps(found[2])), None)
        if pool.problems:
            refused[pool.name] = "; ".join(pool.problems)
        elif crossed is not None:
            refused[pool.name] = f"spec.addresses: {crossed[0]} overlaps {crossed[2]} of pool {crossed[1].name}"
        else:
            usable.append(pool)
    return Pools(tuple(sorted(usable, key=lambda one: (_priority(one), one.name))), refused)


def _priority(pool: AddressPool) -> float:
    """Pools for certain Services go before those for all; 0 is the last priority."""
    if pool.allocation is None:
        return float("inf")
    return pool.allocation.priority or 2.0**32


def choose(service: Service, pools: Pools, *, held: Mapping[IPv4Address, Sequence[Service]]) -> Given:
    """``held``: address → the other Services that have it. Raises UsageError for wishes that cannot be fulfilled as they are,
    Retriable where addresses have run out."""
    wish = wishes(service)
    current = _current(service)
    moved = ""
    if current is not None:
        pool = _pool_of(current, pools)
        try:
            if pool is not None and wish.address in (None, current) and wish.pool in ("", pool.name):
                _permit(service, pool, wish=wish)
                _share(service, current, wish=wish, held=held)
                return Given(current, pool.name)
            moved = f"{current} is in no pool" if pool is None else f"the Service asks for another address than {current}"
        except MoyaiError as error:
            moved = str(error)
    if wish.address is not None:
        pool = _pool_of(wish.address, pools)
        if pool is None:
            raise UsageError(f"{wish.address} is in no pool", hint=_known(pools))
        if wish.pool not in ("", pool.name):
            raise UsageError(f"{wish.address} is of pool {pool.name}, not of {wish.pool}")
        _permit(service, pool, wish=wish)
        _share(service, wish.address, wish=wish, held=held)
        return Given(wish.address, pool.name, moved)
    candidates = _candidates(service, pools, wish=wish)
    for pool in candidates:
        for address in _free(pool, wish=wish, held=held, service=service):
            return Given(address, pool.name, moved)
    names = ", ".join(one.name for one in candidates)
    raise (
        Retriable(f"no address is left in {names}")
        if names
        else UsageError("no pool gives addresses to this Service", hint=_known(pools))
    )


def _current(service: Service) -> IPv4Address | None:
    try:
        return IPv4Address(service.ingress[0].ip) if service.ingress else None
    except ValueError:
        return None


def _candidates(service: Service, pools: Pools, *, wish: Wishes) -> list[AddressPool]:
    if wish.pool:
        pool = next((one for one in pools.usable if one.name == wish.pool), None)
        if pool is None:
            why = pools.refused.get(wish.pool, "it does not exist")
            raise UsageError(f"pool {wish.pool} cannot be used: {why}", hint=_known(pools))
        _permit(service, pool, wish=wish)
        return [pool]
    return [one for one in pools.usable if one.auto_assign and _permits(service, one)]


def _permit(service: Service, pool: AddressPool, *, wish: Wishes) -> None:
    if not _permits(service, pool):
        raise UsageError(f"pool {pool.name} is not for this Service (its serviceAllocation)")
    if not pool.auto_assign and wish.address is None and not wish.pool:
        raise UsageError(f"pool {pool.name} gives addresses only on request (autoAssign: false)")


def _permits(service: Service, pool: AddressPool) -> bool:
    rule = pool.allocation
    if rule is None:
        return True
    if rule.namespaces and service.namespace not in rule.namespaces:
        return False
    return not rule.services or any(one.matches(service.labels) for one in rule.services)


def _pool_of(address: IPv4Address, pools: Pools) -> AddressPool | None:
    return next((one for one in pools.usable if address in one), None)


def _free(
    pool: AddressPool, *, wish: Wishes, held: Mapping[IPv4Address, Sequence[Service]], service: Service
) -> Iterator[IPv4Address]:
    """Addresses that others share go first."""
    if wish.sharing:
        for address in sorted(held):
            if address in pool and not _objection(service, wish, others=held[address]):
                yield address
    for one in pool.ranges:
        for number in range(int(one.first), int(one.last) + 1):
            if pool.avoid_buggy and number & 0xFF in (0, 0xFF):
                continue
            address = IPv4Address(number)
            if address not in held:
                yield address


def _share(service: Service, address: IPv4Address, *, wish: Wishes, held: Mapping[IPv4Address, Sequence[Service]]) -> None:
    if why := _objection(service, wish, others=held.get(address, ())):
        raise UsageError(f"{address} cannot be shared: {why}")


def _objection(service: Service, wish: Wishes, *, others: Sequence[Service]) -> str:
    for other in others:
        name = other.key
        try:
            key = wishes(other).sharing
        except UsageError:
            key = ""
        if not wish.sharing or key != wish.sharing:
            return f"Service {name} has it, and the two have no sharing key in common (annotation allow-shared-ip)"
        taken = {(one.protocol, one.port) for one in other.ports}
        if both := sorted((one.protocol, one.port) for one in service.ports if (one.protocol, one.port) in taken):
            return f"Service {name} has port {both[0][1]} ({both[0][0]}) of it"
        if (service.local_traffic or other.local_traffic) and (
            service.local_traffic != other.local_traffic or service.selector != other.selector
        ):
            return f"Service {name} routes in another way (externalTrafficPolicy Local needs the same policy and selector)"
    return ""


def _known(pools: Pools) -> str:
    shown = [f"{one.name} ({', '.join(map(str, one.ranges))})" for one in pools.usable]
    return f"pools: {', '.join(shown)}" if shown else "there is no pool that can be used"
