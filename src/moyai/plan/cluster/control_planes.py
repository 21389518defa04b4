"""A control plane of several machines: what a changed spec may ask of it, when a lost machine may be replaced, where the
machines stand.

Always holds: nothing is planned that takes etcd's majority away. A member is removed only by the machine that takes its place
(``bootstrap/data/etcd_member.py``), which asks etcd itself; what no machine can decide is refused here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from moyai.core.errors import Terminal, UsageError
from moyai.plan.cluster.situation import Situation
from moyai.spec.control_plane import was_virtual
from moyai.spec.model import Cluster

_REBUILD = "`moyai down` and `moyai up` build it again"


def refuse_planes(cluster: Cluster, before: Mapping[str, Any]) -> None:
    """Raises UsageError for a number of control planes that a cluster which exists cannot come to. ``before``: its dumped
    spec."""
    plane, past = cluster.spec.control_plane, before["spec"]["controlPlane"]
    had = past["replicas"]
    if plane.replicas > had and not was_virtual(past):
        raise UsageError(
            f"spec.controlPlane.replicas: {plane.replicas}, should stay {had} while the cluster exists (its API has the "
            "address of its only machine, which is in certificates and in every node's configuration)",
            hint=f"{_REBUILD}; a cluster made with controlPlane.endpoint vrrp can get more control planes later",
        )
    if plane.replicas < had:
        raise UsageError(
            f"spec.controlPlane.replicas: {plane.replicas}, should be at least {had} while the cluster exists (control planes "
            "are not removed yet)",
            hint=_REBUILD,
        )


def majority(members: int) -> int:
    """How many of etcd's voting members must live."""
    return members // 2 + 1


def check_quorum(now: Situation) -> None:
    """Raises Terminal where so many control planes are lost that etcd has no majority: a person decides what becomes of it."""
    planes = now.control_planes
    lost = [node.name for node in planes if not now.lives(node.name)]
    if len(planes) == 1 or now.makes_cluster or not lost:
        return
    if len(lost) == len(planes):
        raise Terminal(
            f"the machines of all control planes are gone or broken, {', '.join(lost)}, and with them the cluster's state",
            hint=f"mend one of them in the cloud; else {_REBUILD}",
        )
    if now.observed.kube is not None:
        return
    if len(planes) - len(lost) < majority(len(planes)):
        raise Terminal(
            f"control planes {', '.join(lost)} are gone, and the API does not answer: etcd has no majority of its "
            f"{len(planes)} members, and nothing can be done without a risk for what is stored",
            hint=f"start the machines again in the cloud if they are there; else {_REBUILD}",
        )


def plane_notes(now: Situation) -> Iterator[str]:
    """Zones that hold so many control planes that the API ends with one of them."""
    planes = now.control_planes
    if len(planes) == 1:
        return
    for zone, count in sorted(Counter(node.zone for node in planes).items()):
        if zone and len(planes) - count < majority(len(planes)):
            yield (
                f"zone {zone} has {count} of {len(planes)} control planes: without it the others are no majority, and the API "
                "stands still"
            )
