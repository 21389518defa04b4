"""Machines that are out of date, and which of them are replaced by this plan: the others stay until the next one.

What a machine was made with is read from the machine itself: its flavor and its zone from the cloud, the rest from its server's
metadata (``machine_template``). A machine of an older moyai has no such metadata: it is out of date as far as the cloud shows,
and where a change of the spec is on its way.

Always holds: control planes first, one at a time, then one pool after the other, as many machines at a time as the pool's
``rollingUpdate`` says. None is replaced while the API does not answer. Nothing but the machines says how far a replacement has
come, so the plan after a run that was killed is the rest of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from moyai.cloud.model import Power, Server
from moyai.core.ids import TEMPLATE_KEY
from moyai.plan.changes import Change
from moyai.plan.cluster.control_planes import plane_numbers
from moyai.plan.demands import Choices
from moyai.plan.graph import Replacement
from moyai.plan.machine_template import Versions, differences, machine_template
from moyai.plan.nodes import CONTROL_PLANE_POOL, node_name, number_of_node, pool_of_node
from moyai.plan.observed import Observed, Recorded, server_owner
from moyai.plan.pod_network import pod_network_of
from moyai.spec.model import Cluster, NodePool


@dataclass(frozen=True)
class Rollout:
    """``replacements``: machines that are out of date, in their order. ``kept``: node → why, of those that cannot be replaced.

    ``planes``: the numbers of the control planes that there are to be. ``pools``: the same of each pool. ``leaving``: names of
    nodes that leave in this plan because another one takes their place.
    """

    planes: tuple[int, ...]
    pools: Mapping[str, tuple[int, ...]]
    replacements: tuple[Replacement, ...] = ()
    kept: Mapping[str, str] = field(default_factory=dict[str, str])
    leaving: frozenset[str] = frozenset()


def plan_rollout(
    cluster: Cluster,
    observed: Observed,
    *,
    recorded: Recorded,
    choices: Choices,
    changes: Sequence[Change] = (),
    replaced: str = "",
    versions: Versions | None = None,
) -> Rollout:
    """``replaced``: name of a control plane that another one takes the place of, whatever it was made with. ``versions``: of
    Kubernetes, where they are not the spec's."""
    outdated = dict(_outdated(cluster, observed, recorded=recorded, choices=choices, changes=changes, versions=versions))
    fixed = not cluster.spec.control_plane.virtual
    kept = {name: why for name, why in outdated.items() if fixed and _pool(cluster, name) == CONTROL_PLANE_POOL}
    outdated = {name: why for name, why in outdated.items() if name not in kept}
    works = {one.name for one in observed.servers if server_owner(one) == recorded.uid and not one.power.broken}
    plane = replaced or _plane(cluster, observed, recorded=recorded, works=works, outdated=outdated)
    planes = plane_numbers(cluster, observed, recorded=recorded, replaced=plane, outdated=outdated)
    busy = bool(replaced) or observed.kube is None or any(_pool(cluster, one) == CONTROL_PLANE_POOL for one in outdated)
    pools: dict[str, tuple[int, ...]] = {}
    leaving: set[str] = set()
    for pool in cluster.spec.node_pools:
        own = [name for name in outdated if _pool(cluster, name) == pool.name]
        pools[pool.name], gone = _numbers(cluster, pool, recorded=recorded, works=works, outdated=own, may=not busy)
        leaving |= gone
        busy = busy or bool(own)
    now = {*leaving, *({plane} & outdated.keys())}
    order = sorted(outdated, key=lambda name: name not in now)
    replacements = tuple(Replacement(name, outdated[name], now=name in now) for name in order)
    return Rollout(planes, pools, replacements=replacements, kept=kept, leaving=frozenset(leaving))


def rollout_notes(rollout: Rollout) -> Iterator[str]:
    """Machines that keep what they were made with, whatever the spec has become."""
    for name, why in rollout.kept.items():
        yield (
            f"control plane {name} keeps what it was made with ({why}): the API has its address, so no other machine can take "
            "its place"
        )


def _outdated(
    cluster: Cluster,
    observed: Observed,
    *,
    recorded: Recorded,
    choices: Choices,
    changes: Sequence[Change],
    versions: Versions | None,
) -> Iterator[tuple[str, str]]:
    """Name → why, in the order in which they are replaced."""
    # a restore deletes nothing: the next `up` replaces what is out of date
    if not recorded.ready or recorded.restores:
        return
    servers = {one.name: one for one in observed.servers if server_owner(one) == recorded.uid}
    plane = cluster.spec.control_plane
    zones = {CONTROL_PLANE_POOL: plane.zones, **{pool.name: pool.zones for pool in cluster.spec.node_pools}}
    flavors = {CONTROL_PLANE_POOL: plane.flavor, **{pool.name: pool.flavor for pool in cluster.spec.node_pools}}
    for pool, flavor in flavors.items():
        template = machine_template(cluster.spec, pool=pool, versions=versions)
        pending = tuple(_pending(changes, pool))
        found: list[tuple[tuple[bool, bool, int], str, str]] = []
        for name in recorded.allocations:
            server = servers.get(name)
            if _pool(cluster, name) != pool or server is None or server.power.broken or server.power is Power.HELD:
                continue
            # a machine of an older moyai does not say its version; its kubelet does
            node = observed.kube.node(name) if versions and observed.kube else None
            held = versions is not None and versions.held
            said = _said(server, template, pending=pending, held=held, runs=node.version if node else "")
            why = "; ".join((*_shown(server, choices.flavors[flavor].name, zones=zones[pool]), *said))
            if why:
                found.append((_turn(observed, name), name, why))
        yield from ((name, why) for _, name, why in sorted(found))


