"""The cloud as the controllers see it: blocking calls of the adapter, awaited in worker threads, counted and timed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from moyai.cloud.loadbalancer import LoadBalancers
from moyai.cloud.protocols import Compute, NetworkCalls
from moyai.core.errors import MoyaiError
from moyai.runtime.cloudconfig import GlobalConfig, log_in
from moyai.runtime.metrics import Metrics

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Cloud:
    """``region``: for the label of nodes, empty where the cloud has none."""

    compute: Compute
    network: NetworkCalls
    load_balancers: LoadBalancers
    metrics: Metrics
    region: str = ""

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """``function`` of one of the three, in a worker thread."""
        name = getattr(function, "__name__", "call")
        start = time.monotonic()
        outcome = "ok"
        try:
            return await asyncio.to_thread(function, *args, **kwargs)
        except MoyaiError as error:
            outcome = type(error).__name__.lower()
            raise
        finally:
            self.metrics.count("moyai_cloud_calls_total", call=name, outcome=outcome)
            self.metrics.observe("moyai_cloud_call_seconds", time.monotonic() - start, call=name)


def connect_cloud(config: GlobalConfig, metrics: Metrics) -> Cloud:
    """Nothing is sent before the first call. Raises UsageError for a configuration that lacks something."""
    from moyai.cloud.openstack.compute import NovaCompute
    from moyai.cloud.openstack.loadbalancer import OctaviaLoadBalancers
    from moyai.cloud.openstack.network import NeutronNetwork

    session = log_in(config)
    return Cloud(
        compute=NovaCompute(session),
        network=NeutronNetwork(session),
        load_balancers=OctaviaLoadBalancers(session),
        metrics=metrics,
        region=config.region,
    )
