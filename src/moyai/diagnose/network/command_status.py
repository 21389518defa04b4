"""`moyai net status`: the mode and its reason, what each node has for it, how many more nodes fit, and who announces."""

from __future__ import annotations

from collections.abc import Sequence

from moyai.cloud.capabilities import Cloud
from moyai.core.clock import Clock, SystemClock
from moyai.core.progress import Reporter
from moyai.diagnose.network.announcements import AnnouncedState, announced_states
from moyai.diagnose.network.cloud_wire import CloudFacts
from moyai.diagnose.network.command_bgp import BgpReport, bgp_report
from moyai.diagnose.network.probe_pods import ProbePods
from moyai.diagnose.network.read_network import read_kernels, read_view
from moyai.diagnose.network.state import NetworkState, node_states
from moyai.kube.objects import Node, parse_lease, parse_service
from moyai.kube.objects.meta import part, text
from moyai.kube.quick import KubeApi
from moyai.kube.resources import LEASES, SERVICE_BGP_STATUSES, SERVICES
from moyai.lifecycle.clusters import require_api
from moyai.lifecycle.record import Record
from moyai.plan.announce.metallb_words import NAMESPACE
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
        sources_of_port=cloud.kind.sources_of_port,
    )
    speaks = cluster.spec.network.mode == "bgp"
    bgp = bgp_report(api, record.name) if speaks else BgpReport(record.name, {}, {})
    announced = _announced(api, nodes) if cluster.spec.services.announce.ranges else ()
    unknown = (f"the cloud cannot be asked: {facts.unknown}",) if facts.unknown else ()
    return NetworkState(
        cluster=record.name,
        mode=cluster.spec.network.mode,
        why="" if facts.unknown else reason(cluster, _offered(facts)),
        policy=cluster.spec.network.policy,
        pod_range=str(cluster.spec.network.pod_cidr),
        nodes=states,
        budget=budget,
        problems=(
            *unknown,
            *(f"{one.name}: {problem}" for one in states for problem in one.problems),
            *(one.problem for one in announced if one.problem),
            *bgp.down,
            *(f"{name}: its FRR cannot be asked: {why}" for name, why in bgp.unread.items()),
        ),
        warnings=tuple(budget.warnings()),
        announced=announced,
    )


def _announced(api: KubeApi, nodes: Sequence[Node]) -> tuple[AnnouncedState, ...]:
    services, leases = api.list(SERVICES), api.list(LEASES, namespace=NAMESPACE)
    told: dict[str, list[str]] = {}
    for one in api.list(SERVICE_BGP_STATUSES, namespace=NAMESPACE):
        status = part(one, "status")
        service = f"{text(status, 'serviceNamespace')}/{text(status, 'serviceName')}"
        told.setdefault(service, []).append(text(status, "node"))
    return announced_states(map(parse_service, services), map(parse_lease, leases), nodes=nodes, told=told)


def _offered(facts: CloudFacts) -> Observed:
    return Observed(capabilities=facts.capabilities, sources_allowed=facts.sources_allowed)