def _shown(server: Server, flavor: str, *, zones: Collection[str]) -> Iterator[str]:
    """What the cloud shows."""
    if server.flavor_name and server.flavor_name != flavor:
        yield f"flavor {server.flavor_name} → {flavor}"
    if zones and server.zone and server.zone not in zones:
        yield f"zone {server.zone}"


def _said(server: Server, template: str, *, pending: Sequence[str], held: bool, runs: str) -> Iterator[str]:
    """``runs``: the version that its kubelet says, empty where it says none."""
    made = server.metadata.get(TEMPLATE_KEY)
    if made is not None:
        yield from differences(made, template, held=held)
        return
    if runs:
        yield from differences(f"kubernetes={runs}", template, held=held)
    yield from pending


def _pending(changes: Sequence[Change], pool: str) -> Iterator[str]:
    """What the cloud does not show of a machine and that is about to change."""
    for change in changes:
        if change.kind == "rolling" and not change.shown and change.pool in ("", pool):
            yield change.path.removeprefix("spec.")


def _turn(observed: Observed, name: str) -> tuple[bool, bool, int]:
    """Of the machines of a pool: first what was begun, then nodes that do not work, then by number."""
    known = observed.kube.node(name) if observed.kube else None
    return (known is None or not known.removing, known is not None and known.ready, number_of_node(name))


def _pool(cluster: Cluster, name: str) -> str | None:
    return pool_of_node(name, cluster.name)


def _plane(
    cluster: Cluster, observed: Observed, *, recorded: Recorded, works: Collection[str], outdated: Collection[str]
) -> str:
    """The control plane that another one takes the place of now; empty while none may leave.

    A replacement begins only while all are well, so that no more than one of them is being changed. One that has begun shows
    by there being more control planes than the spec has.
    """
    kube, wanted = observed.kube, cluster.spec.control_plane.replicas
    first = next((name for name in outdated if _pool(cluster, name) == CONTROL_PLANE_POOL), "")
    if not first or kube is None:
        return ""
    planes = [name for name in recorded.allocations if _pool(cluster, name) == CONTROL_PLANE_POOL]
    stopped = {one.name for one in kube.nodes if one.stopped}
    if len([name for name in planes if name not in stopped]) > wanted:
        return first
    well = kube.in_service if pod_network_of(cluster.spec).ready else kube.registered
    return first if len(planes) == wanted and stopped.isdisjoint(planes) and well.intersection(works) >= set(planes) else ""


def _numbers(
    cluster: Cluster,
    pool: NodePool,
    *,
    recorded: Recorded,
    works: Collection[str],
    outdated: Sequence[str],
    may: bool,
) -> tuple[tuple[int, ...], frozenset[str]]:
    """The numbers of the pool's nodes, and names of those that leave because another one takes their place. ``works``: names of
    all machines that do. ``may``: whether machines of this pool are replaced now.

    A place whose machine is gone is taken again, by a machine that is made as the spec has it.
    """
    there = sorted(number_of_node(name) for name in recorded.allocations if _pool(cluster, name) == pool.name)
    wanted, surge = pool.replicas, pool.rolling_update.max_surge if may else 0
    fresh = [number for number in there if node_name(cluster.name, pool.name, ordinal=number) not in outdated]
    new = max(0, min(wanted + surge - len(there), wanted - len(fresh)))
    going = len(there) + new - wanted
    if may and not going and not new and not surge:
        going = min(pool.rolling_update.max_unavailable, len(outdated))
    replaced = outdated[: max(going, 0)]
    # beyond those, first such as have no machine, then the youngest
    fresh.sort(key=lambda number: (node_name(cluster.name, pool.name, ordinal=number) not in works, number))
    dropped = fresh[len(fresh) - max(going - len(replaced), 0) :]
    gone = {*dropped, *map(number_of_node, replaced)}
    free = (number for number in range(len(there) + new) if number not in there)
    numbers = (*(number for number in there if number not in gone), *islice(free, new))
    return tuple(sorted(numbers)), frozenset(replaced)
