"""Makes one load balancer in the cloud as it should be, and takes it away.

What always holds: before a load balancer is created it is looked for by name and tag, so that one from a call whose answer was
lost is adopted, never doubled; a load balancer of another cluster is never touched; after every change the cloud is waited for
until it takes the next one; a load balancer that has failed is rebuilt, because the cloud lets nobody mend it; no wait is long:
a load balancer that takes its time (``StillWorking``) is looked at again later and holds no worker meanwhile.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Literal, TypeVar

from moyai.ccm.provider import Report, StillWorking
from moyai.cloud.load_balancers import BalancerState, Health, LoadBalancer
from moyai.core.clock import Clock
from moyai.core.errors import Conflict, NotFound, Retriable, Terminal, UsageError
from moyai.core.ids import ClusterIdentity, cluster_tag, tag_owner
from moyai.core.waiting import NotYet, auntil
from moyai.plan.load_balancer import difference as plan
from moyai.plan.load_balancer.names import names_service
from moyai.plan.load_balancer.words import describe, explain
from moyai.runtime.calls import CloudCalls

T = TypeVar("T")
_log = logging.getLogger(__name__)

#: A wait that lasts longer gives its worker to others and looks again after the second number.
_HOLD_SECONDS, _LOOK_AGAIN_SECONDS = 5.0, 1.0


class LoadBalancerFailed(Retriable):
    """The cloud gave the load balancer up."""


class Balancers:
    """``poll``: seconds between two looks at a load balancer that is BUSY; ``hold``: for how long one wait may hold its
    caller; ``patience``: after how many seconds in the same state the user hears of it, as an error."""

    def __init__(
        self,
        calls: CloudCalls,
        *,
        cluster: ClusterIdentity,
        clock: Clock,
        poll: float = 0.2,
        hold: float = _HOLD_SECONDS,
        patience: float = 60.0,
    ) -> None:
        self._cloud, self._call = calls.cloud, calls.call
        self._calls = calls.cloud.load_balancers
        self._cluster = cluster
        self._clock = clock
        self._poll = poll
        self._hold = hold
        self._patience = patience
        #: Since when a load balancer is waited for.
        self._since: dict[str, float] = {}

    async def adopt(self, name: str, load_balancer_id: str = "") -> LoadBalancer | None:
        """The cluster's own by name and tag, of which doubles are deleted; else the one that the user names, which may be
        anybody's of this project.

        Raises UsageError when the named one is another cluster's.
        """
        tag = cluster_tag(self._cluster.uid)
        found = sorted(
            (one for one in await self._call(self._calls.load_balancers, name=name) if tag in one.tags),
            key=lambda one: (one.state in (BalancerState.FAILED, BalancerState.DELETING), one.id),
        )
        for extra in found[1:]:
            # two leaders made one each, in the moment of a change
            _log.warning("load balancer %s is there twice, deleting %s", name, extra.id)
            with contextlib.suppress(Conflict):  # still BUSY: the next look deletes it
                await self._call(self._calls.delete, extra.id)
        if found:
            return found[0]
        return await self._named(load_balancer_id) if load_balancer_id else None

    async def _named(self, load_balancer_id: str) -> LoadBalancer | None:
        try:
            named = await self._call(self._calls.head, load_balancer_id)
        except NotFound:
            return None
        others = [uid for tag in named.tags if (uid := tag_owner(tag)) and uid != self._cluster.uid]
        if others:
            raise UsageError(f"load balancer {load_balancer_id} belongs to another cluster ({cluster_tag(others[0])})")
        return named

    def owned(self, found: LoadBalancer, name: str) -> bool:
        """Whether the whole load balancer is the Service's own, not only some listeners in it."""
        return found.name == name and cluster_tag(self._cluster.uid) in found.tags

    def users(self, found: LoadBalancer, name: str) -> list[str]:
        """Tags of other Services that use it."""
        return [tag for tag in found.tags if names_service(tag) and tag != name]

    async def create(self, wanted: LoadBalancer) -> LoadBalancer:
        if not (wanted.vip_subnet_id or wanted.vip_network_id or wanted.vip_port_id):
            raise UsageError(
                "nothing says in which subnet the load balancer shall be",
                hint="set subnet-id in [LoadBalancer] of the cloud config, or annotation loadbalancer.openstack.org/subnet-id",
            )
        return await self._call(self._calls.create, wanted)

    # --- waiting ------------------------------------------------------------------------------------------------------

    def yield_if_slow(self, found: LoadBalancer) -> None:
        """Raises what ``wait`` would raise, for a load balancer that was waited for long enough already."""
        since = self._since.get(found.id)
        if since is None:
            return
        if found.state in (BalancerState.BUSY, BalancerState.DELETING) and self._clock.monotonic() - since > self._hold:
            raise self._slow(found.id, f"load balancer {found.name} is still {found.status}")

    async def wait(self, load_balancer_id: str) -> LoadBalancer:
        """Until it takes changes. Raises LoadBalancerFailed, NotFound, StillWorking, and Retriable at the end of patience."""

        async def look() -> LoadBalancer | NotYet:
            found = await self._call(self._calls.head, load_balancer_id)
            if found.state is BalancerState.ACTIVE:
                return found
            if found.state in (BalancerState.BUSY, BalancerState.DELETING):
                return NotYet(f"load balancer {found.name} is still {found.status}")
            raise LoadBalancerFailed(f"load balancer {found.name} is {found.status} in the cloud", object_id=load_balancer_id)

        return await self._until(look, load_balancer_id)

    async def wait_gone(self, load_balancer_id: str) -> None:
        """Until it does not exist any more. Raises as ``wait`` does."""

        async def look() -> Literal[True] | NotYet:
            try:
                found = await self._call(self._calls.head, load_balancer_id)
            except NotFound:
                return True
            if found.state is BalancerState.DELETED:
                return True
            if found.state is BalancerState.FAILED:
                raise LoadBalancerFailed(
                    f"load balancer {found.name} went to ERROR while it was deleted", object_id=load_balancer_id
                )
            return NotYet(f"load balancer {found.name} is still being deleted")

        await self._until(look, load_balancer_id)

    async def _until(self, look: Callable[[], Awaitable[T | NotYet]], load_balancer_id: str) -> T:
        now = self._clock.monotonic()
        since = self._since.setdefault(load_balancer_id, now)
        try:
            seen = await auntil(
                look,
                clock=self._clock,
                timeout=max(0.0, self._hold - (now - since)),
                pause=self._poll,
                retry=(),
                late=lambda seen: self._slow(load_balancer_id, seen.missing),
            )
        except StillWorking:
            raise
        except BaseException:
            self._since.pop(load_balancer_id, None)
            raise
        self._since.pop(load_balancer_id, None)
        return seen

    def _slow(self, load_balancer_id: str, missing: str) -> Retriable:
        waited = self._clock.monotonic() - self._since.get(load_balancer_id, self._clock.monotonic())
        if waited <= self._patience:
            return StillWorking(missing, requeue_after=_LOOK_AGAIN_SECONDS, object_id=load_balancer_id)
        self._since.pop(load_balancer_id, None)
        return Retriable(f"{missing} after {waited:.0f} s", object_id=load_balancer_id)

    # --- changing -----------------------------------------------------------------------------------------------------

    async def apply(self, desired: LoadBalancer, load_balancer_id: str, *, shared: bool) -> list[str]:
        """Change what differs; returns what was done in a user's words, empty when everything is as wanted."""
        head = await self.wait(load_balancer_id)
        observed = await self._call(self._calls.get, load_balancer_id)
        changes = plan.plan_changes(desired, observed, shared=shared)
        if shared and desired.name not in head.tags:
            await self._call(self._calls.update, load_balancer_id, tags=[*head.tags, desired.name])
            await self.wait(load_balancer_id)
        await self._run_all(changes, load_balancer_id)
        return list(dict.fromkeys(explain(change) for change in changes))

    async def _run_all(self, changes: Iterable[plan.BalancerChange], load_balancer_id: str) -> None:
        for change in changes:
            _log.info("load balancer %s: %s", load_balancer_id, describe(change))
            await self._run(change, load_balancer_id)

    async def _run(self, change: plan.BalancerChange, balancer: str) -> None:
        call, calls = self._call, self._calls
        match change:
            case plan.DeleteListener():
                await call(calls.delete_listener, change.listener_id)
                if change.pool_id:
                    await self.wait(balancer)
                    await call(calls.delete_pool, change.pool_id)
            case plan.DeletePool():
                await call(calls.delete_pool, change.pool_id)
            case plan.CreateListener():
                made = await call(calls.create_listener, balancer, change.listener)
                if change.listener.pool:
                    await self.wait(balancer)
                    await self._run(plan.CreatePool(made.id, change.listener.pool), balancer)
            case plan.UpdateListener():
                await call(calls.update_listener, change.listener_id, change.changes)
            case plan.CreatePool():
                pool = await call(calls.create_pool, change.pool, listener_id=change.listener_id)
                await self.wait(balancer)
                if change.pool.members:
                    await self._run(plan.SetMembers(pool.id, change.pool.members), balancer)
                if change.pool.monitor:
                    await self._run(plan.CreateMonitor(pool.id, change.pool.monitor), balancer)
            case plan.UpdatePool():
                await call(calls.update_pool, change.pool_id, change.changes)
            case plan.SetMembers():
                await call(calls.set_members, change.pool_id, change.members)
            case plan.CreateMonitor():
                await call(calls.create_monitor, change.pool_id, change.monitor)
            case plan.UpdateMonitor():
                await call(calls.update_monitor, change.monitor_id, change.changes)
            case plan.DeleteMonitor():
                await call(calls.delete_monitor, change.monitor_id)
        await self.wait(balancer)

    async def rebuild(self, found: LoadBalancer, report: Report) -> bool:
        """Of one that has failed: True when a fail-over mended it, False when it was deleted and has to be recreated."""
        if found.health in (Health.ONLINE, Health.DEGRADED):
            # it carries traffic: a fail-over keeps its address. Most clouds allow that to administrators only
            try:
                await self._call(self._calls.failover, found.id)
                report(
                    "Warning", reason="LoadBalancerFailover", message=f"Load balancer {found.id} is in ERROR, failing it over"
                )
                await self.wait(found.id)
            except (Terminal, LoadBalancerFailed) as error:
                _log.info("fail-over of %s did not help: %s", found.id, error)
            else:
                return True
        report(
            "Warning",
            reason="LoadBalancerRebuilt",
            message=f"Load balancer {found.id} is in ERROR, recreating it; a floating IP stays the same",
        )
        await self._delete(found)
        return False

    async def remove(self, found: LoadBalancer, name: str) -> None:
        """The whole, where nobody else uses it; else only what is the Service's in it."""
        mine = cluster_tag(self._cluster.uid) in found.tags and names_service(found.name)
        if mine and not self.users(found, name):
            await self._delete(found)
            return
        if found.state is BalancerState.FAILED:
            raise LoadBalancerFailed(f"load balancer {found.name}, which others use too, is in ERROR", object_id=found.id)
        await self.wait(found.id)
        observed = await self._call(self._calls.get, found.id)
        await self._run_all(plan.plan_removal(name, observed), found.id)
        if name in observed.tags:
            await self._call(self._calls.update, found.id, tags=[tag for tag in observed.tags if tag != name])

    async def _delete(self, found: LoadBalancer) -> None:
        if found.state is BalancerState.BUSY:
            # the cloud refuses to delete what it is still building; what has failed it deletes
            with contextlib.suppress(LoadBalancerFailed):
                await self.wait(found.id)
        if found.state is not BalancerState.DELETING:
            await self._call(self._calls.delete, found.id)
        await self.wait_gone(found.id)

    async def of_cluster(self) -> list[LoadBalancer]:
        """All that carry the cluster's tag and were made for a Service."""
        found = await self._call(self._calls.load_balancers, tag=cluster_tag(self._cluster.uid))
        return [one for one in found if names_service(one.name)]
