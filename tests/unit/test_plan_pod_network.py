"""The modes of the pod network in a cluster's plan: what each asks of the cloud and gives to nodes, `auto`, refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from moyai.agent.manifests import AgentManifestOptions, render
from moyai.bootstrap.addons import addons
from moyai.cloud.capabilities import Capability
from moyai.cloud.model import Port, SourceAddress
from moyai.cloud.openstack import ADAPTER
from moyai.core.errors import UsageError
from moyai.core.paths import Paths
from moyai.lifecycle.up import preview
from moyai.plan import steps as s
from moyai.plan.changes import classify
from moyai.plan.cluster import plan_up
from moyai.plan.existing import Existing
from moyai.plan.graph import Plan
from moyai.plan.node_network import NetworkConf, write_net_conf
from moyai.plan.observed import KubeFacts, KubeNode, Observed
from moyai.plan.pod_network import pod_network_of
from moyai.plan.pod_network.choice import choose_mode
from moyai.spec.load import carried_on, dump, parse
from tests.unit.lifecycle_world import node_cloud
from tests.unit.test_plan_cluster import EMPTY, NEW

NAMES = ADAPTER.volume_names
MODES = ("routes", "host-gw", "bgp", "vxlan", "none")


def planned(mode: str, observed: Observed = EMPTY) -> Plan:
    cluster = parse(f"spec: {{network: {{mode: {mode}}}}}")
    return plan_up(cluster, observed, recorded=NEW, addons=addons(NAMES, spec=cluster.spec))


@pytest.mark.parametrize(
    ("mode", "sources", "routes"),
    [
        ("routes", {"10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24"}, 3),
        ("host-gw", {"10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24"}, 0),
        ("bgp", {"10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24"}, 0),
        ("vxlan", set[str](), 0),
        ("none", {"10.244.0.0/16"}, 0),
    ],
)
def test_each_mode_asks_of_the_cloud_what_it_needs_and_no_more(mode: str, sources: set[str], routes: int) -> None:
    plan = planned(mode)
    ports = [step for step in plan.steps if isinstance(step, s.CreatePort)]
    assert {one.address for port in ports for one in port.send_from} == sources
    assert sum(len(step.routes) for step in plan.steps if isinstance(step, s.AddRoutes)) == routes
    rules = [rule.rule for step in plan.steps if isinstance(step, s.SetRules) for rule in step.add]
    # where no packet comes with a pod's address, none may
    assert any(rule.remote_cidr == "10.244.0.0/16" for rule in rules) == (mode != "vxlan")


def test_vxlan_machines_may_send_udp_to_each_other() -> None:
    groups = [rule for step in planned("vxlan").steps if isinstance(step, s.SetRules) for rule in step.add]
    reached = {(rule.role, rule.remote_role) for rule in groups if rule.rule.protocol in (None, "udp") and rule.remote_role}
    roles = ("control-plane", "worker")
    assert reached == {(one, other) for one in roles for other in roles}


@pytest.mark.parametrize(("mode", "mtu"), [("routes", 1450), ("host-gw", 1450), ("vxlan", 1400)])
def test_pods_have_the_mtu_of_the_smallest_way(mode: str, mtu: int) -> None:
    plan = planned(mode)
    pods = pod_network_of(parse(f"spec: {{network: {{mode: {mode}}}}}").spec)
    files = pods.files(plan.nodes[0], mtu=1450)
    assert json.loads(files["etc/cni/net.d/10-moyai.conflist"])["plugins"][0]["mtu"] == mtu


def test_where_the_cloud_drops_pods_addresses_they_reach_other_machines_with_their_nodes() -> None:
    node = planned("vxlan").nodes[0]

    def excepted(text: str) -> str:
        rules = pod_network_of(parse(text).spec).files(node, mtu=1450)["etc/moyai/masquerade.nft"]
        return rules.partition("ip daddr != ")[2].partition(" counter")[0]

    assert excepted("spec: {network: {mode: vxlan}}") == "{ 10.244.0.0/16, 10.96.0.0/16 }"
    everything = "{ 10.244.0.0/16, 10.8.0.0/24, 10.96.0.0/16 }"
    assert excepted("spec: {network: {mode: vxlan, vxlan: {directRouting: true}}}") == everything
    assert excepted("spec: {network: {mode: host-gw}}") == everything == excepted("")


def test_mode_none_gives_nodes_no_pod_network_and_keeps_the_metadata_service_closed() -> None:
    plan = planned("none")
    files = pod_network_of(parse("spec: {network: {mode: none}}").spec).files(plan.nodes[0], mtu=1450)
    assert list(files) == ["etc/moyai/masquerade.nft"]
    (rules,) = files.values()
    assert "masquerade\n" not in rules
    assert "ip daddr 169.254.0.0/16 counter reject" in rules


def test_mode_none_waits_for_nothing_that_only_a_pod_network_brings() -> None:
    waits = [step for step in planned("none").steps if isinstance(step, s.WaitNodes | s.WaitAddon)]
    assert [step.text for step in waits if isinstance(step, s.WaitNodes)] == ["wait until 3 nodes are registered"]
    waited = [(step.deployments, step.daemon_sets) for step in waits if isinstance(step, s.WaitAddon)]
    assert waited == [(("moyai-cloud-controller-manager",), ("kube-proxy",))]


def test_mode_none_neither_waits_for_nor_restarts_nodes_that_are_not_ready() -> None:
    nodes = tuple(KubeNode(node.name, ready=False) for node in planned("none").nodes)
    plan = planned("none", replace(EMPTY, kube=KubeFacts(nodes=nodes)))
    assert not [step for step in plan.steps if isinstance(step, s.RestartServer)]


@pytest.mark.parametrize("mode", MODES)
def test_up_waits_for_the_agents_in_each_mode_that_has_them(mode: str) -> None:
    waited = {name for step in planned(mode).steps if isinstance(step, s.WaitAddon) for name in step.daemon_sets}
    assert ("moyai-agent" in waited) == (mode != "none")


@pytest.mark.parametrize(("allowed", "mode"), [(True, "host-gw"), (False, "vxlan")])
def test_auto_is_the_cheapest_that_the_cloud_permits_and_says_why(allowed: bool, mode: str, tmp_path: Path) -> None:
    cluster = parse("spec: {network: {mode: auto}}")
    cloud = node_cloud()
    cloud.store.sources_allowed = allowed
    plan = preview(cluster, cloud, paths=Paths(tmp_path / "cache", tmp_path / "state"))
    (note,) = [one for one in plan.notes if one.startswith("spec.network.mode")]
    assert note.startswith(f"spec.network.mode: auto is {mode} here: ")
    assert any(isinstance(step, s.WaitAddon) and step.addon == "pod network" for step in plan.steps)
    # decided once: what the cluster has counts from then on, whatever the cloud permits later
    chosen = choose_mode(cluster, replace(EMPTY, sources_allowed=allowed)).cluster
    assert carried_on(cluster, dump(chosen)).spec.network.mode == mode


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("mode: routes", "spec.network.mode: 'routes', should be 'vxlan'"),
        ("mode: host-gw", "spec.network.mode: 'host-gw', should be 'vxlan'"),
        ("mode: none", "spec.network.mode: 'none', should be 'vxlan'"),
        ("mode: vxlan, vxlan: {directRouting: true}", "spec.network.vxlan.directRouting: true, should be false"),
        ("mode: auto, vxlan: {directRouting: true}", "spec.network.vxlan.directRouting: true, should be false"),
    ],
)
def test_what_the_cloud_cannot_carry_is_refused_with_what_would_do(network: str, message: str, tmp_path: Path) -> None:
    cloud = node_cloud()
    cloud.store.sources_allowed = False
    with pytest.raises(UsageError, match=f"{message}: cloud moyai does not let ports send"):
        preview(parse(f"spec: {{network: {{{network}}}}}"), cloud, paths=Paths(tmp_path / "cache", tmp_path / "state"))
    assert not any("create" in call for call in cloud.calls)


@pytest.mark.parametrize(("mode", "allowed"), [*((mode, True) for mode in (*MODES, "auto")), ("vxlan", False), ("auto", False)])
def test_the_ports_of_every_mode_that_is_not_refused_are_ports_that_the_cloud_makes(
    mode: str, allowed: bool, tmp_path: Path
) -> None:
    cloud = node_cloud()
    cloud.store.sources_allowed = allowed
    cluster = parse(f"spec: {{network: {{mode: {mode}}}}}")
    plan = preview(cluster, cloud, paths=Paths(tmp_path / "cache", tmp_path / "state"))
    network = cloud.networks.create_network(name="net", tags=[])
    subnet = cloud.networks.create_subnet(name="subnet", network_id=network.id, cidr="10.8.0.0/24", tags=[])
    for step in plan.steps:
        if isinstance(step, s.CreatePort):
            cloud.networks.create_port(
                name=step.key.name, network_id=network.id, subnet_id=subnet.id, send_from=step.send_from, tags=[]
            )


def test_where_the_router_takes_no_routes_the_mode_that_would_do_depends_on_the_ports(tmp_path: Path) -> None:
    for allowed, would_do in ((True, "host-gw"), (False, "vxlan")):
        cloud = node_cloud(capabilities=frozenset(Capability) - {Capability.POD_ROUTING})
        cloud.store.sources_allowed = allowed
        with pytest.raises(UsageError, match=f"'routes', should be '{would_do}': cloud moyai has no pod routes in the router"):
            preview(parse(""), cloud, paths=Paths(tmp_path / "cache", tmp_path / "state"))


@pytest.mark.parametrize(("mode", "back"), [("routes", True), ("host-gw", True), ("vxlan", False), ("none", False)])
def test_a_lost_source_address_is_put_back_in_the_modes_that_need_it(mode: str, back: bool) -> None:
    node = planned(mode).nodes[0]
    existing = Existing(ports={node.name: Port("p", node.name, "net", "ACTIVE")})
    pods = pod_network_of(parse(f"spec: {{network: {{mode: {mode}}}}}").spec)
    steps = [one for one in pods.steps([node], existing=existing, leaving=()) if isinstance(one, s.SetSendFrom)]
    assert [(one.port_id, one.send_from) for one in steps] == ([("p", (SourceAddress("10.244.0.0/24"),))] if back else [])


def test_a_cluster_of_a_moyai_without_these_modes_goes_on_as_it_is() -> None:
    before = dump(parse(""))
    del before["spec"]["network"]["vxlan"]
    assert classify(before, dump(carried_on(parse(""), before))) == ()
    # what is built into nodes stays
    (change,) = classify(before, dump(parse("spec: {network: {mode: vxlan}}")))
    assert (change.path, change.kind) == ("spec.network.mode", "fixed")
    # a spec that leaves the choice to moyai asks for what the cluster has
    assert carried_on(parse("spec: {network: {mode: auto}}"), before).spec.network.mode == "routes"


def test_the_agents_objects_are_its_rights_its_configuration_and_a_pod_on_every_node() -> None:
    conf = write_net_conf(NetworkConf("10.244.0.0/16", "vxlan"))
    text = render(AgentManifestOptions("moyai:1", "10.8.0.10:6443", net_conf=conf))
    objects = {one["kind"]: one for one in yaml.safe_load_all(text)}
    assert set(objects) == {
        "ServiceAccount",
        "ClusterRole",
        "ClusterRoleBinding",
        "ConfigMap",
        "DaemonSet",
        "CustomResourceDefinition",
    }
    assert json.loads(objects["ConfigMap"]["data"]["net-conf.json"])["Backend"]["Type"] == "vxlan"
    pod = objects["DaemonSet"]["spec"]["template"]["spec"]
    assert pod["tolerations"] == [{"operator": "Exists"}]
    assert pod["hostNetwork"] is True
    (container,) = pod["containers"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]}
    verbs = {resource: rule["verbs"] for rule in objects["ClusterRole"]["rules"] for resource in rule["resources"]}
    read = ["get", "list", "watch"]
    assert verbs == {
        **dict.fromkeys(("nodes", "namespaces", "pods", "networkpolicies", "clusternetworkpolicies"), read),
        "nodes/status": ["patch"],
        "events": ["create", "patch"],
    }
