"""Changes of a load balancer's tree. Pure: each returns another tree."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from moyai.cloud.load_balancers import Listener, LoadBalancer, Monitor, Pool


def head(found: LoadBalancer) -> LoadBalancer:
    """Without its tree."""
    return replace(found, listeners=(), loose_pools=())


def planted(wanted: LoadBalancer, new_id: Callable[[], str]) -> LoadBalancer:
    """With ids for itself and all its parts."""
    return replace(wanted, id=new_id(), listeners=tuple(listener(one, new_id) for one in wanted.listeners))


def listener(wanted: Listener, new_id: Callable[[], str]) -> Listener:
    pool = wanted.pool
    if pool:
        pool = replace(
            pool,
            id=new_id(),
            members=tuple(replace(one, id=new_id()) for one in pool.members),
            monitor=replace(pool.monitor, id=new_id()) if pool.monitor else None,
        )
    return replace(wanted, id=new_id(), pool=pool)


def pools(found: LoadBalancer) -> Iterator[Pool]:
    for one in found.listeners:
        if one.pool:
            yield one.pool
    yield from found.loose_pools


def parts(found: LoadBalancer) -> Iterator[str]:
    """Ids of its listeners, pools and monitors."""
    for one in found.listeners:
        yield one.id
    for pool in pools(found):
        yield pool.id
        if pool.monitor:
            yield pool.monitor.id


def change_listener(found: LoadBalancer, listener_id: str, *, changes: Mapping[str, Any]) -> LoadBalancer:
    return replace(found, listeners=tuple(replace(one, **changes) if one.id == listener_id else one for one in found.listeners))


def without_listener(found: LoadBalancer, listener_id: str) -> LoadBalancer:
    """Its pool stays and is loose."""
    loose = tuple(one.pool for one in found.listeners if one.id == listener_id and one.pool)
    return replace(
        found,
        listeners=tuple(one for one in found.listeners if one.id != listener_id),
        loose_pools=(*found.loose_pools, *loose),
    )


def change_pool(found: LoadBalancer, pool_id: str, *, change: Callable[[Pool], Pool]) -> LoadBalancer:
    def changed(pool: Pool) -> Pool:
        return change(pool) if pool.id == pool_id else pool

    return replace(
        found,
        listeners=tuple(replace(one, pool=changed(one.pool)) if one.pool else one for one in found.listeners),
        loose_pools=tuple(changed(one) for one in found.loose_pools),
    )


def without_pool(found: LoadBalancer, pool_id: str) -> LoadBalancer:
    return replace(
        found,
        listeners=tuple(replace(one, pool=None) if one.pool and one.pool.id == pool_id else one for one in found.listeners),
        loose_pools=tuple(one for one in found.loose_pools if one.id != pool_id),
    )


def change_monitor(found: LoadBalancer, monitor_id: str, *, change: Callable[[Monitor], Monitor | None]) -> LoadBalancer:
    pool_id = next(one.id for one in pools(found) if one.monitor and one.monitor.id == monitor_id)
    return change_pool(
        found, pool_id, change=lambda pool: replace(pool, monitor=change(pool.monitor) if pool.monitor else pool.monitor)
    )
