"""The plan of a whole cluster: the networks that exist already, the mode of its pod network, the add-ons that it starts with,
then the steps.

Pure. Each decision needs the one before, so they are made here and nowhere else, in this order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moyai.bootstrap.addons import addons_of
from moyai.cloud.kind import CloudKind
from moyai.plan.addons import Addon
from moyai.plan.cluster import plan_up
from moyai.plan.given_network import settle
from moyai.plan.graph import Plan
from moyai.plan.machine_template import Versions
from moyai.plan.observed import Observed, Recorded
from moyai.plan.pod_network.choice import choose_mode
from moyai.spec.model import Cluster


@dataclass(frozen=True)
class ClusterPlan:
    """``cluster``: settled on the networks that exist, with the mode that was chosen. ``mode_note``: why it was, empty where
    the spec names the mode."""

    cluster: Cluster
    addons: tuple[Addon, ...]
    plan: Plan
    mode_note: str


def plan_cluster(
    cluster: Cluster,
    observed: Observed,
    *,
    kind: CloudKind,
    recorded: Recorded,
    before: Mapping[str, Any] | None = None,
    replaced: str = "",
    versions: Versions | None = None,
) -> ClusterPlan:
    """See ``plan_up``. Raises UsageError or Terminal for a cluster that the cloud cannot carry."""
    cluster = settle(cluster, observed, is_new=not (recorded.intended or recorded.ready))
    choice = choose_mode(cluster, observed)
    spec = choice.cluster.spec
    addons = addons_of(
        kind.volume_names,
        spec=spec,
        ready=recorded.ready,
        intended=recorded.intended,
        capabilities=observed.capabilities,
        snapshots=kind.volume_rules.snapshots,
    )
    plan = plan_up(
        choice.cluster, observed, recorded=recorded, addons=addons, before=before, replaced=replaced, versions=versions
    )
    return ClusterPlan(choice.cluster, addons, plan, choice.note)
