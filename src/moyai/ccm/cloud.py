"""The cloud as the controllers see it: blocking calls of the adapter, awaited in worker threads, counted and timed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

from moyai.ccm.config import GlobalConfig
from moyai.cloud.loadbalancer import LoadBalancers
from moyai.cloud.protocols import Compute, NetworkCalls
from moyai.core.errors import MoyaiError, UsageError
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
    from moyai.cloud.openstack.login import ApplicationCredential, open_session
    from moyai.cloud.openstack.network import NeutronNetwork

    if not (config.application_credential_id and config.application_credential_secret):
        raise UsageError(
            "cloud config has no application credential",
            hint="set application-credential-id and application-credential-secret in section [Global]",
        )
    if config.ca_file and not Path(config.ca_file).is_file():
        raise UsageError(f"cloud config: ca-file {config.ca_file} is not there")
    credential = ApplicationCredential(
        auth_url=config.auth_url,
        id=config.application_credential_id,
        secret=config.application_credential_secret,
        region=config.region,
        ca_file=config.ca_file,
        insecure=config.tls_insecure,
    )
    session = open_session(credential=credential)
    return Cloud(
        compute=NovaCompute(session),
        network=NeutronNetwork(session),
        load_balancers=OctaviaLoadBalancers(session),
        metrics=metrics,
        region=config.region,
    )
