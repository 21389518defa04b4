"""Does the plan fit into the cloud's quotas? Asked before anything is made.

Always holds: a plan whose objects are more than what is free in any known quota is refused with one line that says which
quota, how much is needed, how much is free, and what would help. A quota that the cloud does not report cannot be checked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from moyai.cloud.model import Route
from moyai.core.errors import Terminal
from moyai.core.keys import Kind
from moyai.plan import keys
from moyai.plan import steps as s
from moyai.plan.nodes import PlannedNode
from moyai.plan.observed import Observed
from moyai.plan.route_budget import foreign_routes
from moyai.plan.steps import Step
from moyai.spec.model import Cluster

#: What the cloud itself makes on our network and counts: a DHCP port and the router's interface.
OWN_PORTS = 2

_COUNTED = (
    s.CreateNetwork,
    s.CreateSubnet,
    s.CreateRouter,
    s.CreateGroup,
    s.CreatePort,
    s.CreateFloatingIP,
    s.CreateMachinePort,
    s.CreateMachineAddress,
    s.CreateBalancer,
)
_FEWER = "fewer nodes or smaller flavors in the spec"
_HELP = {
    Kind.MEMORY: _FEWER,
    Kind.CPU: _FEWER,
    Kind.SERVER: "fewer nodes in the spec",
    Kind.PORT: "fewer nodes in the spec",
}


def needed(observed: Observed, steps: Iterable[Step]) -> Counter[Kind]:
    """How much of each quota the steps use, less what the same plan gives back first."""
    need: Counter[Kind] = Counter()
    flavors = {flavor.id: flavor for flavor in observed.flavors}
    steps = tuple(steps)
    freed = {step.key for step in steps if isinstance(step, s.Delete)}
    for step in steps:
        if isinstance(step, _COUNTED):
            need[step.key.kind] += 1
        if isinstance(step, s.CreateNetwork):
            need[Kind.PORT] += OWN_PORTS
        if isinstance(step, s.SetRules):
            need[Kind.RULES] += len(step.add) - len(step.remove)
        if isinstance(step, s.CreateGroup):
            need[Kind.RULES] += 2  # a cloud gives every group two rules for outgoing traffic
        if (
            isinstance(step, s.CreateServer | s.CreateMachine)
            and step.key not in freed
            and (flavor := flavors.get(step.flavor_id))
        ):
            need[Kind.SERVER] += 1
            need[Kind.CPU] += flavor.vcpus
            need[Kind.MEMORY] += flavor.memory_mb
    return need


def check_capacity(
    cluster: Cluster, observed: Observed, *, steps: Sequence[Step], nodes: Sequence[PlannedNode], own_routes: int
) -> None:
    """Raises Terminal when the plan cannot fit. ``own_routes``: routes of the router that the pod network takes."""
    spec = cluster.spec
    routes = own_routes + len(routes_of_others(cluster, observed, steps=steps))
    if own_routes and routes > spec.network.max_routes:
        raise Terminal(
            f"{len(nodes)} nodes need {routes} routes in one router, cloud {spec.cloud} allows {spec.network.max_routes} "
            "(spec.network.maxRoutes)",
            hint="have the operator raise the limit and say so in spec.network.maxRoutes, or use fewer nodes",
        )
    _check_quotas(cluster, observed, need=needed(observed, steps))


def check_surge(cluster: Cluster, observed: Observed) -> None:
    """Raises Terminal when the cloud has no room for the machines that there are more of while all are replaced."""
    spec, flavors = cluster.spec, {name: one for one in observed.flavors for name in (one.name, one.id)}
    turns = [(spec.control_plane.flavor, 1)]
    turns += [(pool.flavor, min(pool.rolling_update.max_surge, pool.replicas)) for pool in spec.node_pools]
    need: Counter[Kind] = Counter()
    for flavor, count in turns:
        one = flavors.get(flavor)
        cpus, memory = (one.vcpus, one.memory_mb) if one else (0, 0)
        need |= Counter({Kind.SERVER: count, Kind.PORT: count, Kind.CPU: count * cpus, Kind.MEMORY: count * memory})
    _check_quotas(cluster, observed, need=need)
    most = max(count for _, count in turns)
    nodes = spec.control_plane.replicas + sum(pool.replicas for pool in spec.node_pools)
    if nodes + most > spec.max_nodes:
        raise Terminal(
            f"{most} more than {nodes} nodes do not fit into the ranges of cluster {cluster.name}, which hold {spec.max_nodes}",
            hint="fewer nodes, or a smaller rollingUpdate.maxSurge",
        )


def _check_quotas(cluster: Cluster, observed: Observed, *, need: Mapping[Kind, int]) -> None:
    short = [
        (quota, quota.kind, need[quota.kind])
        for quota in sorted(observed.quotas, key=lambda quota: quota.name)
        if quota.kind is not None and quota.limit >= 0 and need.get(quota.kind, 0) > quota.limit - quota.used
    ]
    if short:
        parts = [
            f"{count} {kind.plural} are needed and {max(quota.limit - quota.used, 0)} are free ({quota.name})"
            for quota, kind, count in short
        ]
        helps = {_HELP.get(kind, "delete what is no longer used") for _, kind, _ in short}
        raise Terminal(
            f"cluster {cluster.name} does not fit into the quota of cloud {cluster.spec.cloud}: {'; '.join(parts)}",
            hint=f"have the operator raise {', '.join(quota.name for quota, _, _ in short)}, or: {' or '.join(sorted(helps))}",
        )


def routes_of_others(cluster: Cluster, observed: Observed, *, steps: Sequence[Step]) -> tuple[Route, ...]:
    """Routes in the cluster's router that somebody else put there."""
    if any(isinstance(step, s.CreateRouter) for step in steps):
        return ()
    name, given = keys.object_name(cluster.name, keys.ROUTER), cluster.spec.network.existing
    of_others = bool(given.network or given.router)
    there = (one for one in observed.routers if (one.id == given.router if of_others else one.name == name))
    return foreign_routes(there, cluster.spec)
