"""What a balancer's pairs want below, and the next change that is missing for it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, ip_network

from moyai.cloud.load_balancers import (
    BalancingAlgorithm,
    CheckType,
    Health,
    Listener,
    LoadBalancer,
    LoadBalancers,
    Member,
    Monitor,
    Pool,
    TrafficProtocol,
)
from moyai.nifcloud_front.store.rows import PairRow

_EVERYBODY = IPv4Network("0.0.0.0/0")
#: Seconds that a check may take at most.
_PATIENCE = 10


@dataclass(frozen=True)
class Backend:
    """A machine as a balancer reaches it. ``running``: what a check by ICMP would find."""

    uid: str
    address: str
    subnet_id: str
    running: bool


def listener(uid: str, pair: PairRow, *, backends: Sequence[Backend]) -> Listener:
    """``uid``: the balancer's. ``backends``: the members that have an address."""
    protocol = {"UDP": TrafficProtocol.UDP, "HTTP": TrafficProtocol.HTTP}.get(pair.protocol, TrafficProtocol.TCP)
    name = f"{uid}-{pair.protocol.lower()}-{pair.port}"
    check_port = int(pair.health.target.partition(":")[2] or pair.instance_port)
    monitor = _monitor(name, pair)
    members = tuple(
        Member(
            one.address,
            pair.instance_port,
            one.subnet_id,
            monitor_port=None if monitor is None or check_port == pair.instance_port else check_port,
            name=one.uid,
        )
        for one in backends
        # no cloud below checks by ICMP: a machine that runs passes such a check
        if monitor or one.running
    )
    algorithm = BalancingAlgorithm.LEAST_CONNECTIONS if pair.balancing == 2 else BalancingAlgorithm.ROUND_ROBIN
    pool = Pool(name, protocol, algorithm, members, monitor)
    return Listener(name, protocol, pair.port, pool, allowed_cidrs=allowed(pair))


def _monitor(name: str, pair: PairRow) -> Monitor | None:
    health = pair.health
    kind = health.target.partition(":")[0]
    if kind == "ICMP":
        return None
    base = Monitor(CheckType.TCP, health.interval, min(health.interval, _PATIENCE), 1, health.unhealthy, name=name)
    if kind == "HTTP":
        return replace(base, type=CheckType.HTTP, url_path=health.path or "/", http_method="GET")
    return base


def allowed(pair: PairRow) -> tuple[str, ...]:
    """CIDRs that may come in, empty for everybody; what a filter of refusals leaves over."""
    named = [one for one in map(ip_network, pair.filtered) if isinstance(one, IPv4Network)]
    if not named:
        return ()
    if pair.filter_type == "1":
        return tuple(sorted(str(one) for one in named))
    left = [_EVERYBODY]
    for refused in named:
        left = [part for one in left for part in _without(one, refused)]
    return tuple(sorted(str(one) for one in left))


def _without(network: IPv4Network, refused: IPv4Network) -> list[IPv4Network]:
    if refused.supernet_of(network):
        return []
    return list(network.address_exclude(refused)) if network.supernet_of(refused) else [network]


Order = Callable[[LoadBalancers], object]


def next_change(there: LoadBalancer, wanted: Sequence[Listener]) -> Order | None:
    """One call that leads from a tree to what is wanted; None where nothing is missing."""
    keys = {one.key: one for one in wanted}
    for pool in there.loose_pools:
        return lambda cloud: cloud.delete_pool(pool.id)
    for one in there.listeners:
        aim = keys.get(one.key)
        if aim is None or aim.protocol is not one.protocol:
            return lambda cloud: cloud.delete_listener(one.id)
    found = {one.key: one for one in there.listeners}
    for aim in wanted:
        one = found.get(aim.key)
        if one is None:
            return lambda cloud: cloud.create_listener(there.id, aim)
        order = _listener_change(one, aim)
        if order is not None:
            return order
    return None


def _listener_change(one: Listener, aim: Listener) -> Order | None:
    assert aim.pool is not None
    goal, pool = aim.pool, one.pool
    if set(one.allowed_cidrs) != set(aim.allowed_cidrs):
        return lambda cloud: cloud.update_listener(one.id, {"allowed_cidrs": aim.allowed_cidrs})
    if pool is None:
        return lambda cloud: cloud.create_pool(replace(goal, members=(), monitor=None), listener_id=one.id)
    if pool.algorithm is not goal.algorithm:
        return lambda cloud: cloud.update_pool(pool.id, {"algorithm": goal.algorithm})
    if _members(pool) != _members(goal):
        return lambda cloud: cloud.set_members(pool.id, goal.members)
    return _monitor_change(pool, goal)


def _members(pool: Pool) -> set[tuple[str, int, int | None]]:
    return {(one.address, one.port, one.monitor_port) for one in pool.members}


def _monitor_change(pool: Pool, goal: Pool) -> Order | None:
    have, want = pool.monitor, goal.monitor
    if have is not None and (want is None or have.type is not want.type):
        return lambda cloud: cloud.delete_monitor(have.id)
    if want is None:
        return None
    if have is None:
        return lambda cloud: cloud.create_monitor(pool.id, want)
    fields = ("delay", "timeout", "max_retries", "max_retries_down", *(("url_path",) if want.url_path else ()))
    changes = {name: getattr(want, name) for name in fields if getattr(want, name) != getattr(have, name)}
    return (lambda cloud: cloud.update_monitor(have.id, changes)) if changes else None


def healthy(there: LoadBalancer, pair: PairRow, *, backends: Sequence[Backend]) -> tuple[str, ...]:
    """Uids of the members that answer their check."""
    by_key = {
        (pool.protocol is TrafficProtocol.UDP, one.port): pool for one in there.listeners if (pool := one.pool) is not None
    }
    pool = by_key.get((pair.protocol == "UDP", pair.port))
    if pool is None:
        return ()
    good = {
        one.address
        for one in pool.members
        if one.health is Health.ONLINE or (pool.monitor is None and one.health is not Health.FAILED)
    }
    return tuple(one.uid for one in backends if one.address in good and (pool.monitor or one.running))
