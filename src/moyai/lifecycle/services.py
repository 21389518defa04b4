"""Services of type LoadBalancer, as a cluster lists them; their orderly end before the cluster goes, and that of their way to a
node before its machine goes.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress

from moyai.cloud.load_balancers import BalancerState, LoadBalancers
from moyai.core.clock import Clock
from moyai.core.errors import MoyaiError, NotFound
from moyai.core.progress import Progress
from moyai.core.waiting import NotYet, until
from moyai.kube.objects import Service, parse_service
from moyai.kube.quick import KubeApi
from moyai.kube.resources import SERVICES
from moyai.plan.observed import owns

#: Seconds in which load balancers must let go of a node. The cloud controller manager asks for it within a second; a cloud may
#: have many load balancers to change.
BALANCERS_TIMEOUT = 120.0
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


def leave_balancers(
    api: KubeApi, balancers: LoadBalancers, *, uid: str, addresses: Collection[str], clock: Clock, progress: Progress
) -> str:
    """Wait until no load balancer that serves the cluster sends to these addresses; after the time-out, returns which still do.

    These are those that the cloud controller manager made, and those of somebody else that a Service names.
    """
    known: list[str] | None = None

    def look() -> NotYet | None:
        nonlocal known
        if known is None:
            named = {value for service in balanced(api, timeout=5) for value in service.annotations.values()}
            known = [one.id for one in balancers.load_balancers() if owns(uid, one) or one.id in named]
        sending = {identity: name for identity in known if (name := _sends(balancers, identity, addresses=addresses))}
        # none of the others takes the node back: it is excluded
        known = list(sending)
        return NotYet(", ".join(sorted(sending.values())[:3])) if sending else None

    def say(names: str) -> None:
        progress.progress(f"load balancers still send to it: {names}")

    late: list[str] = []

    def give_up(seen: NotYet) -> Exception:
        late.append(seen.missing)
        return seen.error or TimeoutError()

    with suppress(TimeoutError):
        until(look, clock=clock, timeout=BALANCERS_TIMEOUT, pause=0.5, on_wait=say, late=give_up)
    return late[0] if late else ""


def _sends(balancers: LoadBalancers, identity: str, *, addresses: Collection[str]) -> str:
    """The name of the load balancer if it sends to one of the addresses, or is still being changed."""
    try:
        tree = balancers.get(identity)
    except NotFound:
        return ""
    pools = [*(listener.pool for listener in tree.listeners if listener.pool), *tree.loose_pools]
    member = any(one.address in addresses for pool in pools for one in pool.members)
    return tree.name or identity if member or tree.state is BalancerState.BUSY else ""
