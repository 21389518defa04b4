"""Which mode ``auto`` is on a cloud, and why a cloud cannot carry a mode.

Always holds: a strategy alone says what its mode needs, and whatever is decided here follows from that.
"""

from __future__ import annotations

from dataclasses import dataclass

from moyai.core.errors import UsageError
from moyai.plan.nodes import several_networks
from moyai.plan.observed import Observed
from moyai.plan.pod_network import pod_network_of
from moyai.spec.beside import ONE_NETWORK
from moyai.spec.model import Cluster
from moyai.spec.pod_network import Mode

#: What `auto` may be, the cheapest first, each with the reason to take it.
_AUTOMATIC: tuple[tuple[Mode, str], ...] = (
    (
        "host-gw",
        "the machines are on one subnet, and cloud {cloud} lets their ports send from pods' addresses: nothing is "
        "encapsulated, and the router needs no routes",
    ),
    ("vxlan", "cloud {cloud} does not let ports send from other addresses than their own: pods' packets are encapsulated"),
)
_SEVERAL = "the nodes are in several networks: pods' packets are encapsulated"


@dataclass(frozen=True)
class ModeChoice:
    """``cluster``: with the mode that was chosen. ``note``: why, empty where the spec names a mode."""

    cluster: Cluster
    note: str = ""


def choose_mode(cluster: Cluster, observed: Observed) -> ModeChoice:
    """Of a new cluster: the cheapest mode that the cloud permits, where the spec leaves the choice to moyai."""
    if cluster.spec.network.mode != "auto":
        return ModeChoice(cluster)
    mode, why = _cheapest(cluster, observed)
    note = f"spec.network.mode: auto is {mode} here: {why.format(cloud=cluster.spec.cloud)}"
    return ModeChoice(_with(cluster, mode), note)


def reason(cluster: Cluster, observed: Observed) -> str:
    """Why the mode of a cluster that exists is what it is: as `auto` chooses it on this cloud, or because the spec names it."""
    network, cloud = cluster.spec.network, cluster.spec.cloud
    mode, why = _cheapest(cluster, observed)
    if mode == network.mode:
        return f"auto is {mode} here: {why.format(cloud=cloud)}"
    return f"spec.network.mode names it; auto would be {mode} here: {why.format(cloud=cloud)}"


def missing(cluster: Cluster, observed: Observed) -> str:
    """Why the cloud cannot carry the spec's mode, in a sentence about the cloud; empty where it can."""
    if cluster.spec.network.mode in ONE_NETWORK and several_networks(cluster.spec):
        return "the nodes are in several networks"
    strategy, cloud = pod_network_of(cluster.spec), cluster.spec.cloud
    if strategy.needs is not None and strategy.needs not in observed.capabilities:
        return f"cloud {cloud} has no {strategy.needs}"
    existing = cluster.spec.network.existing
    if strategy.by_router and existing.network and not existing.router:
        return "no router of yours has an interface in the machines' subnet"
    if strategy.needs_sources and not observed.sources_allowed:
        return f"cloud {cloud} does not let ports send from other addresses than their own"
    return ""


def refuse_mode(cluster: Cluster, observed: Observed) -> None:
    """Raises UsageError for a mode that the cloud cannot carry, with the one that it can."""
    why, network = missing(cluster, observed), cluster.spec.network
    if not why:
        return
    if network.mode == "vxlan" and network.vxlan.direct_routing:
        raise UsageError(f"spec.network.vxlan.directRouting: true, should be false: {why}")
    would_do, _ = _cheapest(cluster, observed)
    raise UsageError(f"spec.network.mode: {network.mode!r}, should be {would_do!r}: {why}")


def _cheapest(cluster: Cluster, observed: Observed) -> tuple[Mode, str]:
    """Of what `auto` may be."""
    if several_networks(cluster.spec):
        return "vxlan", _SEVERAL
    return next((one for one in _AUTOMATIC if not missing(_with(cluster, one[0]), observed)), _AUTOMATIC[-1])


def _with(cluster: Cluster, mode: Mode) -> Cluster:
    network = cluster.spec.network.model_copy(update={"mode": mode})
    return cluster.model_copy(update={"spec": cluster.spec.model_copy(update={"network": network})})
