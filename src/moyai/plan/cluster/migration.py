"""From one mode of the pod network to the next on a cluster that runs: what is done in the cloud, and the stages of the agents.

Pure. Always holds: what the new mode needs of the cloud is there before a node uses it, and what the old one needed goes after
the last node has left it. Run again after an interruption, the plan is what is left, from the stage that was begun.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from moyai.core.errors import UsageError
from moyai.core.ids import Role
from moyai.core.keys import Key, Kind
from moyai.plan import keys
from moyai.plan import steps as s
from moyai.plan.addons import Addon
from moyai.plan.cluster.situation import Situation
from moyai.plan.existing import ROLES
from moyai.plan.graph import Plan, ordered
from moyai.plan.pod_network import pod_network_of
from moyai.plan.pod_network.choice import missing
from moyai.plan.pod_network.mode_change import stages
from moyai.plan.pod_network.sources import allow_sources
from moyai.plan.route_budget import foreign_routes
from moyai.plan.rules import missing_rules, wanted_rules
from moyai.plan.steps import Step
from moyai.plan.steps.moving import ApplyControllers, ApplyStage, WaitWorkload, at_stage
from moyai.spec.model import Cluster

FINAL = "final"
_AGENTS, _MANAGER = Key(Kind.ADDON, "pod network"), Key(Kind.ADDON, "cloud controller manager")
#: Seconds that a stage may take, and as many more for each node.
_LEAST, _PER_NODE = 180.0, 30.0
_RESTARTED = Key(Kind.CONDITION, "cloud controller manager restarted")


def with_mode(cluster: Cluster, mode: str) -> Cluster:
    network = cluster.spec.network.model_copy(update={"mode": mode})
    return cluster.model_copy(update={"spec": cluster.spec.model_copy(update={"network": network})})


def check_migration(now: Situation, target: Cluster) -> None:
    """Raises UsageError for a mode that the cloud cannot carry. ``now``: knows whether ports may send from other addresses."""
    mode = target.spec.network.mode
    if why := missing(target, now.observed):
        raise UsageError(f"--to {mode}: should be another mode: {why}")
    router = now.existing.router
    foreign = len(foreign_routes([router], now.spec)) if router else 0
    routes = pod_network_of(target.spec).routes(now.nodes)
    if routes and routes + foreign > target.spec.network.max_routes:
        raise UsageError(
            f"--to {mode}: should be another mode: {len(now.nodes)} nodes need {routes + foreign} routes in one router, cloud "
            f"{now.spec.cloud} allows {target.spec.network.max_routes} (spec.network.maxRoutes)"
        )


def plan_migration(now: Situation, target: Cluster, *, clears: bool = False, begun: str = "") -> Plan:
    """``now``: of the cluster in the mode that it has. ``target``: in the next one. ``clears``: whether nodes have no agents in
    that. ``begun``: name of the stage that an interrupted run was at, empty for none."""
    steps = tuple(_steps(now, target, begun=begun, clears=clears))
    return Plan(ordered(steps), nodes=now.nodes, made=now.existing.made(), choices=now.choices)


def _steps(now: Situation, target: Cluster, *, begun: str, clears: bool) -> Iterator[Step]:
    have, want = pod_network_of(now.spec), pod_network_of(target.spec)
    agents = next(one for one in now.addons if one.live)
    manager = next(one for one in now.addons if one.credential == keys.CONTROLLERS_CREDENTIAL)
    before = [*_before(now, target)]
    yield from before
    ready = tuple(step.id for step in before)
    if want.by_router:
        on = ApplyControllers(key=_MANAGER, after=ready, routes=True)
        yield on
        yield _restarted(on, manager)
        ready = (s.reached(_RESTARTED),)
    named = [(one.name, one.text) for one in stages(now.spec, target.spec)]
    named.append((FINAL, f"mode {target.spec.network.mode}"))
    names = [name for name, _ in named]
    for name, does in named[names.index(begun) if begun in names else 0 :]:
        step = ApplyStage(key=_AGENTS, after=ready, detail=name, stage=name, does=does)
        yield step
        yield WaitWorkload(
            key=at_stage(name),
            after=(step.id,),
            workload=next(iter(agents.daemon_sets)),
            daemon_set=True,
            seconds=_LEAST + _PER_NODE * len(now.nodes),
        )
        ready = (s.reached(at_stage(name)),)
    if clears:
        yield s.RemoveAddon(key=_AGENTS, after=ready, addon=agents.name)
    if have.by_router:
        router = now.existing.router
        off = ApplyControllers(key=_MANAGER, after=ready, routes=False)
        yield off
        yield _restarted(off, manager)
        routes = tuple(one for one in router.routes if one not in foreign_routes([router], now.spec)) if router else ()
        if router and routes:
            yield s.RemoveRoutes(key=keys.ROUTES, after=(s.reached(_RESTARTED),), router_id=router.id, routes=routes)
    yield from _rules(now, target, bare=want.bare, after=ready, remove=True)


def _restarted(step: Step, manager: Addon) -> Step:
    workload = next(iter(manager.copied))
    return WaitWorkload(key=_RESTARTED, after=(step.id,), workload=workload, daemon_set=False, seconds=_LEAST)


def _before(now: Situation, target: Cluster) -> Iterator[Step]:
    """In the cloud, so that both modes work."""
    have, want = pod_network_of(now.spec), pod_network_of(target.spec)
    yield from _rules(now, target, bare=have.bare or want.bare, after=(), remove=False)
    # what the old mode needs stays: a packet of a node that has not moved yet comes from a pod's address
    yield from allow_sources(now.nodes, now.existing, send_from=want.send_from, keep=True)
    if want.by_router:
        for step in want.steps(now.nodes, existing=now.existing, leaving=()):
            if isinstance(step, s.AddRoutes):
                yield step


def _rules(now: Situation, target: Cluster, *, bare: bool, after: Sequence[s.StepId], remove: bool) -> Iterator[Step]:
    groups: dict[Role, str] = {role: group.id for role, group in now.existing.groups.items()}
    add, stale = missing_rules(wanted_rules(target.spec, bare=bare), now.observed.rules, groups=groups)
    for role in ROLES:
        mine = tuple(one for one in add if one.role == role) if not remove else ()
        gone = tuple(one.id for one in stale if one.group_id == groups.get(role)) if remove else ()
        if mine or gone:
            step = s.SetRules(key=keys.rules(role), after=tuple(after), role=role, add=mine, remove=gone)
            yield replace(step, detail="of the old mode") if remove else step
