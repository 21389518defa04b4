"""A control plane of several machines: which machines it keeps, what a changed spec may ask of it, when a lost machine may be
replaced, where the machines stand.

Always holds: nothing is planned that takes etcd's majority away. A member is removed only by the machine that takes its place
(``bootstrap/data/etcd_member.py``) or by a step (``leaving_planes``); both ask etcd itself. What neither can decide is refused
here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from itertools import count, islice
from typing import Any

from moyai.core.errors import Terminal, UsageError
from moyai.plan import keys
from moyai.plan.cluster.situation import Situation
from moyai.plan.nodes import CONTROL_PLANE_POOL, node_name, pool_of_node
from moyai.plan.observed import Observed, Recorded, server_owner
from moyai.spec.control_plane import was_virtual
from moyai.spec.model import Cluster

_REBUILD = "`moyai down` and `moyai up` build it again"
_RESTORE = "`moyai restore FILE` makes the cluster again from a backup, once all its control planes are deleted in the cloud"


def plane_numbers(
    cluster: Cluster, observed: Observed, *, recorded: Recorded, replaced: str = "", outdated: Collection[str] = ()
) -> tuple[int, ...]:
    """The numbers of the machines that the control plane is to consist of.

    A cluster that has answered keeps the machines that work rather than those that do not, then those that are not
    ``outdated``, then the lowest. A machine that is ``replaced``, or whose API server a removal has ended, does not come back:
    a new one takes the lowest free number.
    """
    wanted = cluster.spec.control_plane.replicas
    if not recorded.ready:
        return tuple(range(wanted))
    works = {one.name for one in observed.servers if server_owner(one) == recorded.uid and not one.power.broken}
    stopped = {one.name for one in observed.kube.nodes if one.stopped} if observed.kube else set[str]()
    taken = {*recorded.allocations, *(one.name for one in observed.servers)}

    def name(number: int) -> str:
        return node_name(cluster.name, CONTROL_PLANE_POOL, ordinal=number)

    there = [number for number in range(len(taken) + 2 * wanted) if name(number) in recorded.allocations]
    fit = [number for number in there if name(number) not in stopped and name(number) != replaced]
    kept = sorted(fit, key=lambda number: (name(number) not in works, name(number) in outdated, number))[:wanted]
    free = (number for number in count() if name(number) not in taken)
    return tuple(sorted((*kept, *islice(free, wanted - len(kept)))))


def refuse_planes(cluster: Cluster, before: Mapping[str, Any]) -> None:
    """Raises UsageError for a number of control planes that a cluster which exists cannot come to. ``before``: its dumped
    spec."""
    plane, past = cluster.spec.control_plane, before["spec"]["controlPlane"]
    had = past["replicas"]
    if plane.replicas > had and not was_virtual(past):
        raise UsageError(
            f"spec.controlPlane.replicas: {plane.replicas}, should stay {had} while the cluster exists (its API has the "
            "address of its only machine, which is in certificates and in every node's configuration)",
            hint=f"{_REBUILD}; with controlPlane.endpoint vrrp or load-balancer a cluster can get more control planes later",
        )


def refuse_replacement(cluster: Cluster, observed: Observed, *, recorded: Recorded, replaced: str) -> None:
    """Raises UsageError for a node that is not a control plane which another one can take the place of."""
    what = f"node {replaced} of cluster {cluster.name}"
    if replaced not in recorded.allocations or pool_of_node(replaced, cluster.name) != CONTROL_PLANE_POOL:
        raise UsageError(f"{what} is none of its control planes", hint="`moyai status` names them")
    if not cluster.spec.control_plane.virtual:
        raise UsageError(f"{what} cannot be replaced: the API has its address", hint=_REBUILD)
    works = any(one.name == replaced and not one.power.broken for one in observed.servers)
    if observed.kube is None or not works:
        state = "its machine does not run" if not works else "the API does not answer"
        raise UsageError(f"{what} cannot be replaced: {state}", hint="`moyai up` without it mends the cluster first")


def majority(members: int) -> int:
    """How many of etcd's voting members must live."""
    return members // 2 + 1


def check_quorum(now: Situation) -> None:
    """Raises Terminal where so many control planes are lost that etcd has no majority: a person decides what becomes of it; and
    where some are to leave and nobody can ask etcd."""
    wanted = [node.name for node in now.control_planes]
    made = [name for name in wanted if name in now.existing.servers or keys.server(name) in now.recorded.intended]
    planes = [*(made or wanted), *now.leaving_planes]
    lost = [name for name in planes if not now.lives(name)]
    if now.makes_cluster or (len(planes) == 1 and now.only_plane(now.control_planes[0])):
        return
    if len(lost) == len(planes):
        raise Terminal(
            f"the machines of all control planes are gone or broken, {', '.join(lost)}, and with them the cluster's state",
            hint=f"mend one of them in the cloud; else {_RESTORE}; without a backup {_REBUILD}",
        )
    if now.observed.kube is not None:
        return
    if len(planes) - len(lost) < majority(len(planes)):
        raise Terminal(
            f"control planes {', '.join(lost)} are gone, and the API does not answer: etcd has no majority of its "
            f"{len(planes)} members, and nothing can be done without a risk for what is stored",
            hint=f"start the machines again in the cloud if they are there; else {_RESTORE}; without a backup {_REBUILD}",
        )
    if now.leaving_planes:
        raise Terminal(
            f"control planes {', '.join(now.leaving_planes)} are to leave, and the API does not answer: only a cluster that "
            "works lets one go",
            hint="`moyai up` with as many control planes as before mends the cluster first",
        )


def plane_notes(now: Situation) -> Iterator[str]:
    """Zones that hold so many control planes that the API ends with one of them."""
    planes = now.control_planes
    if len(planes) == 1:
        return
    for zone, planes_there in sorted(Counter(node.zone for node in planes).items()):
        if zone and len(planes) - planes_there < majority(len(planes)):
            yield (
                f"zone {zone} has {planes_there} of {len(planes)} control planes: without this zone the others are no "
                "majority, and the API stops"
            )
