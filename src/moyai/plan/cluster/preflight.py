"""What would break an upgrade, found before anything is changed.

Pure. Always holds: each refusal is one UsageError that names what is in the way and what would help; a cluster that passes can
replace each of its machines.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from moyai.core.errors import MoyaiError, UsageError
from moyai.core.ids import node_image
from moyai.core.kubernetes_version import minor_version, version_numbers
from moyai.plan.capacity import check_surge
from moyai.plan.observed import KubeFacts, Observed, Recorded
from moyai.plan.versions import Stage, Upgrade
from moyai.spec.model import Cluster

#: How many minor versions a kubelet may be older than its API server.
#: Source: https://kubernetes.io/releases/version-skew-policy/.
KUBELET_SKEW = 3


@dataclass(frozen=True)
class Budget:
    """A PodDisruptionBudget. ``desired``: how many pods it keeps. ``expected``: how many there are to be."""

    name: str
    desired: int = 0
    expected: int = 0

    @property
    def never(self) -> bool:
        """Whether no pod of it may ever be evicted, however well all are."""
        return self.expected > 0 and self.desired >= self.expected


@dataclass(frozen=True)
class OldApi:
    """A deprecated kind of object that somebody has asked the API server for. ``removed``: the minor version without it."""

    name: str
    removed: str


@dataclass(frozen=True)
class ClusterUse:
    """What the users of a cluster have in it that an upgrade meets."""

    budgets: tuple[Budget, ...] = ()
    old_apis: tuple[OldApi, ...] = ()


def check_upgrade(
    cluster: Cluster,
    observed: Observed,
    *,
    recorded: Recorded,
    upgrade: Upgrade,
    made_for: Collection[str],
    use: ClusterUse | None,
) -> None:
    """Raises UsageError for the first thing that is in the way. ``made_for``: versions that there are node images of. ``use``:
    None where it does not matter, on the way back."""
    for problem, hint in _problems(cluster, observed, recorded=recorded, upgrade=upgrade, made_for=made_for, use=use):
        to = upgrade.goal if upgrade.stage is not Stage.FINAL else f"{upgrade.target} for good"
        raise UsageError(f"cluster {cluster.name} cannot be brought to {to}: {problem}", hint=hint)


def _problems(
    cluster: Cluster,
    observed: Observed,
    *,
    recorded: Recorded,
    upgrade: Upgrade,
    made_for: Collection[str],
    use: ClusterUse | None,
) -> Iterator[tuple[str, str]]:
    kube, spec = observed.kube, cluster.spec
    if kube is None or not recorded.ready:
        yield "its API does not answer", "`moyai status` says why; `moyai up` mends a cluster"
        return
    if not spec.control_plane.virtual:
        yield (
            "the API has the address of its only control plane, so no other machine can take its place",
            "`moyai down` and `moyai up` build it again, with controlPlane.endpoint vrrp or load-balancer",
        )
    if spec.image:
        yield (
            f"spec.image: {spec.image!r}, should be left out: each version has an image of its own",
            f"`moyai up` with the image {node_image('VERSION')} first",
        )
    well = kube.in_service
    if ill := sorted(name for name in recorded.allocations if name not in well):
        yield f"{', '.join(ill)} {'is' if len(ill) == 1 else 'are'} not Ready", "`moyai up` mends the cluster first"
    if upgrade.stage is Stage.FORWARD:
        yield from _skew(kube, upgrade)
    for version in (upgrade.begin, upgrade.target) if upgrade.moves else (upgrade.target,):
        if version not in made_for:
            yield f"there is no node image {node_image(version)}", f"upload it to cloud {spec.cloud}"
    try:
        check_surge(cluster, observed)
    except MoyaiError as error:
        yield error.message, error.hint or ""
    overridden = bool(spec.node_pools) and all(pool.drain.at_timeout == "override" for pool in spec.node_pools)
    for budget in use.budgets if use and not overridden else ():
        if budget.never:
            yield (
                f"PodDisruptionBudget {budget.name} keeps {budget.desired} of {budget.expected} pods, so none of them may ever "
                "leave its node",
                "more replicas, a budget that lets one go, or nodePools[].drain.atTimeout override",
            )
    for one in use.old_apis if use else ():
        if version_numbers(one.removed) <= version_numbers(minor_version(upgrade.goal)):
            yield f"{one.name} is in use, and {one.removed} has it no more", "have its users ask for a later version of it"


def _skew(kube: KubeFacts, upgrade: Upgrade) -> Iterator[tuple[str, str]]:
    for node in kube.nodes:
        said = re.match(r"1\.([0-9]{1,4})(?![0-9])", node.version)
        if said is None:
            continue  # a node of the user's may say anything
        behind = version_numbers(minor_version(upgrade.target))[1] - int(said[1])
        if behind > KUBELET_SKEW:
            what = f"node {node.name} has {node.version}, more than {KUBELET_SKEW} minor versions before {upgrade.target}"
            yield what, "replace it: delete its machine in the cloud, then run `moyai up`"
        elif behind < 0:
            yield f"node {node.name} has {node.version}, which is later than {upgrade.target}", "choose a later version"
