"""Which mode ``auto`` is on a cloud, and which mode a cloud cannot carry."""

from __future__ import annotations

from dataclasses import dataclass

from moyai.core.errors import UsageError
from moyai.plan.observed import Observed
from moyai.spec.model import Cluster
from moyai.spec.pod_network import Mode


@dataclass(frozen=True)
class ModeChoice:
    """``cluster``: with the mode that was chosen. ``note``: why, empty where the spec names a mode."""

    cluster: Cluster
    note: str = ""


def choose_mode(cluster: Cluster, observed: Observed) -> ModeChoice:
    """Of a new cluster: the cheapest mode that the cloud permits. Raises UsageError for a mode that it does not permit."""
    cloud, network = cluster.spec.cloud, cluster.spec.network
    refused = f"cloud {cloud} does not let ports send from other addresses than their own"
    if network.mode == "auto":
        mode: Mode = "host-gw" if observed.sources_allowed else "vxlan"
        why = (
            f"the machines are on one subnet, and cloud {cloud} lets their ports send from pods' addresses: nothing is "
            "encapsulated, and the router needs no routes"
            if observed.sources_allowed
            else f"{refused}: pods' packets are encapsulated"
        )
        changed = network.model_copy(update={"mode": mode})
        spec = cluster.spec.model_copy(update={"network": changed})
        return ModeChoice(cluster.model_copy(update={"spec": spec}), f"spec.network.mode: auto is {mode} here: {why}")
    if not observed.sources_allowed:
        if network.mode in ("host-gw", "routes"):
            raise UsageError(f"spec.network.mode: {network.mode!r}, should be 'vxlan': {refused}")
        if network.mode == "vxlan" and network.vxlan.direct_routing:
            raise UsageError(f"spec.network.vxlan.directRouting: true, should be false: {refused}")
    return ModeChoice(cluster)
