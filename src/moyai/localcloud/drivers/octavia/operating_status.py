"""Pure: what the checks found → the operating status of every object, by Octavia's words and rules.

A member: OFFLINE when switched off or not in use, NO_MONITOR without checks, DRAINING with weight 0, else ONLINE or ERROR by
its checks (OFFLINE until the first one). A pool: ERROR when no member can be used, DEGRADED when some cannot. A listener is
ERROR when all pools that it uses are, DEGRADED when some are not ONLINE; a load balancer is so by its listeners. L7 policies
and rules are ONLINE when switched on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from moyai.localcloud.drivers.octavia.balancer_tree import Listener, LoadBalancer, Member, Pool

ONLINE, OFFLINE, DEGRADED, ERROR = "ONLINE", "OFFLINE", "DEGRADED", "ERROR"
NO_MONITOR, DRAINING = "NO_MONITOR", "DRAINING"

Statuses = dict[str, dict[str, str]]  # kind (as Octavia's driver library names it) → id → operating status
KINDS = ("members", "healthmonitors", "pools", "l7rules", "l7policies", "listeners", "loadbalancers")


def derive(balancer: LoadBalancer, health: Mapping[str, bool | None]) -> Statuses:
    """The operating status of all objects that are not being deleted.

    ``health``: by member id, whether its checks say that it works; None: not checked yet.
    """
    found: Statuses = {kind: {} for kind in KINDS}
    used = {pool.id for listener in balancer.live_listeners for pool in balancer.pools_of(listener)}
    for pool in balancer.pools:
        if pool.status == "PENDING_DELETE":
            continue
        in_use = pool.live and pool.id in used
        members = [one for one in pool.members if one.status != "PENDING_DELETE"]
        of_members = {one.id: _member(one, pool, health=health, in_use=in_use) for one in members}
        found["members"].update(of_members)
        if pool.monitor is not None and pool.monitor.status != "PENDING_DELETE":
            found["healthmonitors"][pool.monitor.id] = ONLINE if pool.monitor.enabled else OFFLINE
        counting = [of_members[one.id] for one in members if one.enabled]
        found["pools"][pool.id] = _pool(counting) if in_use else OFFLINE
    for listener in balancer.listeners:
        if listener.status == "PENDING_DELETE":
            continue
        found["listeners"][listener.id] = _listener(listener, balancer, pools=found["pools"])
        for policy in listener.policies:
            if policy.status == "PENDING_DELETE":
                continue
            found["l7policies"][policy.id] = ONLINE if policy.enabled else OFFLINE
            for rule in policy.rules:
                if rule.status != "PENDING_DELETE":
                    found["l7rules"][rule.id] = ONLINE if rule.enabled else OFFLINE
    found["loadbalancers"][balancer.id] = (
        _worst(found["listeners"][one.id] for one in balancer.live_listeners) if balancer.enabled else OFFLINE
    )
    return found


def _member(member: Member, pool: Pool, *, health: Mapping[str, bool | None], in_use: bool) -> str:
    if not member.enabled or not pool.enabled:
        return OFFLINE
    if pool.live_monitor is None:
        return NO_MONITOR
    if not in_use:
        return OFFLINE
    well = health.get(member.id)
    if well is None:
        # no check has ended yet: after a reload the former result still holds
        return member.operating if member.operating in (ONLINE, ERROR, DRAINING) else OFFLINE
    if not well:
        return ERROR
    return DRAINING if member.weight == 0 else ONLINE


def _pool(members: list[str]) -> str:
    bad = sum(one == ERROR for one in members)
    if members and bad == len(members):
        return ERROR
    return DEGRADED if bad else ONLINE


def _listener(listener: Listener, balancer: LoadBalancer, *, pools: Mapping[str, str]) -> str:
    if not listener.enabled or not balancer.enabled:
        return OFFLINE
    return _worst(pools[pool.id] for pool in balancer.pools_of(listener))


def _worst(statuses: Iterable[str]) -> str:
    seen = set(statuses)
    if not seen or seen == {ONLINE}:
        return ONLINE
    return ERROR if seen == {ERROR} else DEGRADED
