"""Announced Services in a cluster's spec and plan, and in what its nodes start with."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import yaml

from moyai.agent.manifests import AgentManifestOptions
from moyai.agent.manifests import render as render_agent
from moyai.bootstrap.addons import addons_of
from moyai.ccm.announce_manifests import definitions
from moyai.ccm.manifests import ManifestOptions, render
from moyai.ccm.settings import AnnounceConfig
from moyai.cloud.capabilities import Capability
from moyai.cloud.model import Port, SourceAddress
from moyai.cloud.openstack import ADAPTER
from moyai.core.errors import UsageError
from moyai.plan import steps as s
from moyai.plan import text
from moyai.plan.changes import classify, refuse_fixed
from moyai.plan.cluster import plan_up
from moyai.plan.existing import Existing
from moyai.plan.graph import Plan
from moyai.plan.observed import Observed
from moyai.plan.pod_network import pod_network_of
from moyai.spec.load import dump, parse
from moyai.spec.model import Cluster
from tests.unit.ccm_world import CONFIG
from tests.unit.test_plan_cluster import EMPTY, NEW

MODES = ("routes", "host-gw", "bgp", "vxlan", "none")


def spec(mode: str = "vxlan", *, ranges: str = "[10.8.0.96/28]", more: str = "") -> Cluster:
    return parse(f"spec: {{network: {{mode: {mode}}}, services: {{announce: {{ranges: {ranges}}}}}{more}}}")


def planned(cluster: Cluster, observed: Observed = EMPTY) -> Plan:
    capabilities = observed.capabilities
    made = addons_of(ADAPTER.volume_names, spec=cluster.spec, ready=False, intended=(), capabilities=capabilities)
    return plan_up(cluster, observed, recorded=NEW, addons=made)


# --- the spec ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        (
            "[10.244.9.0/28]",
            r"ranges\[0\]: '10\.244\.9\.0/28', should be within 10\.8\.0\.10 to 10\.8\.0\.127, the addresses of",
        ),
        # the upper half is the cloud's, the first addresses are the gateway's and the API's
        ("[10.8.0.128/28]", r"should be within 10\.8\.0\.10 to"),
        ("[10.8.0.0/28]", r"should be within 10\.8\.0\.10 to"),
        ("[10.8.0.4/32]", r"should be within 10\.8\.0\.10 to"),
        ("[10.8.0.96/26]", r"should be 10\.8\.0\.64/26 \(the first address of the range\)"),
        ("[10.8.0.96/28, 10.8.0.100/32]", r"ranges\[1\]: '10\.8\.0\.100/32', should be apart from 10\.8\.0\.96/28"),
        # only BGP leads to what is apart from all ranges of the cluster
        ("[10.64.0.0/16]", r"ranges\[0\]: '10\.64\.0\.0/16', should be a range of /20 to /32"),
        ("[nonsense]", "should be an IPv4 range"),
        (f"[{', '.join(f'10.8.0.{n}/32' for n in range(20, 29))}]", "should be at most 8 ranges"),
    ],
)
def test_a_range_that_cannot_be_announced_is_refused_in_one_line(ranges: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        spec(ranges=ranges)


def test_a_class_is_a_name_and_belongs_to_ranges() -> None:
    with pytest.raises(UsageError, match="should be a loadBalancerClass such as"):
        parse("spec: {services: {announce: {ranges: [10.8.0.96/28], loadBalancerClass: 'a b'}}}")
    with pytest.raises(UsageError, match="should be left out where no ranges are given"):
        parse("spec: {services: {announce: {loadBalancerClass: example.org/lan}}}")


def test_nodes_do_not_get_addresses_that_are_announced() -> None:
    cluster = spec(ranges="[10.8.0.12/30, 10.8.0.17/32]", more=", nodePools: [{name: w, replicas: 6}]")
    addresses = [node.address.rpartition(".")[2] for node in planned(cluster).nodes]
    assert addresses == ["10", "11", "16", "18", "19", "20", "21"]


def test_as_many_nodes_as_addresses_are_left_are_taken_and_no_more() -> None:
    assert spec(ranges="[10.8.0.64/26]", more=", nodePools: [{name: w, replicas: 53}]").spec.max_nodes == 54
    with pytest.raises(
        UsageError, match=r"55 nodes in all do not fit.*without services\.announce\.ranges 10\.8\.0\.64/26, hold 54"
    ):
        spec(ranges="[10.8.0.64/26]", more=", nodePools: [{name: w, replicas: 54}]")


def test_the_ranges_of_a_cluster_stay_and_an_older_cluster_gets_none() -> None:
    without, with_it = dump(spec(ranges="[]")), dump(spec())
    older = {**without, "spec": {key: value for key, value in without["spec"].items() if key != "services"}}
    for before in (without, older):
        with pytest.raises(UsageError, match=r"spec\.services\.announce: .* should stay .* while .*the machines' ports"):
            refuse_fixed(classify(before, with_it))
        assert classify(before, without) == ()


# --- the cloud --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_each_port_may_send_from_announced_addresses(mode: str) -> None:
    with_it, without = planned(spec(mode)), planned(spec(mode, ranges="[]"))
    extra = SourceAddress("10.8.0.96/28")
    ports = {step.node.name: step.send_from for step in with_it.steps if isinstance(step, s.CreatePort)}
    assert ports == {step.node.name: (*step.send_from, extra) for step in without.steps if isinstance(step, s.CreatePort)}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("replicas", [1, 3])
def test_a_port_that_has_what_it_was_made_with_is_left_alone_and_one_that_has_not_is_mended(mode: str, replicas: int) -> None:
    cluster = spec(mode, more=f", controlPlane: {{replicas: {replicas}}}")
    plan = planned(cluster)
    pods = pod_network_of(cluster.spec)
    made = {step.node.name: step.send_from for step in plan.steps if isinstance(step, s.CreatePort)}
    ports = {name: Port(name, name, "net", "ACTIVE", send_from=pairs) for name, pairs in made.items()}

    def mended(ports: dict[str, Port]) -> dict[str, tuple[SourceAddress, ...]]:
        steps = pods.steps(plan.nodes, existing=Existing(ports=ports), leaving=())
        return {step.port_id: step.send_from for step in steps if isinstance(step, s.SetSendFrom)}

    assert mended(ports) == {}
    worker, plane = plan.nodes[-1].name, plan.nodes[0].name
    harmed = {
        **ports,
        worker: replace(ports[worker], send_from=tuple(one for one in made[worker] if one.address != "10.8.0.96/28")),
        plane: replace(ports[plane], send_from=()),
    }
    repaired = mended(harmed)
    assert set(repaired) == {worker, plane}
    assert set(made[worker]) <= set(repaired[worker])
    assert SourceAddress("10.8.0.96/28") in repaired[plane]
    if replicas == 3:
        assert SourceAddress("10.8.0.4") in repaired[plane]


@pytest.mark.parametrize("mode", ["vxlan", "none"])
def test_where_pods_ask_nothing_of_ports_what_users_added_stays(mode: str) -> None:
    cluster = spec(mode)
    plan, pods = planned(cluster), pod_network_of(cluster.spec)
    node = plan.nodes[-1]
    theirs = SourceAddress("198.51.100.0/24")
    port = Port(node.name, node.name, "net", "ACTIVE", send_from=(theirs,))
    (step,) = pods.steps([node], existing=Existing(ports={node.name: port}), leaving=())
    assert isinstance(step, s.SetSendFrom)
    assert step.send_from == (SourceAddress("10.8.0.96/28"), theirs)
    there = replace(port, send_from=step.send_from)
    assert list(pods.steps([node], existing=Existing(ports={node.name: there}), leaving=())) == []


def test_a_cloud_whose_ports_send_from_their_own_address_alone_is_refused() -> None:
    with pytest.raises(
        UsageError, match=r"spec\.services\.announce\.ranges: [0-9./]+, should be left out: cloud moyai does not let ports"
    ):
        planned(spec(), replace(EMPTY, sources_allowed=False))


def test_without_load_balancers_of_the_cloud_the_plan_says_who_announces() -> None:
    without = replace(EMPTY, capabilities=EMPTY.capabilities - {Capability.LOAD_BALANCERS})
    assert any(one.endswith("the nodes announce Services of type LoadBalancer") for one in planned(spec(), without).notes)
    assert any(
        "Services of type LoadBalancer stay pending, unless nodes announce" in one
        for one in planned(spec(ranges="[]"), without).notes
    )


def test_a_plan_in_json_names_what_is_announced_only_where_something_is() -> None:
    assert text.data(planned(spec()))["nodes"][0]["announced"] == ("10.8.0.96/28",)
    assert "announced" not in text.data(planned(spec(ranges="[]")))["nodes"][0]


# --- what the cluster starts with -------------------------------------------------------------------------------------


def controllers(**announce: Any) -> list[dict[str, Any]]:
    config = replace(CONFIG, announce=AnnounceConfig(**announce))
    return list(yaml.safe_load_all(render(ManifestOptions("demo", config, image="moyai:1", pod_cidr="10.244.0.0/16"))))


def test_without_ranges_the_controllers_manifests_have_nothing_of_it() -> None:
    text = json.dumps(controllers())
    assert "metallb" not in text.lower()
    assert "Announce" not in text


def test_with_ranges_the_definitions_come_before_whatever_uses_them() -> None:
    objects = controllers(ranges=("192.0.2.0/28",))
    kinds = [one["kind"] for one in objects]
    assert kinds[:9] == ["Namespace", *["CustomResourceDefinition"] * 8]
    assert "CustomResourceDefinition" not in kinds[9:]
    (secret,) = [one for one in objects if one["kind"] == "Secret"]
    assert "[Announce]\nranges = 192.0.2.0/28" in secret["stringData"]["cloud.conf"]
    (role,) = [one for one in objects if one["kind"] == "ClusterRole"]
    assert {"ipaddresspools", "ipaddresspools/status", "servicel2statuses"} <= {
        of for rule in role["rules"] for of in rule["resources"]
    }


def test_the_definitions_are_structural_and_store_one_version_each() -> None:
    for one in definitions()[1:]:
        versions = one["spec"]["versions"]
        assert one["metadata"]["name"] == f"{one['spec']['names']['plural']}.metallb.io"
        assert sum(version["storage"] for version in versions) == 1
        for version in versions:
            _structural(version["schema"]["openAPIV3Schema"])


def _structural(schema: dict[str, Any]) -> None:
    """Each field has a type (apiextensions.k8s.io/v1 demands it)."""
    assert schema["type"] in ("object", "array", "string", "integer", "boolean")
    for field in schema.get("properties", {}).values():
        _structural(field)
    if schema["type"] == "array":
        _structural(schema["items"])


@pytest.mark.parametrize("mode", MODES)
def test_each_node_has_an_agent_that_announces(mode: str) -> None:
    waited = {name for step in planned(spec(mode)).steps if isinstance(step, s.WaitAddon) for name in step.daemon_sets}
    assert "moyai-agent" in waited


def agent(*names: str, conf: str | None = None) -> list[dict[str, Any]]:
    options = AgentManifestOptions(image="moyai:1", api_server="10.8.0.10:6443", net_conf=conf, controllers=names)
    return list(yaml.safe_load_all(render_agent(options)))


def test_an_agent_that_announces_alone_has_no_pod_network_and_rights_in_one_namespace_only() -> None:
    objects = agent("announce")
    assert "ConfigMap" not in {one["kind"] for one in objects}
    (role,) = [one for one in objects if one["kind"] == "Role"]
    assert role["metadata"]["namespace"] == "metallb-system"
    (cluster_role,) = [one for one in objects if one["kind"] == "ClusterRole"]
    # a right to all Leases would be one to all elections
    assert not [rule for rule in cluster_role["rules"] if "leases" in rule["resources"]]
    (daemons,) = [one for one in objects if one["kind"] == "DaemonSet"]
    (container,) = daemons["spec"]["template"]["spec"]["containers"]
    assert container["args"] == ["--controllers=announce", "--bind=127.0.0.1:9810", "--log-level=info"]
    assert [one["name"] for one in container["volumeMounts"]] == ["policy"]


def test_an_agent_that_does_not_announce_has_no_rights_for_it() -> None:
    assert "metallb" not in json.dumps(agent("pod-network", "policy", conf="{}"))
