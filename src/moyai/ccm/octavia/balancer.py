"""Makes one load balancer in the cloud as it should be, and takes it away.

What always holds: before a load balancer is created it is looked for by its Service's tag, so that one from a call whose answer
was lost is adopted, never doubled; a load balancer of another cluster is never touched; ``plan.load_balancer.sharing``
decides its owner, from tags that were read after the load balancer was claimed; a load balancer that has failed is
rebuilt, because the cloud lets nobody mend it; nobody waits here for a load balancer that is being built or deleted
(``StillWorking``: it is looked at again later), and after a change no longer than ``_HOLD_SECONDS``.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from moyai.ccm.provider import Report, StillWorking
from moyai.cloud.load_balancers import BalancerState, Health, LoadBalancer
from moyai.core.clock import Clock
from moyai.core.errors import Conflict, NotFound, Retriable, Terminal, UsageError
from moyai.core.ids import ClusterIdentity, cluster_tag
from moyai.core.waiting import NotYet, auntil
from moyai.plan.load_balancer import difference as plan
from moyai.plan.load_balancer.names import names_service_of
from moyai.plan.load_balancer.service_settings import LoadBalancerSettings
from moyai.plan.load_balancer.sharing import ServiceMarks, another_cluster, made_for_a_service
from moyai.plan.load_balancer.words import describe, explain
from moyai.runtime.calls import CloudCalls
from moyai.runtime.shared_reads import RecentList

_log = logging.getLogger(__name__)

#: A wait between two changes that lasts longer gives its worker to others.
_HOLD_SECONDS = 2.0
#: Between two looks at what takes its time: so much of the time that it has taken, at most so many seconds.
_LOOK_PART, _LOOK_MOST = 0.25, 2.0
#: A load balancer that another Service is working on is looked at again after so long.
_CLAIMED_SECONDS = 0.5
#: What failed while it was deleted is not asked to go again before.
_DELETED_SECONDS = 30.0
_EVER = float("inf")
_PENDING = (BalancerState.BUSY, BalancerState.DELETING)


class LoadBalancerFailed(Retriable):
    """The cloud gave the load balancer up."""


@dataclass(frozen=True)
class Holdings:
    """What a Service has in the cloud. ``target``: the load balancer that it is to use, None where that has to be created.
    ``own``: whether the target is not one that the user named. ``former``: others that it has a part in, and is to leave."""

    target: LoadBalancer | None
    own: bool
    former: tuple[LoadBalancer, ...]


class Balancers:
    """``poll``: seconds between the first looks at a load balancer that is BUSY; ``patience``: after how many seconds in the
    same state the user hears of it, as an error."""

    def __init__(
        self,
        calls: CloudCalls,
        *,
        cluster: ClusterIdentity,
        clock: Clock,
        poll: float = 0.2,
        patience: float = 60.0,
    ) -> None:
        self._cloud, self._call = calls.cloud, calls.call
        self._calls = calls.cloud.load_balancers
        self._cluster = cluster
        self._tag = cluster_tag(cluster.uid)
        self._clock = clock
        self._poll = poll
        self._patience = patience
        #: Since when a load balancer is waited for.
        self._since: dict[str, float] = {}
        #: When its deletion was asked for.
        self._deleted: dict[str, float] = {}
        self._failed_over: set[str] = set()
        self._claimed: set[str] = set()
        #: Those from before the cluster's name changed: listed once, for a process has one name.
        self._renamed: RecentList[LoadBalancer] = RecentList(self._of_other_names, key=lambda one: one.id, clock=clock)

    # --- looking ------------------------------------------------------------------------------------------------------

    async def holdings(self, marks: ServiceMarks, settings: LoadBalancerSettings, *, preferred: str) -> Holdings:
        """``preferred``: the id of the one that answers for the Service, if there are several. Raises UsageError when the one
        that the user names is not in the cloud or is another cluster's."""
        used = await self.used(marks)
        own = sorted(
            (one for one in used if marks.owns(one)),
            key=lambda one: (one.state in (BalancerState.FAILED, BalancerState.DELETING), one.id != preferred, one.id),
        )
        wish = settings.load_balancer_id
        if settings.presumed_load_balancer_id in {one.id for one in used}:
            wish = settings.presumed_load_balancer_id
        if wish:
            target = next((one for one in used if one.id == wish), None) or await self._named(wish)
        else:
            target = own[0] if own else None
        former = tuple(one for one in used if target is None or one.id != target.id)
        return Holdings(target, target is None or marks.owns(target), former)

    async def used(self, marks: ServiceMarks) -> list[LoadBalancer]:
        """All in which the Service has a part."""
        found = [one for one in await self._call(self._calls.load_balancers, tag=marks.name) if marks.mine(one, one.tags)]
        known = {one.id for one in found}
        renamed = [one for one in await self._renamed.get(max_age=_EVER) if marks.owns(one) and one.id not in known]
        found += [now for one in renamed if (now := await self.head(one.id)) and marks.mine(now, now.tags)]
        return [one for one in found if not another_cluster(one, self._tag) and one.state is not BalancerState.DELETED]

    async def _of_other_names(self) -> list[LoadBalancer]:
        return [one for one in await self.of_cluster() if not names_service_of(self._cluster.name, one.name)]

    async def _named(self, load_balancer_id: str) -> LoadBalancer:
        try:
            named = await self._call(self._calls.head, load_balancer_id)
        except NotFound:
            raise UsageError(
                f"annotation loadbalancer.openstack.org/load-balancer-id is {load_balancer_id!r}",
                hint="it must be the id of a load balancer that is in the cloud",
            ) from None
        if other := another_cluster(named, self._tag):
            raise UsageError(f"load balancer {load_balancer_id} belongs to another cluster ({other})")
        return named

    async def of_cluster(self) -> list[LoadBalancer]:
        """All that the cluster made for Services."""
        found = await self._call(self._calls.load_balancers, tag=self._tag)
        return [one for one in found if made_for_a_service(one, self._tag)]

    @contextmanager
    def claim(self, found: LoadBalancer) -> Generator[None]:
        """Of several Services that use a load balancer one changes it at a time, since its users are first read, then written.
        Raises StillWorking while another Service changes it."""
        if found.id in self._claimed:
            message = f"another Service is changing load balancer {found.name}"
            raise StillWorking(message, requeue_after=_CLAIMED_SECONDS, object_id=found.id)
        self._claimed.add(found.id)
        try:
            yield
        finally:
            self._claimed.discard(found.id)

    # --- waiting ------------------------------------------------------------------------------------------------------

    def later(self, found: LoadBalancer, what: str) -> Retriable:
        """The error that brings the caller back for a load balancer that takes its time. Returned, not raised."""
        waited = self._clock.monotonic() - self._since.setdefault(found.id, self._clock.monotonic())
        if waited <= self._patience:
            again = min(max(self._poll, waited * _LOOK_PART), _LOOK_MOST)
            return StillWorking(f"load balancer {found.name} {what}", requeue_after=again, object_id=found.id)
        self._since.pop(found.id, None)
        return Retriable(f"load balancer {found.name} {what} after {waited:.0f} s", object_id=found.id)

    def settled(self, found: LoadBalancer) -> LoadBalancer:
        """Raises what ``later`` returns unless it takes changes or has failed."""
        if found.state in _PENDING:
            raise self.later(found, f"is still {found.status}")
        self._since.pop(found.id, None)
        return found

    async def wait(self, found: LoadBalancer) -> LoadBalancer:
        """Until it takes changes. Raises LoadBalancerFailed, NotFound, and what ``later`` returns after ``_HOLD_SECONDS``."""

        async def look() -> LoadBalancer | NotYet:
            seen = await self._call(self._calls.head, found.id)
            if seen.state is BalancerState.ACTIVE:
                return seen
            if seen.state in _PENDING:
                return NotYet(f"is still {seen.status}")
            raise LoadBalancerFailed(f"load balancer {seen.name} is {seen.status} in the cloud", object_id=found.id)

        seen = await auntil(
            look,
            clock=self._clock,
            timeout=_HOLD_SECONDS,
            pause=self._poll,
            retry=(),
            late=lambda seen: self.later(found, seen.missing),
        )
        self._since.pop(found.id, None)
        return seen

    # --- changing -----------------------------------------------------------------------------------------------------

    async def create(self, wanted: LoadBalancer) -> LoadBalancer:
        if not (wanted.vip_subnet_id or wanted.vip_network_id or wanted.vip_port_id):
            raise UsageError(
                "nothing says in which subnet the load balancer shall be",
                hint="set subnet-id in [LoadBalancer] of the cloud config, or annotation loadbalancer.openstack.org/subnet-id",
            )
        return await self._call(self._calls.create, wanted)

    async def apply(self, desired: LoadBalancer, found: LoadBalancer, *, marks: ServiceMarks) -> list[str]:
        """Change what differs; returns what was done in a user's words, empty when everything is as wanted."""
        await self.wait(found)
        observed = await self._call(self._calls.get, found.id)
        mine = partial(marks.mine, observed)
        changes = plan.plan_changes(desired, observed, shared=not marks.alone(observed), mine=mine)
        tags = marks.joined(observed)
        if tags != observed.tags:
            # before anything is made in it: what goes with the Service is found by its tag
            await self._call(self._calls.update, found.id, tags=tags)
            await self.wait(found)
        await self._run_all(changes, found)
        return list(dict.fromkeys(explain(change) for change in changes))

    async def _run_all(self, changes: Iterable[plan.BalancerChange], found: LoadBalancer) -> None:
        for change in changes:
            _log.info("load balancer %s: %s", found.id, describe(change))
            await self._run(change, found)

    async def _run(self, change: plan.BalancerChange, found: LoadBalancer) -> None:
        call, calls = self._call, self._calls
        match change:
            case plan.DeleteListener():
                await call(calls.delete_listener, change.listener_id)
                if change.pool_id:
                    await self.wait(found)
                    await call(calls.delete_pool, change.pool_id)
            case plan.DeletePool():
                await call(calls.delete_pool, change.pool_id)
            case plan.CreateListener():
                made = await call(calls.create_listener, found.id, change.listener)
                if change.listener.pool:
                    await self.wait(found)
                    await self._run(plan.CreatePool(made.id, change.listener.pool), found)
            case plan.UpdateListener():
                await call(calls.update_listener, change.listener_id, change.changes)
            case plan.CreatePool():
                pool = await call(calls.create_pool, change.pool, listener_id=change.listener_id)
                await self.wait(found)
                if change.pool.members:
                    await self._run(plan.SetMembers(pool.id, change.pool.members), found)
                if change.pool.monitor:
                    await self._run(plan.CreateMonitor(pool.id, change.pool.monitor), found)
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
        await self.wait(found)

    async def rebuild(self, found: LoadBalancer, *, marks: ServiceMarks, report: Report) -> Retriable:
        """Of one that has failed: fail it over, else delete it, so that it is recreated. Returns what to raise."""
        if not marks.alone(found):
            message = f"load balancer {found.name}, which is not this Service's alone, is in ERROR"
            return LoadBalancerFailed(message, object_id=found.id)
        if found.health in (Health.ONLINE, Health.DEGRADED) and found.id not in self._failed_over:
            # it carries traffic: a fail-over keeps its address. Most clouds allow that to administrators only
            self._failed_over.add(found.id)
            try:
                await self._call(self._calls.failover, found.id)
            except Terminal as error:
                _log.info("fail-over of %s did not help: %s", found.id, error)
            else:
                message = f"Load balancer {found.id} is in ERROR, failing it over"
                report("Warning", reason="LoadBalancerFailover", message=message)
                return self.later(found, "is failing over")
        if found.id not in self._deleted:
            message = f"Load balancer {found.id} is in ERROR, recreating it; a floating IP stays the same"
            report("Warning", reason="LoadBalancerRebuilt", message=message)
        return await self.delete(found)

    async def leave(self, found: LoadBalancer, *, marks: ServiceMarks) -> None:
        """Take out what is the Service's, and with its last user the whole. The caller has claimed it and read it since.

        Raises what ``later`` returns until it is done."""
        if self._unused(found, marks):
            raise await self.delete(found)
        if found.state is BalancerState.FAILED:
            raise LoadBalancerFailed(f"load balancer {found.name}, which others use too, is in ERROR", object_id=found.id)
        self.settled(found)
        observed = await self._call(self._calls.get, found.id)
        await self._run_all(plan.plan_removal(partial(marks.mine, observed), observed), found)
        await self._call(self._calls.update, found.id, tags=marks.left(observed))
        # the others may have left in the meantime, of which only the cloud knows where another process works for them
        now = await self.wait(found)
        if self._unused(now, marks):
            raise await self.delete(now)

    def _unused(self, found: LoadBalancer, marks: ServiceMarks) -> bool:
        return made_for_a_service(found, self._tag) and not marks.others(found)

    async def head(self, load_balancer_id: str) -> LoadBalancer | None:
        """As it is now; None: it is gone."""
        try:
            now = await self._call(self._calls.head, load_balancer_id)
        except NotFound:
            now = None
        if now is None or now.state is BalancerState.DELETED:
            self.forget(load_balancer_id)
            return None
        return now

    def forget(self, load_balancer_id: str) -> None:
        """It is gone."""
        self._deleted.pop(load_balancer_id, None)
        self._since.pop(load_balancer_id, None)
        self._failed_over.discard(load_balancer_id)

    async def delete(self, found: LoadBalancer) -> Retriable:
        """Ask for it, as soon as the cloud takes it. Returns what to raise: it takes its time."""
        now = self._clock.monotonic()
        if found.state is BalancerState.FAILED and now - self._deleted.get(found.id, -_EVER) < _DELETED_SECONDS:
            self._since.pop(found.id, None)
            message = f"load balancer {found.name} went to ERROR while it was deleted"
            return LoadBalancerFailed(message, object_id=found.id)
        # the cloud refuses to delete what it is still building; what has failed it deletes
        if found.state not in _PENDING:
            try:
                await self._call(self._calls.delete, found.id)
            except Conflict as error:
                _log.info("load balancer %s is not deleted yet: %s", found.id, error)
            else:
                self._deleted[found.id] = now
        return self.later(found, "is still being deleted" if found.id in self._deleted else f"is still {found.status}")
