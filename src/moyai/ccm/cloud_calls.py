"""The cloud as the controllers see it: blocking calls of the adapter, awaited in worker threads, counted and timed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from moyai.cloud.capabilities import Compute, NetworkCalls
from moyai.cloud.load_balancers import LoadBalancers
from moyai.cloud.openstack.cloud_conf import GlobalConfig, log_in
from moyai.runtime.calls import call_cloud
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
        return await call_cloud(self.metrics, function, *args, **kwargs)


def connect_cloud(config: GlobalConfig, metrics: Metrics) -> Cloud:
    """Nothing is sent before the first call. Raises UsageError for a configuration that lacks something."""
    from moyai.cloud.openstack.neutron.networks import NeutronNetwork
    from moyai.cloud.openstack.nova import NovaCompute
    from moyai.cloud.openstack.octavia import OctaviaLoadBalancers

    session = log_in(config)
    return Cloud(
        compute=NovaCompute(session),
        network=NeutronNetwork(session),
        load_balancers=OctaviaLoadBalancers(session),
        metrics=metrics,
        region=config.region,
    )
