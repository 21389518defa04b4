"""Services of type LoadBalancer, as a cluster lists them; their orderly end before the cluster goes, and that of their way to a
node before its machine goes.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass

from moyai.cloud.load_balancers import BalancerState, LoadBalancer, LoadBalancers
from moyai.core.clock import Clock
from moyai.core.errors import MoyaiError, NotFound
from moyai.core.progress import Progress
from moyai.core.waiting import NotYet, until
from moyai.kube.objects import Service, parse_service
from moyai.kube.quick import KubeApi
from moyai.kube.resources import SERVICES
from moyai.plan import keys
from moyai.plan.load_balancer.names import names_service
from moyai.plan.observed import owns

#: Seconds in which load balancers must let go of a node. The cloud controller manager asks for it within a second; a cloud may
#: have many load balancers to change.
BALANCERS_TIMEOUT = 120.0
#: Seconds in which connections that a load balancer has made to a node may end by themselves, once it makes no new ones.
CONNECTIONS_TIME = 10.0
#: Seconds between two looks of a node at the same load balancers, and how many of those that still send to it a look finds.
_PAUSE, _NAMED = 0.5, 3
#: So many seconds before a node is excluded a reading counts for it.
_RECENT = 60.0
#: Seconds in which a cluster's controller must have removed the load balancers of all its Services before the cluster goes.
SERVICES_TIMEOUT = 10.0


def balanced(api: KubeApi, *, timeout: float | None = None) -> list[Service]:
    """All Services that ask for a load balancer."""
    return [service for service in map(parse_service, api.list(SERVICES, timeout=timeout)) if service.balanced]


def services_end(api: KubeApi, services: Collection[str], *, clock: Clock, progress: Progress) -> list[str]:
    """Wait until these Services (namespace/name) of type LoadBalancer are gone; after the time-out, or when the API ends
    meanwhile, returns those that were still there."""
    left = list(services)

    def look() -> NotYet | None:
        nonlocal left
        left = [service.key for service in balanced(api, timeout=3) if service.key in services]
        return NotYet(f"{len(left)} load balancers are still there") if left else None

    with suppress(MoyaiError, TimeoutError):
        report = progress.progress
        until(look, clock=clock, timeout=SERVICES_TIMEOUT, pause=0.3, retry=(), on_wait=report, late=lambda _: TimeoutError())
    return left


@dataclass(frozen=True)
class _ReadBalancer:
    """Where a load balancer sent when it was read. ``at``: when that began."""

    at: float
    name: str
    addresses: frozenset[str]
    busy: bool

    def sends(self, addresses: Collection[str]) -> bool:
        """Whether it sends to one of these, or may do so soon."""
        return self.busy or not self.addresses.isdisjoint(addresses)


class LeavingBalancers:
    """How nodes leave load balancers: many nodes at the same time read each load balancer about as often as one node does.

    Always holds: one thread reads at a time, and the others take what it read. A node takes a tree that was read up to
    ``_RECENT`` seconds before the node was excluded only where the list, which is read afterwards, shows that nothing changes
    the load balancer.
    """

    def __init__(self, balancers: LoadBalancers, *, uid: str, clock: Clock) -> None:
        self._balancers, self._uid, self._clock = balancers, uid, clock
        self._lock = threading.Lock()
        self._trees: dict[str, _ReadBalancer] = {}
        self._listed: tuple[float, tuple[LoadBalancer, ...]] = (-math.inf, ())

    def leave(self, api: KubeApi, addresses: Collection[str], *, progress: Progress) -> str:
        """Wait until no load balancer that serves the cluster sends to these addresses of an excluded node, and then until the
        connections that they had made have had time to end; after the time-out, returns the names of some that still send.

        These are those that the cloud controller manager made, and those of somebody else that a Service names.
        """
        since = self._clock.monotonic()
        #: Load balancer → the oldest reading that counts; those that have let go are gone from it.
        left: dict[str, float] | None = None

        def look() -> NotYet | None:
            nonlocal left
            now = self._clock.monotonic()
            if left is None:
                listed = self._serving(api, since)
                left = {one.id: since if one.state is BalancerState.BUSY else since - _RECENT for one in listed}
            sending: list[str] = []
            for identity, oldest in list(left.items()):
                tree = self._read(identity, oldest)
                if tree and tree.sends(addresses):
                    sending.append(tree.name or identity)
                    left[identity] = max(since, now + _PAUSE / 2)
                    if len(sending) == _NAMED:
                        break  # the others need not be read as long as these send
                else:
                    # it does not take the node back: the node is excluded
                    del left[identity]
            return NotYet(", ".join(sorted(sending))) if sending else None

        def say(names: str) -> None:
            progress.progress(f"load balancers still send to it: {names}")

        late: list[str] = []

        def give_up(seen: NotYet) -> Exception:
            late.append(seen.missing)
            return seen.error or TimeoutError()

        with suppress(TimeoutError):
            until(look, clock=self._clock, timeout=BALANCERS_TIMEOUT, pause=_PAUSE, on_wait=say, late=give_up)
            if self._listed[1]:
                progress.progress("connections that it still has may end")
                # no cloud says which connections go through a member that it has taken out
                self._clock.sleep(CONNECTIONS_TIME)
        return late[0] if late else ""

    def _serving(self, api: KubeApi, since: float) -> tuple[LoadBalancer, ...]:
        """Without their trees, as they were at ``since`` or later."""
        with self._lock:
            at, listed = self._listed
            if at < since:
                at = self._clock.monotonic()
                named = {value for service in balanced(api, timeout=5) for value in service.annotations.values()}
                found = self._balancers.load_balancers()
                listed = tuple(one for one in found if self._own(one) or one.id in named)
                self._listed = at, listed
            return listed

    def _own(self, one: LoadBalancer) -> bool:
        """Not the one before the API: it sends to control planes alone, which leave it by a step of their own."""
        before_api = keys.cluster_of(one.name, keys.API_BALANCER) is not None and not names_service(one.name)
        return owns(self._uid, one) and not before_api

    def _read(self, identity: str, oldest: float) -> _ReadBalancer | None:
        """As it was at ``oldest`` or later; None for one that is gone."""
        with self._lock:
            known = self._trees.get(identity)
            if known and known.at >= oldest:
                return known
            at = self._clock.monotonic()
            try:
                tree = self._balancers.get(identity)
            except NotFound:
                return None
            pools = [*(listener.pool for listener in tree.listeners if listener.pool), *tree.loose_pools]
            sent = frozenset(sys.intern(one.address) for pool in pools for one in pool.members)
            read = self._trees[identity] = _ReadBalancer(at, tree.name, sent, busy=tree.state is BalancerState.BUSY)
            return read
