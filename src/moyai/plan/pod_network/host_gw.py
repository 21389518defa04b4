"""Mode ``host-gw``: each node's kernel has a route to each other node's pod range, with that node as the gateway.

Nothing is encapsulated and the cloud's router has no part in it. All machines must be on one subnet, and their ports must be
allowed to send from pods' addresses.
"""

from __future__ import annotations

from dataclasses import dataclass

from moyai.plan.node_network import Backend
from moyai.plan.pod_network.bare_pods import BarePods


@dataclass(frozen=True, kw_only=True)
class GatewayPods(BarePods):
    backend: Backend = "host-gw"
