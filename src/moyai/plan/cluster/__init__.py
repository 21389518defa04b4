"""From a spec and a cloud as it is to the steps that are missing: the plan of ``up``, one module for each aspect.

Pure: the same input gives the same plan. Always holds: nothing is planned twice that exists already; objects of other clusters
are never in a plan; a plan that the cloud cannot hold, or a spec that names what the cloud lacks, is refused here, before
anything is made. Every edge between steps is made by these modules, and waits are steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from moyai.plan import keys
from moyai.plan.addons import Addon
from moyai.plan.capacity import check_capacity, routes_of_others
from moyai.plan.changes import classify, refuse_fixed
from moyai.plan.cluster.beside import plan_beside
from moyai.plan.cluster.control_planes import check_quorum, plane_notes, refuse_planes, refuse_replacement
from moyai.plan.cluster.copies import copies_notes, plan_copies
from moyai.plan.cluster.credentials import login_notes, logins_of, plan_key_pair
from moyai.plan.cluster.endpoint import endpoint_of, renewal_notes
from moyai.plan.cluster.firewall import plan_firewall
from moyai.plan.cluster.from_backup import plan_restore, spared_notes
from moyai.plan.cluster.further_networks import plan_further_networks, plan_leaving_networks
from moyai.plan.cluster.live_addons import live_addon_notes, plan_live_addons
from moyai.plan.cluster.machines import held_notes, plan_machines
from moyai.plan.cluster.network import network_of
from moyai.plan.cluster.node_versions import plan_node_versions
from moyai.plan.cluster.ranges import check_ranges, reach_notes
from moyai.plan.cluster.reclaim_policy import plan_reclaim_policy
from moyai.plan.cluster.removal import plan_removal, released
from moyai.plan.cluster.repair import cordon_notes, plan_repair
from moyai.plan.cluster.requirements import capability_notes, check_capabilities, refuse_taken_name
from moyai.plan.cluster.rollout import Rollout, plan_rollout, rollout_notes
from moyai.plan.cluster.situation import Situation, leaving_nodes
from moyai.plan.cluster.spread import plan_spread, spread_notes, spread_pools
from moyai.plan.cluster.waits import addon_notes, plan_waits
from moyai.plan.demands import choose
from moyai.plan.existing import find_existing
from moyai.plan.given_network import given_addresses, given_notes, given_of
from moyai.plan.graph import Plan, ordered
from moyai.plan.machine_template import Versions
from moyai.plan.machines_beside import wanted_machines
from moyai.plan.nodes import virtual_address, wanted_nodes
from moyai.plan.observed import Observed, Recorded, owner, owns
from moyai.plan.pod_network import pod_network_of
from moyai.plan.route_budget import route_budget
from moyai.spec.load import dump
from moyai.spec.model import Cluster

__all__ = ["plan_up", "situation"]


def situation(
    cluster: Cluster,
    observed: Observed,
    *,
    recorded: Recorded,
    addons: Iterable[Addon] = (),
    before: Mapping[str, Any] | None = None,
    replaced: str = "",
    versions: Versions | None = None,
) -> Situation:
    """All facts that a plan is made from; refuses what the cloud cannot do and what cannot change. See ``plan_up``."""
    found = _situation(cluster, observed, recorded=recorded, addons=addons, before=before, replaced=replaced, versions=versions)
    return found[0]


def _situation(
    cluster: Cluster,
    observed: Observed,
    *,
    recorded: Recorded,
    addons: Iterable[Addon],
    before: Mapping[str, Any] | None,
    replaced: str,
    versions: Versions | None,
) -> tuple[Situation, Rollout]:
    changes = classify(before, dump(cluster)) if before else ()
    if before:
        refuse_planes(cluster, before)
    refuse_fixed(changes)
    check_capabilities(cluster, observed)
    external = network_of(cluster, observed.capabilities).external
    choices = choose(cluster, observed, external=external, versions=versions)
    if replaced:
        refuse_replacement(cluster, observed, recorded=recorded, replaced=replaced)
    refuse_taken_name(cluster, observed, recorded=recorded)
    rollout = plan_rollout(
        cluster, observed, recorded=recorded, choices=choices, changes=changes, replaced=replaced, versions=versions
    )
    given = given_of(cluster.spec, observed)
    own = {
        port.id
        for port in observed.ports
        if owns(recorded.uid, port) or (not owner(port) and keys.port(port.name) in recorded.intended)
    }
    chosen = (str(one) for cidr in cluster.spec.services.announce.ranges for one in cidr)
    nodes = wanted_nodes(
        cluster,
        zones=observed.zones,
        allocations=recorded.allocations,
        used_addresses=[ip for port in observed.ports if port.name not in recorded.allocations for ip in port.fixed_ips],
        own_addresses={
            port.name: port.fixed_ips[0]
            for port in observed.ports
            if owns(recorded.uid, port) and port.use.deletable and port.fixed_ips and port.name not in recorded.allocations
        },
        planes=rollout.planes,
        pools=rollout.pools,
        given=given_addresses(given, observed, own=own, taken=(*chosen, virtual_address(cluster.spec))),
    )
    # the port of the virtual address is found by its name, like a node's
    machines = wanted_machines(cluster)
    names = [node.name for node in nodes]
    if cluster.spec.control_plane.virtual:
        names.append(keys.virtual_port(cluster.name).name)
    further = (one.name for one in cluster.spec.networks)
    existing = find_existing(
        cluster.name,
        observed,
        recorded=recorded,
        nodes=names,
        networks=further,
        machines=machines,
        pools=spread_pools(cluster.spec),
        given=given,
    )
    # a backup does not know of nodes that were made after it: they are for their user to judge
    unwanted = leaving_nodes(observed, recorded, existing=existing, nodes=nodes)
    now = Situation(
        cluster=cluster,
        observed=observed,
        recorded=recorded,
        choices=choices,
        nodes=nodes,
        existing=existing,
        leaving=() if recorded.restores else unwanted,
        spared=unwanted if recorded.restores else (),
        addons=tuple(addons),
        changes=changes,
        rolled=rollout.leaving,
        versions=versions,
        given=given,
    )
    check_ranges(now)
    check_quorum(now)
    return now, rollout


def plan_up(
    cluster: Cluster,
    observed: Observed,
    *,
    recorded: Recorded,
    addons: Iterable[Addon] = (),
    before: Mapping[str, Any] | None = None,
    replaced: str = "",
    versions: Versions | None = None,
) -> Plan:
    """What is to be done so that the cloud holds this cluster, and what is waited for.

    ``addons``: those that the cluster has. ``before``: the spec on record, as ``spec.load.dump`` gives it.
    ``replaced``: name of a control plane that works and in whose place another one is made; empty for none.
    ``versions``: of Kubernetes, where machines get others than the spec's.
    Raises UsageError or Terminal when the cluster cannot be.
    """
    now, rollout = _situation(
        cluster, observed, recorded=recorded, addons=addons, before=before, replaced=replaced, versions=versions
    )
    cloud, offered = cluster.spec.cloud, observed.capabilities
    network, logins = network_of(cluster, offered), logins_of(cloud, offered, own=observed.login)
    endpoint = endpoint_of(cluster, now.control_planes, capabilities=offered)
    pods = pod_network_of(cluster.spec)
    steps = (
        *now.existing.adopt,
        *network.steps(now),
        *plan_further_networks(now),
        *plan_firewall(now, pods, network=network),
        *endpoint.steps(now, network),
        *plan_key_pair(now),
        *plan_spread(now),
        *logins.steps(now),
        *plan_machines(now, endpoint, pods=pods, network=network),
        *plan_restore(now, reachable=endpoint.reachable_by()),
        *pods.steps(now.nodes, existing=network.ports_of(now.existing), leaving=now.leaving),
        *plan_removal(now),
        *plan_beside(now, network),
        *plan_reclaim_policy(now),
        *plan_copies(now),
        *plan_node_versions(now, replaces=bool(rollout.replacements)),
        *plan_live_addons(now),
    )
    steps = (*steps, *plan_leaving_networks(now, steps), *plan_repair(now, steps, pods=pods))
    steps = ordered((*steps, *plan_waits(now, steps, reachable=endpoint.reachable_by(), pods=pods)))
    # routes of nodes whose place another one takes first are in the router together with the others
    routes = pods.routes(now.nodes)
    unsettled = frozenset(node.name for node in now.nodes if node.guessed)
    check_capacity(cluster, observed, steps=steps, nodes=now.nodes, own_routes=routes and routes + len(now.rolled))
    budget = route_budget(
        cluster.spec,
        nodes=len(now.nodes),
        foreign_routes=len(routes_of_others(cluster, observed, steps=steps)),
        ports=now.existing.ports.values(),
        sources_of_port=observed.sources_of_port,
    )
    notes = (
        *budget.warnings(),
        *rollout_notes(rollout),
        *held_notes(now),
        *cordon_notes(now),
        *addon_notes(now),
        *copies_notes(now),
        *live_addon_notes(steps),
        *capability_notes(cluster, observed),
        *spread_notes(now),
        *login_notes(now),
        *reach_notes(now),
        *renewal_notes(steps),
        *plane_notes(now),
        *spared_notes(now),
        *given_notes(cluster, now.given, guessed=bool(unsettled)),
    )
    return Plan(
        steps=steps,
        nodes=now.nodes,
        made=now.existing.made(fixed=endpoint.fixed),
        choices=now.choices,
        changes=now.changes,
        notes=notes,
        released=released(now, steps),
        replacements=rollout.replacements,
        unsettled=unsettled,
    )
