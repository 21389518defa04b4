"""Egress addresses: who has which pods, what cannot be used, and what a node's kernel is told."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import pytest

from moyai.agent import manifests
from moyai.bootstrap import addons
from moyai.core.errors import UsageError
from moyai.kube.objects import Node, parse_node
from moyai.kube.objects.egress import EgressAddress, parse_egress_address, parse_egress_pod, parse_service_pods
from moyai.plan.egress import EgressWorld, egress_rules, plan_egress, read_egress_conf, write_egress_conf
from moyai.plan.load_balancer.eligibility import EXCLUDE_LABEL
from moyai.spec.load import parse
from tests.netns.pod_world import node_object

_ORDER = count()


def egress(address: str, *, namespace: str = "shop", service: str = "", name: str = "") -> EgressAddress:
    made = f"2026-01-01T00:00:{next(_ORDER):02}Z"
    meta = {"namespace": namespace, "name": name or address, "uid": "u", "creationTimestamp": made}
    return parse_egress_address({"metadata": meta, "spec": {"address": address, "service": service}})


def node(name: str, number: int, *, ready: bool = True) -> Node:
    found = node_object(name, f"10.8.0.{10 + number}", pod_cidr=f"10.244.{number}.0/24")
    status = {**found["status"], "conditions": [{"type": "Ready", "status": str(ready)}]}
    return parse_node({**found, "status": status})


NODES = (node("n0", 0), node("n1", 1), node("n2", 2))
WORLD = EgressWorld(
    "n1",
    (),
    NODES,
    {"shop": frozenset({"10.244.1.2", "10.244.2.2"}), "bank": frozenset({"10.244.1.9"})},
    {"shop/front": frozenset({"10.244.1.2"})},
    {},
    frozenset(),
    ("10.8.0.96/28",),
    ("10.8.0.0/24", "10.244.0.0/16", "10.96.0.0/16"),
)


def test_pods_of_another_nodes_address_go_through_its_tunnel_and_own_ones_are_translated() -> None:
    shop = egress("10.8.0.97")
    away = plan_egress(replace(WORLD, addresses=(shop,), holders={"10.8.0.97": "n2"}))
    (flow,) = away.flows
    assert (flow.mine, flow.through, flow.number) == (False, "10.244.2.0", 1)
    assert away.compete == {"10.8.0.97"}
    text = egress_rules(away.flows, WORLD.inside)
    assert "ip saddr @pods1 ip daddr != { 10.8.0.0/24, 10.244.0.0/16, 10.96.0.0/16 } meta mark set" in text
    assert "snat to ip saddr" in text
    mine = plan_egress(replace(WORLD, addresses=(shop,), holders={"10.8.0.97": "n1"}, owned=frozenset({"10.8.0.97"})))
    text = egress_rules(mine.flows, WORLD.inside)
    assert "snat to 10.8.0.97" in text
    assert "meta mark set" not in text


def test_while_nobody_has_the_address_its_pods_reach_nothing_outside() -> None:
    for holders in ({}, {"10.8.0.97": "gone"}, {"10.8.0.97": "n1"}):
        found = plan_egress(replace(WORLD, addresses=(egress("10.8.0.97"),), holders=holders))
        assert found.flows[0].through == ""
        assert "counter drop" in egress_rules(found.flows, WORLD.inside)
    assert egress_rules((), WORLD.inside) == "table ip moyai-egress\ndelete table ip moyai-egress\n"


def test_a_pod_has_one_address_and_that_of_its_service_first() -> None:
    both = (egress("10.8.0.97"), egress("10.8.0.98", service="front"))
    found = {one.address: one.pods for one in plan_egress(replace(WORLD, addresses=both)).flows}
    assert found == {"10.8.0.97": {"10.244.2.2"}, "10.8.0.98": {"10.244.1.2"}}


def test_what_cannot_be_used_is_said_and_the_older_of_two_counts() -> None:
    first, second = egress("10.8.0.97", name="a"), egress("10.8.0.97", name="b")
    far, nodes, wrong = egress("192.0.2.1"), egress("10.8.0.96", namespace="bank"), egress("nonsense")
    world = replace(WORLD, addresses=(wrong, far, nodes, second, first), nodes=(*NODES, node("odd", 86)))
    found = plan_egress(world)
    assert [one.address for one in found.flows] == ["10.8.0.97"]
    assert found.problems == {
        wrong: "spec.address: 'nonsense' is no address of IPv4",
        far: "spec.address: 192.0.2.1 is in none of services.announce.ranges (10.8.0.96/28)",
        nodes: "spec.address: 10.8.0.96 is a node's",
        second: "spec.address: 10.8.0.97 is that of shop/a, which is older",
    }


def test_a_node_that_is_not_ready_or_is_drained_or_is_a_control_plane_does_not_compete() -> None:
    shop = (egress("10.8.0.97"),)
    plane = replace(NODES[1], labels={EXCLUDE_LABEL: ""})
    for one in (node("n1", 1, ready=False), replace(NODES[1], cordoned=True), plane):
        assert plan_egress(replace(WORLD, addresses=shop, nodes=(NODES[0], one))).compete == frozenset()
    assert plan_egress(replace(WORLD, addresses=shop, nodes=())).compete == frozenset()


def test_numbers_stay_as_long_as_their_addresses() -> None:
    a, b = egress("10.8.0.97"), egress("10.8.0.98", namespace="bank")
    before = {"10.8.0.98": 1}
    found = plan_egress(replace(WORLD, addresses=(a, b), numbers=before))
    assert {one.address: one.number for one in found.flows} == {"10.8.0.98": 1, "10.8.0.97": 2}


def test_pods_with_their_nodes_network_have_no_address_of_their_own() -> None:
    meta = {"namespace": "shop"}
    assert parse_egress_pod({"metadata": meta, "status": {"podIP": "10.244.1.2"}}).address == "10.244.1.2"
    own = {"metadata": meta, "spec": {"hostNetwork": True}, "status": {"podIP": "10.8.0.11"}}
    assert parse_egress_pod(own).address == ""
    assert parse_egress_pod({"metadata": meta, "status": {"podIP": "10.244.1.2", "phase": "Succeeded"}}).address == ""
    slice_ = {
        "metadata": {"namespace": "shop", "labels": {"kubernetes.io/service-name": "front"}},
        "endpoints": [
            {"addresses": ["10.244.1.2"], "targetRef": {"kind": "Pod"}},
            {"addresses": ["192.0.2.7"]},
        ],
    }
    assert parse_service_pods(slice_).addresses == {"10.244.1.2"}


@pytest.mark.parametrize(
    ("mode", "ranges", "runs"),
    [("vxlan", "[10.8.0.96/28]", True), ("host-gw", "[10.8.0.96/28]", False), ("vxlan", "[]", False)],
)
def test_agents_have_it_where_there_is_a_tunnel_and_a_range(mode: str, ranges: str, runs: bool) -> None:
    spec = parse(f"spec: {{network: {{mode: {mode}}}, services: {{announce: {{ranges: {ranges}}}}}}}").spec
    assert ("egress" in addons._agent_controllers(spec)) == runs  # pyright: ignore[reportPrivateUsage]
    if runs:
        conf = read_egress_conf(addons._egress(spec))  # pyright: ignore[reportPrivateUsage]
        assert (conf.ranges, conf.tunnel) == (("10.8.0.96/28",), "flannel.1")
        # no range within another: nftables takes none twice
        assert conf.inside == ("10.8.0.0/24", "10.96.0.0/16", "10.244.0.0/16")
        assert read_egress_conf(write_egress_conf(conf)) == conf
        text = manifests.render(
            manifests.AgentManifestOptions(
                image="i", api_server="10.8.0.10:6443", net_conf="{}", egress=write_egress_conf(conf), controllers=("egress",)
            )
        )
        assert "egressaddresses.moyai.dev" in text
        assert "MOYAI_EGRESS" in text


def test_a_text_that_moyai_has_not_written_is_refused() -> None:
    with pytest.raises(UsageError, match="MOYAI_EGRESS: should be what moyai writes"):
        read_egress_conf("[]")
