"""A load balancer of NIFCLOUD, of either type, as it is wanted and as it is; what cannot be had; what leads from one to the
other.

Pure. It is no tree of ``cloud.load_balancers``: a balancer has pairs of ports, of which each has its check, its members and its
filter; members are servers by name; and an L4 balancer has no place for an owner but its name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from moyai.cloud.nifcloud.nifcloud_limits import BalancerLimits

#: Balancing types: round robin, least connections.
ROUND_ROBIN, LEAST_CONNECTIONS = 1, 2


#: Before an entry of a filter that keeps its entries out, as somebody may have made it in the control panel. Never wanted.
DENIED = "deny "


@dataclass(frozen=True)
class HealthCheck:
    """``target``: ``TCP:30080`` or ``ICMP``. ``interval``: seconds. ``threshold``: failures in a row."""

    target: str
    interval: int = 10
    threshold: int = 1


@dataclass(frozen=True)
class PortPair:
    """``port``: clients'. ``node_port``: members'. ``members``: names of servers. ``allowed``: addresses and ranges that are
    let in, none: everybody; with ``DENIED``: that are kept out."""

    protocol: str
    port: int
    node_port: int
    check: HealthCheck
    members: frozenset[str] = frozenset()
    balancing: int = ROUND_ROBIN
    allowed: frozenset[str] = frozenset()

    @property
    def key(self) -> tuple[str, int, int]:
        return self.protocol, self.port, self.node_port


@dataclass(frozen=True)
class BalancerArm:
    """A network that an ``elb`` is in. ``address`` and ``system_addresses`` are for private LANs, two of the latter."""

    network: str
    address: str = ""
    system_addresses: tuple[str, ...] = ()
    vip: bool = False


@dataclass(frozen=True)
class PairBalancer:
    """``address``: its VIP, empty while it has none. ``available``: whether it takes a change. ``volume``: Mbit/s.
    ``accounting``: 1 by the month, 2 by the hour, as it is from the next month on: a change has its effect then. ``policy``: L4
    alone. ``zone``, ``arms``: ``elb`` alone."""

    name: str
    pairs: tuple[PortPair, ...]
    address: str = ""
    volume: int = 10
    accounting: str = "2"
    policy: str = "standard"
    zone: str = ""
    arms: tuple[BalancerArm, ...] = ()
    available: bool = True


def problems(wanted: PairBalancer, limits: BalancerLimits) -> Iterator[str]:
    """What no balancer of the type can be, in sentences for its user."""
    kind = f"load balancers of type {limits.name}"
    if not wanted.pairs:
        yield f"{kind} have at least one port"
    if len(wanted.pairs) > limits.ports:
        yield f"{kind} have at most {limits.ports} ports, {len(wanted.pairs)} are asked for"
    if wanted.volume not in limits.volumes:
        yield f"{kind} have no network volume {wanted.volume}: it is one of {', '.join(map(str, limits.volumes))}"
    if wanted.accounting not in ("1", "2"):
        yield f"there is no accounting type {wanted.accounting!r}: it is 1 (by the month) or 2 (by the hour)"
    if limits.private and not wanted.zone:
        yield f"{kind} are made in a zone"
    for one in wanted.pairs:
        yield from _pair_problems(one, limits, kind=kind)
    for arm in wanted.arms if limits.private else ():
        given = arm.network.startswith("net-COMMON_")
        if given and (arm.address or arm.system_addresses):
            yield f"network {arm.network} gives the balancer its addresses: none can be named"
        if not given and not (arm.address and len(arm.system_addresses) == 2):
            yield f"in network {arm.network} a load balancer needs an address and exactly two system addresses"


def _pair_problems(one: PortPair, limits: BalancerLimits, *, kind: str) -> Iterator[str]:
    if one.protocol != "TCP" and not (limits.udp and one.protocol == "UDP"):
        yield f"{kind} carry {'TCP or UDP' if limits.udp else 'TCP'}, port {one.port} is {one.protocol}"
    if not 1 <= one.node_port <= 65535:
        yield f"port {one.port} has no node port"
    if one.allowed and not limits.filters:
        yield f"{kind} let everybody in: allowed ranges cannot be named"
    elif len(one.allowed) > limits.filters:
        yield f"{kind} let in at most {limits.filters} addresses and ranges, port {one.port} names {len(one.allowed)}"
    (least, most), (few, many) = limits.interval, limits.threshold
    if not least <= one.check.interval <= most:
        yield f"a health check's interval is {least} to {most} seconds, {one.check.interval} is asked for"
    if not few <= one.check.threshold <= many:
        yield f"a health check's threshold is {few} to {many}, {one.check.threshold} is asked for"
    if one.balancing not in (ROUND_ROBIN, LEAST_CONNECTIONS):
        yield f"there is no balancing type {one.balancing}: it is 1 (round robin) or 2 (least connections)"


# ---- what leads from the balancer that is to the one that is wanted


@dataclass(frozen=True)
class MakePairBalancer:
    """With its first pair."""

    pair: PortPair


@dataclass(frozen=True)
class AddPair:
    pair: PortPair


@dataclass(frozen=True)
class MovePair:
    """In place: ports and balancing type change, members and filter stay. A balancer that loses its last pair is gone, with its
    address; one with three takes no fourth."""

    found: PortPair
    wanted: PortPair


@dataclass(frozen=True)
class DropPair:
    pair: PortPair


@dataclass(frozen=True)
class CheckPair:
    pair: PortPair


@dataclass(frozen=True)
class FilterPair:
    """``add`` before ``remove``: a filter that becomes empty may let everybody in. Entries with ``DENIED`` go before: they
    would be let in once the filter is one that lets its entries in."""

    pair: PortPair
    add: frozenset[str]
    remove: frozenset[str]


@dataclass(frozen=True)
class JoinPair:
    pair: PortPair
    servers: frozenset[str]


@dataclass(frozen=True)
class LeavePair:
    pair: PortPair
    servers: frozenset[str]


@dataclass(frozen=True)
class OrderBalancer:
    """``volume``, ``accounting``: what changes; None: it stays."""

    volume: int | None = None
    accounting: str | None = None


BalancerStep = MakePairBalancer | AddPair | MovePair | DropPair | CheckPair | FilterPair | JoinPair | LeavePair | OrderBalancer


def balancer_steps(wanted: PairBalancer, found: PairBalancer | None) -> list[BalancerStep]:
    """In an order in which the balancer serves whom it can all the time. What a made or added pair needs further comes with the
    next look, so that a half-made balancer is completed in the same way."""
    if found is None:
        return [MakePairBalancer(wanted.pairs[0])]
    steps: list[BalancerStep] = []
    has = {one.key: one for one in found.pairs}
    missing = [one for one in wanted.pairs if one.key not in has]
    surplus = [one for one in found.pairs if one.key not in {pair.key for pair in wanted.pairs}]
    # first those that keep the clients' port, then any
    for kept in (2, 0):
        for one in list(missing):
            if old := next((other for other in surplus if one.key[:kept] == other.key[:kept]), None):
                steps.append(MovePair(old, one))
                missing.remove(one)
                surplus.remove(old)
    steps += [AddPair(one) for one in missing]
    for one in wanted.pairs:
        if now := has.get(one.key):
            steps += _pair_steps(one, now)
    steps += [DropPair(one) for one in surplus]
    if (wanted.volume, wanted.accounting) != (found.volume, found.accounting):
        steps.append(
            OrderBalancer(
                wanted.volume if wanted.volume != found.volume else None,
                wanted.accounting if wanted.accounting != found.accounting else None,
            )
        )
    return steps


def _pair_steps(wanted: PortPair, now: PortPair) -> Iterator[BalancerStep]:
    if wanted.check != now.check:
        yield CheckPair(wanted)
    if wanted.allowed != now.allowed:
        yield FilterPair(wanted, wanted.allowed - now.allowed, now.allowed - wanted.allowed)
    if joining := wanted.members - now.members:
        yield JoinPair(wanted, joining)
    if leaving := now.members - wanted.members:
        yield LeavePair(wanted, leaving)
    if wanted.balancing != now.balancing:
        yield MovePair(now, replace(now, balancing=wanted.balancing))
