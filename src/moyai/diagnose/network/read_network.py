"""Reads what a network is judged by: Kubernetes' objects, the cloud's, and, by host probes, the kernels of nodes.

Always holds: the lists are read side by side, each once; a cloud that does not answer is a fact, and so is a node whose kernel
cannot be read; an API that does not answer is an error.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

from moyai.cloud.capabilities import Capability, Cloud
from moyai.core.errors import MoyaiError, NotFound
from moyai.core.ids import cluster_tag
from moyai.diagnose.network.cloud_wire import CloudFacts
from moyai.diagnose.network.kernel_facts import Kernel, parse_kernel
from moyai.diagnose.network.places import Objects
from moyai.diagnose.network.probe_pods import ProbePods
from moyai.diagnose.network.trace_model import World, service_facts
from moyai.kube.objects import (
    NetworkPolicy,
    Node,
    PolicyNamespace,
    parse_node,
    parse_policy,
    parse_policy_namespace,
    parse_policy_pod,
    parse_service,
)
from moyai.kube.objects.cluster_policy import ClusterPolicy, parse_cluster_policy
from moyai.kube.quick import KubeApi
from moyai.kube.resources import CLUSTER_NETWORK_POLICIES, NAMESPACES, NETWORK_POLICIES, NODES, PODS, SERVICES
from moyai.lifecycle.record import Record
from moyai.plan.network_policy.pod_index import PodIndex
from moyai.spec.cluster_network import NetworkSpec

_CALLS = 8


@dataclass(frozen=True)
class View:
    """What the API and the cloud say of a cluster. ``network``: of its spec, as it was built."""

    network: NetworkSpec
    objects: Objects
    namespaces: tuple[PolicyNamespace, ...]
    policies: tuple[NetworkPolicy, ...]
    cluster_policies: tuple[ClusterPolicy, ...]
    cloud: CloudFacts

    @property
    def nodes(self) -> tuple[Node, ...]:
        return self.objects.nodes

    @cached_property
    def pods(self) -> PodIndex:
        """A trace makes a world of the same view for each node that it comes to."""
        pods = PodIndex()
        pods.namespaces.update((one.name, one.labels) for one in self.namespaces)
        for one in map(parse_policy_pod, self.objects.pods):
            pods.change(one.key, one)
        return pods

    def world(self, kernels: Mapping[str, Kernel], absent: Mapping[str, str]) -> World:
        return World(
            nodes=self.nodes,
            kernels=kernels,
            pod_range=str(self.network.pod_cidr),
            node_range=str(self.network.node_cidr),
            absent=absent,
            pods=self.pods,
            policies=self.policies,
            cluster_policies=self.cluster_policies,
            enforces=self.network.policy,
            services=self.objects.services,
            cloud=self.cloud,
        )


def read_view(record: Record, api: KubeApi, *, cloud: Cloud) -> View:
    with ThreadPoolExecutor(_CALLS, thread_name_prefix="network") as pool:
        in_cloud = pool.submit(cloud_facts, record, cloud)
        listed = [pool.submit(api.list, one) for one in (NODES, PODS, SERVICES, NAMESPACES, NETWORK_POLICIES)]
        listed_tiers = pool.submit(cluster_policies, api)
        nodes, pods, services, namespaces, policies = (one.result() for one in listed)
        return View(
            network=record.cluster.spec.network,
            objects=Objects(
                tuple(map(parse_node, nodes)), tuple(pods), tuple(map(service_facts, map(parse_service, services)))
            ),
            namespaces=tuple(map(parse_policy_namespace, namespaces)),
            policies=tuple(map(parse_policy, policies)),
            cluster_policies=listed_tiers.result(),
            cloud=in_cloud.result(),
        )


def cluster_policies(api: KubeApi) -> tuple[ClusterPolicy, ...]:
    """None of them where the cluster has no such kind of objects."""
    try:
        return tuple(map(parse_cluster_policy, api.list(CLUSTER_NETWORK_POLICIES)))
    except NotFound:
        return ()


def cloud_facts(record: Record, cloud: Cloud) -> CloudFacts:
    """The cluster's ports, their rules and its router."""
    tag = cluster_tag(record.uid)
    try:
        capabilities = cloud.capabilities()
        with ThreadPoolExecutor(4, thread_name_prefix="cloud") as pool:
            listed_ports = pool.submit(cloud.networks.ports, tag=tag)
            given = record.cluster.spec.network.existing
            of_user = given.network or given.router
            named = pool.submit(cloud.routers.router, given.router) if given.router else None
            tagged = Capability.ROUTERS in capabilities and not of_user
            listed_routers = pool.submit(cloud.routers.routers, tag=tag) if tagged else None
            sources = pool.submit(cloud.networks.sources_allowed, given.network)
            ports = {port.name: port for port in listed_ports.result() if port.name in record.allocations}
            groups = sorted({group for port in ports.values() for group in port.security_group_ids})
            rules = cloud.firewall.security_group_rules(groups) if groups else []
            routers = [named.result()] if named else listed_routers.result() if listed_routers else []
            allowed = sources.result()
    except MoyaiError as error:
        return CloudFacts(unknown=str(error))
    router = routers[0] if routers else None
    return CloudFacts(ports, rules=tuple(rules), router=router, capabilities=capabilities, sources_allowed=allowed)


def read_kernels(
    probes: ProbePods, nodes: Collection[str], *, pods: Collection[str] = ()
) -> tuple[dict[str, Kernel], dict[str, str]]:
    """Of these nodes, with the namespaces of pods with these addresses. Returns (node → kernel, node → why there is none)."""
    addresses = probes.start("host", nodes)
    words = [",".join(sorted(pods))]
    calls = {
        node: (lambda node=node: parse_kernel(probes.run("host", node, program="network_facts.py", words=words)))
        for node in addresses
    }
    found = probes.each(calls)
    kernels = {node: one for node, one in found.items() if isinstance(one, Kernel)}
    absent = {node: str(one) for node, one in found.items() if isinstance(one, MoyaiError)}
    return kernels, absent | {node: why for node, why in probes.missing.items() if node in nodes}
