"""Services of type LoadBalancer, as a cluster lists them, and their orderly end before the cluster goes."""

from __future__ import annotations

from contextlib import suppress

from moyai.core.clock import Clock
from moyai.core.errors import MoyaiError
from moyai.core.progress import Progress
from moyai.core.waiting import NotYet, until
from moyai.kube.objects import Service, parse_service
from moyai.kube.quick import KubeApi
from moyai.kube.resources import SERVICES


def balanced(api: KubeApi, *, timeout: float | None = None) -> list[Service]:
    """All Services that ask for a load balancer."""
    return [service for service in map(parse_service, api.list(SERVICES, timeout=timeout)) if service.balanced]


def delete_balanced(api: KubeApi, *, clock: Clock, progress: Progress, timeout: float = 10.0) -> list[str]:
    """Delete the Services of type LoadBalancer and wait for their end; returns those that are still there."""
    left = balanced(api, timeout=3)
    for service in left:
        api.delete(SERVICES, service.name, namespace=service.namespace)

    def look() -> NotYet | None:
        nonlocal left
        left = balanced(api, timeout=3)
        return NotYet(f"{len(left)} load balancers are still there") if left else None

    # an API that ends meanwhile ends the wait too: the cloud is asked next
    with suppress(MoyaiError, TimeoutError):
        if left:
            report = progress.progress
            until(look, clock=clock, timeout=timeout, pause=0.3, retry=(), on_wait=report, late=lambda _: TimeoutError())
    return [service.key for service in left]
