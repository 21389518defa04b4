"""Carries out the steps for the load balancer before the API.

Always holds: one change at a time, and the next one only once the cloud takes changes again; members are read before they are
replaced, so that each step changes its own control plane alone. Thread-safe: steps run side by side.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from moyai.cloud.load_balancers import BalancerState, Listener, LoadBalancer, Member, Pool
from moyai.core.errors import Terminal
from moyai.core.progress import Progress
from moyai.core.waiting import NotYet, until
from moyai.lifecycle.execute.context import Context, Handler, handles
from moyai.lifecycle.execute.removing import retry_while_busy
from moyai.lifecycle.leaving_planes import serving_addresses
from moyai.plan import keys
from moyai.plan import steps as s
from moyai.plan.rules import API_PORT

#: Seconds: a cloud may start machines for a load balancer; a change takes a moment; until an API server says that it works.
BUILD_TIMEOUT, CHANGE_TIMEOUT, SERVE_TIMEOUT = 600.0, 120.0, 60.0
_PAUSE = 0.5


class Balancing:
    def __init__(self, context: Context) -> None:
        self._context, self._cloud, self._clock = context, context.cloud, context.clock
        self._lock = threading.Lock()

    def handlers(self) -> Mapping[type[s.Step], Handler]:
        return dict(
            [
                handles(s.CreateBalancer, self._create),
                handles(s.LeadBalancer, self._lead),
                handles(s.SetBalancerAccess, self._access),
                handles(s.LeadIn, self._lead_in),
                handles(s.LeadOut, self._lead_out),
            ]
        )

    def _create(self, step: s.CreateBalancer, progress: Progress) -> None:
        context, wanted = self._context, step.balancer
        context.intend(step.key, wanted.name)
        placed = (self._placed(one) for one in wanted.listeners)
        whole = replace(wanted, vip_port_id=context.id(keys.port(step.port)), tags=context.tags, listeners=tuple(placed))
        made = self._cloud.load_balancers.create(whole)
        context.keep(step.key, made.id, name=wanted.name)
        self._settled(progress, timeout=BUILD_TIMEOUT)

    def _placed(self, listener: Listener) -> Listener:
        if listener.pool is None:
            return listener
        subnet = self._context.id(keys.SUBNET)
        members = tuple(replace(one, subnet_id=subnet) for one in listener.pool.members)
        return replace(listener, pool=replace(listener.pool, members=members))

    def _lead(self, step: s.LeadBalancer, progress: Progress) -> None:
        subnet = self._context.id(keys.SUBNET)
        wanted = [Member(address, API_PORT, subnet_id=subnet, name=name) for name, address in step.planes]
        self._change(lambda _: wanted, progress)

    def _lead_in(self, step: s.LeadIn, progress: Progress) -> None:
        self._served([step.address], f"the API server of {step.node} works", progress=progress)
        added = Member(step.address, API_PORT, subnet_id=self._context.id(keys.SUBNET), name=step.node)

        def change(members: Sequence[Member]) -> Sequence[Member]:
            return members if any(one.key == added.key for one in members) else (*members, added)

        self._change(change, progress)

    def _lead_out(self, step: s.LeadOut, progress: Progress) -> None:
        self._served(step.stay_addresses, "the API server of a control plane that stays works", progress=progress)
        self._change(lambda members: [one for one in members if one.address != step.address], progress)

    def _access(self, step: s.SetBalancerAccess, progress: Progress) -> None:
        with self._lock:
            listener = _listener(self._tree(progress))
            changes = {"allowed_cidrs": step.cidrs}
            retry_while_busy(lambda: self._cloud.load_balancers.update_listener(listener.id, changes), self._clock)
            self._settled(progress)

    # ---- waiting

    def _served(self, addresses: Collection[str], what: str, *, progress: Progress) -> None:
        def look() -> NotYet | None:
            serving = serving_addresses(self._context.api())
            return None if serving.intersection(addresses) else NotYet(what)

        def late(seen: NotYet) -> Terminal:
            return Terminal(f"waited {SERVE_TIMEOUT:.0f} s until {seen.missing}", hint="`moyai up` again goes on here")

        until(look, clock=self._clock, timeout=SERVE_TIMEOUT, pause=_PAUSE, on_wait=progress.progress, late=late)

    def _change(self, change: Callable[[Sequence[Member]], Sequence[Member]], progress: Progress) -> None:
        with self._lock:
            pool = _pool(self._tree(progress))
            wanted = change(pool.members)
            if {one.key for one in wanted} == {one.key for one in pool.members}:
                return
            retry_while_busy(lambda: self._cloud.load_balancers.set_members(pool.id, wanted), self._clock)
            self._settled(progress)

    def _tree(self, progress: Progress) -> LoadBalancer:
        self._settled(progress)
        return self._cloud.load_balancers.get(self._context.id(keys.API_BALANCER))

    def _settled(self, progress: Progress, *, timeout: float = CHANGE_TIMEOUT) -> None:
        """Until it takes changes."""
        identity = self._context.id(keys.API_BALANCER)

        def look() -> NotYet | None:
            head = self._cloud.load_balancers.head(identity)
            if head.state is BalancerState.ACTIVE:
                return None
            if head.state in (BalancerState.FAILED, BalancerState.DELETING, BalancerState.DELETED):
                raise Terminal(f"load balancer {head.name} is {head.status} in the cloud", hint="`moyai up` makes it again")
            return NotYet(f"load balancer {head.name} is still {head.status}")

        def late(seen: NotYet) -> Terminal:
            return Terminal(f"{seen.missing} after {timeout:.0f} s", hint="`moyai up` again goes on here")

        until(look, clock=self._clock, timeout=timeout, pause=_PAUSE, on_wait=progress.progress, late=late)


def _listener(tree: LoadBalancer) -> Listener:
    found = next((one for one in tree.listeners if one.port == API_PORT), None)
    if found is None:
        raise Terminal(f"load balancer {tree.name} has lost its listener", hint="`moyai up` makes it again")
    return found


def _pool(tree: LoadBalancer) -> Pool:
    found = _listener(tree).pool
    if found is None:
        raise Terminal(f"load balancer {tree.name} has lost its pool", hint="`moyai up` makes it again")
    return found
