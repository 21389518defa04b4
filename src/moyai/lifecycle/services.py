"""Services of type LoadBalancer, as a cluster lists them, and their orderly end before the cluster goes."""

from __future__ import annotations

from moyai.core.clock import Clock
from moyai.core.errors import MoyaiError
from moyai.core.progress import Step as Progress
from moyai.kube.objects import Service, parse_service
from moyai.kube.quick import KubeApi
from moyai.kube.resources import SERVICES


def balanced(api: KubeApi, *, timeout: float | None = None) -> list[Service]:
    """All Services that ask for a load balancer."""
    return [service for service in map(parse_service, api.list(SERVICES, timeout=timeout)) if service.balanced]


def delete_balanced(api: KubeApi, *, clock: Clock, progress: Progress, timeout: float = 10.0) -> list[str]:
    """Delete the Services of type LoadBalancer and wait for their end; returns those that are still there."""
    end = clock.monotonic() + timeout
    left = balanced(api, timeout=3)
    for service in left:
        api.delete(SERVICES, service.name, namespace=service.namespace)
    while left and clock.monotonic() < end:
        progress.progress(f"{len(left)} load balancers are still there")
        clock.sleep(0.3)
        try:
            left = balanced(api, timeout=3)
        except MoyaiError:
            break
    return [service.key for service in left]
