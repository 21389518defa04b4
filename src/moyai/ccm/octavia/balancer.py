"""Makes one load balancer in the cloud as it should be, and takes it away.

What always holds: before anything is made, what is there is looked for by name and tag, so that a call whose answer was lost is
adopted, never doubled; a load balancer of another cluster is never touched; after every change it is waited for until the cloud
takes the next one; what has failed is rebuilt, because the cloud lets nobody mend it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable

from moyai.cloud.load_balancers import BalancerState, Health, LoadBalancer
from moyai.core.clock import Clock
from moyai.core.errors import NotFound, Retriable, Terminal, UsageError
from moyai.core.ids import CLUSTER_TAG, cluster_tag
from moyai.plan import load_balancer as plan
from moyai.plan.load_balancer import ClusterIdentity
from moyai.runtime.calls import CloudCalls

_log = logging.getLogger(__name__)

#: Told what goes on: (kind, reason, message), for the user's events.
Tell = Callable[[str, str, str], None]


class LoadBalancerFailed(Retriable):
    """The cloud gave the load balancer up."""


class Balancers:
    """``poll``: seconds between two looks at a load balancer that is BUSY; ``patience``: how long one wait lasts."""

    def __init__(
        self, calls: CloudCalls, cluster: ClusterIdentity, clock: Clock, *, poll: float = 0.2, patience: float = 60.0
    ) -> None:
        self._cloud, self._call = calls.cloud, calls.call
        self._calls = calls.cloud.load_balancers
        self._cluster = cluster
        self._clock = clock
        self._poll = poll
        self._patience = patience

    async def find(self, name: str, load_balancer_id: str = "") -> LoadBalancer | None:
        """Ours by name and tag; else the one that the user names, which may be anybody's of this project.

        Raises UsageError when the named one is not there, or is another cluster's.
        """
        tag = cluster_tag(self._cluster.uid)
        found = sorted(
            (one for one in await self._call(self._calls.load_balancers, name=name) if tag in one.tags),
            key=lambda one: (one.state in (BalancerState.FAILED, BalancerState.DELETING), one.id),
        )
        for extra in found[1:]:
            # two leaders made one each, in the moment of a change
            _log.warning("load balancer %s is there twice, deleting %s", name, extra.id)
            await self._call(self._calls.delete, extra.id)
        if found:
            return found[0]
        if not load_balancer_id:
            return None
        try:
            named = await self._call(self._calls.head, load_balancer_id)
        except NotFound:
            return None
        others = [one for one in named.tags if one.startswith(CLUSTER_TAG + "=") and one != tag]
        if others:
            raise UsageError(f"load balancer {load_balancer_id} belongs to another cluster ({others[0]})")
        return named

    def owned(self, found: LoadBalancer, name: str) -> bool:
        """Whether the whole load balancer is the Service's own, not only some listeners in it."""
        return found.name == name and cluster_tag(self._cluster.uid) in found.tags

    def users(self, found: LoadBalancer, name: str) -> list[str]:
        """Tags of other Services that use it."""
        return [tag for tag in found.tags if tag.startswith(plan.SERVICE_TAG_PREFIX) and tag != name]

    async def create(self, wanted: LoadBalancer) -> LoadBalancer:
        if not (wanted.vip_subnet_id or wanted.vip_network_id or wanted.vip_port_id):
            raise UsageError(
                "nothing says in which subnet the load balancer shall be",
                hint="set subnet-id in [LoadBalancer] of the cloud config, or annotation loadbalancer.openstack.org/subnet-id",
            )
        return await self._call(self._calls.create, wanted)

    async def wait(self, load_balancer_id: str) -> LoadBalancer:
        """Until it takes changes. Raises LoadBalancerFailed, NotFound, and Retriable when patience is at its end."""
        start = self._clock.monotonic()
        while True:
            found = await self._call(self._calls.head, load_balancer_id)
            if found.state is BalancerState.ACTIVE:
                return found
            if found.state not in (BalancerState.BUSY, BalancerState.DELETING):
                raise LoadBalancerFailed(
                    f"load balancer {found.name} is {found.status} in the cloud", object_id=load_balancer_id
                )
            waited = self._clock.monotonic() - start
            if waited > self._patience:
                raise Retriable(
                    f"load balancer {found.name} is still {found.status} after {waited:.0f} s",
                    object_id=load_balancer_id,
                )
            # short while something may come at once, longer when a machine is being booted for it
            await asyncio.sleep(self._poll if waited < 15 else max(self._poll, 1.0))

    async def wait_gone(self, load_balancer_id: str) -> None:
        start = self._clock.monotonic()
        while True:
            try:
                found = await self._call(self._calls.head, load_balancer_id)
            except NotFound:
                return
            if found.state is BalancerState.DELETED:
                return
            if found.state is BalancerState.FAILED:
                raise LoadBalancerFailed(
                    f"load balancer {found.name} went to ERROR while it was deleted", object_id=load_balancer_id
                )
            if self._clock.monotonic() - start > self._patience:
                raise Retriable(f"load balancer {found.name} is still being deleted", object_id=load_balancer_id)
            await asyncio.sleep(self._poll)

    async def apply(self, desired: LoadBalancer, load_balancer_id: str, *, shared: bool) -> list[str]:
        """Change what differs; returns what was done in a user's words, empty when everything is as wanted."""
        head = await self.wait(load_balancer_id)
        observed = await self._call(self._calls.get, load_balancer_id)
        steps = plan.plan_changes(desired, observed, shared=shared)
        if shared and desired.name not in head.tags:
            await self._call(self._calls.update, load_balancer_id, tags=[*head.tags, desired.name])
            await self.wait(load_balancer_id)
        await self.run(steps, load_balancer_id)
        return list(dict.fromkeys(plan.tell(step) for step in steps))

    async def run(self, steps: Iterable[plan.Step], load_balancer_id: str) -> None:
        for step in steps:
            _log.info("load balancer %s: %s", load_balancer_id, plan.describe(step))
            await self._run(step, load_balancer_id)

    async def _run(self, step: plan.Step, balancer: str) -> None:
        call, calls = self._call, self._calls
        match step:
            case plan.DeleteListener():
                await call(calls.delete_listener, step.listener_id)
                if step.pool_id:
                    await self.wait(balancer)
                    await call(calls.delete_pool, step.pool_id)
            case plan.DeletePool():
                await call(calls.delete_pool, step.pool_id)
            case plan.CreateListener():
                made = await call(calls.create_listener, balancer, step.listener)
                if step.listener.pool:
                    await self.wait(balancer)
                    await self._run(plan.CreatePool(made.id, step.listener.pool), balancer)
            case plan.UpdateListener():
                await call(calls.update_listener, step.listener_id, step.changes)
            case plan.CreatePool():
                pool = await call(calls.create_pool, step.pool, listener_id=step.listener_id)
                await self.wait(balancer)
                if step.pool.members:
                    await self._run(plan.SetMembers(pool.id, step.pool.members), balancer)
                if step.pool.monitor:
                    await self._run(plan.CreateMonitor(pool.id, step.pool.monitor), balancer)
            case plan.UpdatePool():
                await call(calls.update_pool, step.pool_id, step.changes)
            case plan.SetMembers():
                await call(calls.set_members, step.pool_id, step.members)
            case plan.CreateMonitor():
                await call(calls.create_monitor, step.pool_id, step.monitor)
            case plan.UpdateMonitor():
                await call(calls.update_monitor, step.monitor_id, step.changes)
            case plan.DeleteMonitor():
                await call(calls.delete_monitor, step.monitor_id)
        await self.wait(balancer)

    async def rebuild(self, found: LoadBalancer, tell: Tell) -> bool:
        """Of one that has failed: True when a fail-over mended it, False when it was deleted and has to be made anew."""
        if found.health in (Health.ONLINE, Health.DEGRADED):
            # it carries traffic: a fail-over keeps its address. Most clouds allow that to administrators only
            try:
                await self._call(self._calls.failover, found.id)
                tell("Warning", "LoadBalancerFailover", f"Load balancer {found.id} is in ERROR, failing it over")
                await self.wait(found.id)
            except (Terminal, LoadBalancerFailed) as error:
                _log.info("fail-over of %s did not help: %s", found.id, error)
            else:
                return True
        tell(
            "Warning",
            "LoadBalancerRebuilt",
            f"Load balancer {found.id} is in ERROR, making it anew; a floating IP stays the same",
        )
        await self._delete(found)
        return False

    async def remove(self, found: LoadBalancer, name: str) -> None:
        """The whole, where nobody else uses it; else only what is the Service's in it."""
        mine = cluster_tag(self._cluster.uid) in found.tags and found.name.startswith(plan.SERVICE_TAG_PREFIX)
        if mine and not self.users(found, name):
            await self._delete(found)
            return
        if found.state is BalancerState.FAILED:
            raise LoadBalancerFailed(f"load balancer {found.name}, which others use too, is in ERROR", object_id=found.id)
        await self.wait(found.id)
        observed = await self._call(self._calls.get, found.id)
        await self.run(plan.plan_removal(name, observed), found.id)
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
        return [one for one in found if one.name.startswith(plan.SERVICE_TAG_PREFIX)]
