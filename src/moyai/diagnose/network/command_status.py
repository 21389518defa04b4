"""`moyai net status`: the mode and its reason, what each node has for it, and how many more nodes fit."""

from __future__ import annotations

from moyai.cloud.capabilities import Cloud
from moyai.core.clock import Clock, SystemClock
from moyai.core.progress import Reporter
from moyai.diagnose.network.cloud_wire import CloudFacts
from moyai.diagnose.network.probe_pods import ProbePods
from moyai.diagnose.network.read_network import read_kernels, read_view
from moyai.diagnose.network.state import NetworkState, node_states
from moyai.lifecycle.clusters import require_api
from moyai.lifecycle.record import Record
from moyai.plan.observed import Observed
from moyai.plan.pod_network.choice import reason
from moyai.plan.route_budget import foreign_routes, route_budget


def status(record: Record, cloud: Cloud, *, reporter: Reporter, clock: Clock | None = None) -> NetworkState:
    """Raises Terminal for a cluster without an API, Retriable where it does not answer."""
    clock, api, cluster = clock or SystemClock(), require_api(record), record.cluster
    with reporter.step("look at the cluster"):
        view = read_view(record, api, cloud=cloud)
    nodes = tuple(sorted(view.nodes, key=lambda one: one.name))
    unready = {one.name: "the node is not Ready" for one in nodes if not one.ready}
    with ProbePods(api, clock=clock) as probes, reporter.step("read the nodes' kernels"):
        kernels, absent = read_kernels(probes, [one.name for one in nodes if one.ready])
    facts = view.cloud
    states = node_states(cluster.spec, nodes, kernels=kernels, absent={**absent, **unready}, cloud=facts)
    budget = route_budget(
        cluster.spec,
        nodes=max(len(nodes), len(record.allocations)),
        foreign_routes=len(foreign_routes((facts.router,) if facts.router else (), cluster.spec)),
        ports=facts.ports.values(),
    )
    unknown = (f"the cloud cannot be asked: {facts.unknown}",) if facts.unknown else ()
    return NetworkState(
        cluster=record.name,
        mode=cluster.spec.network.mode,
        why="" if facts.unknown else reason(cluster, _offered(facts)),
        policy=cluster.spec.network.policy,
        pod_range=str(cluster.spec.network.pod_cidr),
        nodes=states,
        budget=budget,
        problems=(*unknown, *(f"{one.name}: {problem}" for one in states for problem in one.problems)),
        warnings=tuple(budget.warnings()),
    )


def _offered(facts: CloudFacts) -> Observed:
    return Observed(capabilities=facts.capabilities, sources_allowed=facts.sources_allowed)
