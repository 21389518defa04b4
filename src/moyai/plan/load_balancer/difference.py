"""The smallest changes from an observed load balancer to the desired one.

What always holds: listeners, pools and members are compared by what they do (transport and port, address and port), never by
name or order, so that a Service's ports may be reordered; only what a Service owns is changed or removed; members change in one
batch per pool; an object that is as desired yields no change.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from moyai.cloud.load_balancers import Listener, LoadBalancer, Member, Monitor, Pool
from moyai.core.errors import UsageError
from moyai.plan.load_balancer.names import names_service


@dataclass(frozen=True)
class DeleteListener:
    listener_id: str
    pool_id: str


@dataclass(frozen=True)
class DeletePool:
    pool_id: str


@dataclass(frozen=True)
class CreateListener:
    """With everything in it, one after the other."""

    listener: Listener


@dataclass(frozen=True)
class UpdateListener:
    listener_id: str
    changes: Mapping[str, Any]


@dataclass(frozen=True)
class CreatePool:
    """With its members and monitor."""

    listener_id: str
    pool: Pool


@dataclass(frozen=True)
class UpdatePool:
    pool_id: str
    changes: Mapping[str, Any]


@dataclass(frozen=True)
class SetMembers:
    pool_id: str
    members: tuple[Member, ...]


@dataclass(frozen=True)
class CreateMonitor:
    pool_id: str
    monitor: Monitor


@dataclass(frozen=True)
class UpdateMonitor:
    monitor_id: str
    changes: Mapping[str, Any]


@dataclass(frozen=True)
class DeleteMonitor:
    monitor_id: str


BalancerChange = (
    DeleteListener
    | DeletePool
    | CreateListener
    | UpdateListener
    | CreatePool
    | UpdatePool
    | SetMembers
    | CreateMonitor
    | UpdateMonitor
    | DeleteMonitor
)

_LISTENER_COMPARED = (
    "allowed_cidrs",
    "connection_limit",
    "timeout_client_data_ms",
    "timeout_member_connect_ms",
    "timeout_member_data_ms",
    "timeout_tcp_inspect_ms",
    "insert_headers",
)
_POOL_COMPARED = ("algorithm", "persistence")
_MONITOR_COMPARED = ("delay", "timeout", "max_retries", "max_retries_down", "url_path", "http_method", "expected_codes")


#: Whether what has these tags is the Service's.
Mine = Callable[[Collection[str]], bool]


def plan_changes(
    desired: LoadBalancer, observed: LoadBalancer, *, shared: bool, mine: Mine | None = None
) -> list[BalancerChange]:
    """Changes in an order that never needs one port twice. ``shared``: others use the load balancer too, so only what carries
    the Service's tag is ours. ``mine`` None: its tag is the desired name. Raises UsageError when a port that is wanted belongs
    to somebody else.
    """

    def ours(tags: Collection[str]) -> bool:
        own = mine(tags) if mine else desired.name in tags
        return own or (not shared and not any(map(names_service, tags)))

    owned = {one.key: one for one in observed.listeners if ours(one.tags)}
    foreign = {one.key for one in observed.listeners} - set(owned)
    wanted = {one.key: one for one in desired.listeners}
    removals: list[BalancerChange] = []
    changes: list[BalancerChange] = []
    additions: list[BalancerChange] = []
    for key, listener in owned.items():
        target = wanted.get(key)
        if target is None or target.protocol != listener.protocol:
            removals.append(DeleteListener(listener.id, listener.pool.id if listener.pool else ""))
            if target:
                additions.append(CreateListener(target))
        else:
            changes += _listener_changes(target, listener)
    for key, target in wanted.items():
        if key in foreign:
            raise UsageError(
                f"{key[0]} port {key[1]} of load balancer {observed.name} is taken by another user of it",
                hint="choose another port or another load balancer",
            )
        if key not in owned:
            additions.append(CreateListener(target))
    removals += [DeletePool(pool.id) for pool in observed.loose_pools if ours(pool.tags)]
    return removals + changes + additions


def plan_removal(mine: Mine, observed: LoadBalancer) -> list[BalancerChange]:
    """Take a Service out of a load balancer that others use."""
    return plan_changes(LoadBalancer(name=""), observed, shared=True, mine=mine)


def _differences(desired: object, observed: object, *, names: Iterable[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in names:
        want, have = getattr(desired, name), getattr(observed, name)
        if name == "allowed_cidrs":
            if set(want) != set(have):
                found[name] = want
        elif want is not None and want != have:
            found[name] = want
    return found


def _listener_changes(desired: Listener, observed: Listener) -> list[BalancerChange]:
    found: list[BalancerChange] = []
    if changes := _differences(desired, observed, names=_LISTENER_COMPARED):
        found.append(UpdateListener(observed.id, changes))
    want, have = desired.pool, observed.pool
    if want is None:
        return found
    if have is not None and have.protocol != want.protocol:
        found.append(DeletePool(have.id))
        have = None
    if have is None:
        return [*found, CreatePool(observed.id, want)]
    if changes := _differences(want, have, names=_POOL_COMPARED):
        found.append(UpdatePool(have.id, changes))
    if not same_members(want.members, have.members):
        found.append(SetMembers(have.id, want.members))
    return found + _monitor_changes(want.monitor, have)


def same_members(desired: Iterable[Member], observed: Iterable[Member]) -> bool:
    """Whether both mean the same backends; a subnet that nobody asked for is no difference."""
    have = {one.key: one for one in observed}
    want = {one.key: one for one in desired}
    return have.keys() == want.keys() and all(
        one.weight == have[key].weight
        and one.monitor_port == have[key].monitor_port
        and one.subnet_id in ("", have[key].subnet_id)
        for key, one in want.items()
    )


def _monitor_changes(want: Monitor | None, pool: Pool) -> list[BalancerChange]:
    have = pool.monitor
    if want is None:
        return [DeleteMonitor(have.id)] if have else []
    if have is None:
        return [CreateMonitor(pool.id, want)]
    if have.type != want.type:
        return [DeleteMonitor(have.id), CreateMonitor(pool.id, want)]
    changes = _differences(want, have, names=_MONITOR_COMPARED)
    return [UpdateMonitor(have.id, changes)] if changes else []
