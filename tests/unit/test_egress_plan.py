"""Egress addresses: who has which pods, what cannot be used, and what a node's kernel is told."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from moyai.agent import manifests
from moyai.agent.app import agent
from moyai.agent.settings import AgentOptions
from moyai.bootstrap import addons
from moyai.core.errors import UsageError
from moyai.kube.objects import Node, parse_endpoints, parse_node
from moyai.kube.objects.egress import EgressAddress, parse_egress_address
from moyai.plan.bgp.bgp_conf import write_bgp_conf
from moyai.plan.egress import EgressWorld, TunnelPeer, plan_egress, read_egress_conf, tunnel_mac, write_egress_conf
from moyai.plan.egress_rules import egress_rules, fence_rules
from moyai.plan.load_balancer.eligibility import EXCLUDE_LABEL
from moyai.plan.node_network import write_net_conf
from moyai.plan.pod_network import pod_network_of
from moyai.plan.pod_network.bgp import bgp_conf_of
from moyai.runtime.metrics import Metrics
from moyai.spec.load import parse
from tests.fakes.kubernetes import Kubernetes
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
    # only answers go into the tunnel
    assert [line.split(" meta")[0] for line in text.splitlines() if "| 0xff000000" in line] == [
        "  ct direction reply ip daddr @pods1"
    ]


def test_while_nobody_has_the_address_its_pods_reach_nothing_outside() -> None:
    for holders in ({}, {"10.8.0.97": "gone"}, {"10.8.0.97": "n1"}):
        found = plan_egress(replace(WORLD, addresses=(egress("10.8.0.97"),), holders=holders))
        assert found.flows[0].through == ""
        assert "counter drop" in egress_rules(found.flows, WORLD.inside)
    assert egress_rules((), WORLD.inside) == "table ip moyai-egress\ndelete table ip moyai-egress\n"
    assert fence_rules(()) == "table ip moyai-egress-fence\ndelete table ip moyai-egress-fence\n"


def test_ends_of_the_tunnel_follow_from_the_nodes_and_there_is_none_without_an_egress_address() -> None:
    found = plan_egress(replace(WORLD, addresses=(egress("10.8.0.97"),)))
    ends = {n: TunnelPeer(f"10.8.0.1{n}", f"10.244.{n}.0/24", f"10.244.{n}.0", tunnel_mac(f"10.8.0.1{n}")) for n in (0, 2)}
    assert found.peers == (ends[0], ends[2])
    assert ends[0].mac == "0a:59:0a:08:00:0a"
    assert plan_egress(WORLD).peers == ()


def test_three_nodes_compete_for_an_address_and_the_owner_as_long_as_it_may() -> None:
    nodes = tuple(node(f"n{number}", number) for number in range(9))
    shop = (egress("10.8.0.97"),)
    plans = {one.name: plan_egress(replace(WORLD, node=one.name, nodes=nodes, addresses=shop)) for one in nodes}
    competing = {name for name, plan in plans.items() if plan.compete}
    assert len(competing) == 3
    other = next(one.name for one in nodes if one.name not in competing)
    owner = replace(WORLD, node=other, nodes=nodes, addresses=shop, owned=frozenset({"10.8.0.97"}))
    assert plan_egress(owner).compete == {"10.8.0.97"}


def test_a_node_of_another_network_does_not_compete() -> None:
    there = node_object("n1", "10.9.0.11", pod_cidr="10.244.1.0/24")
    there["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
    far = parse_node(there)
    world = replace(WORLD, addresses=(egress("10.8.0.97"),), nodes=(NODES[0], far), home="10.8.0.0/24")
    assert plan_egress(world).compete == frozenset()
    assert plan_egress(replace(world, home="10.9.0.0/16")).compete == {"10.8.0.97"}


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


def test_endpoints_of_a_service_name_its_pods() -> None:
    found = parse_endpoints(
        {
            "metadata": {"namespace": "shop", "labels": {"kubernetes.io/service-name": "front"}},
            "endpoints": [
                {"addresses": ["10.244.1.2"], "targetRef": {"kind": "Pod"}, "conditions": {"ready": False}},
                {"addresses": ["192.0.2.7"]},
            ],
        }
    )
    assert found.pods == {"10.244.1.2"}


def test_all_controllers_of_an_agent_run_in_one_process(tmp_path: Path) -> None:
    """Two caches of one kind are refused."""
    spec = parse("spec: {network: {mode: vxlan}, services: {announce: {ranges: [10.8.0.96/28]}}}").spec
    conf = pod_network_of(spec).conf
    bgp = bgp_conf_of(spec)
    assert conf is not None
    assert bgp is not None
    (tmp_path / "net.json").write_text(write_net_conf(conf))
    (tmp_path / "bgp.json").write_text(write_bgp_conf(bgp))
    options = AgentOptions(
        "n1",
        addons._agent_controllers(spec),  # pyright: ignore[reportPrivateUsage]
        net_conf=tmp_path / "net.json",
        bgp_conf=tmp_path / "bgp.json",
        egress=addons._egress(spec),  # pyright: ignore[reportPrivateUsage]
        bind="127.0.0.1:0",
    )
    made = agent(options, kube=Kubernetes(), metrics=Metrics())
    assert {"pod-network", "policy", "announce", "bgp", "egress"} <= set(made.controllers)


@pytest.mark.parametrize(
    ("mode", "ranges", "runs"),
    [
        *((mode, "[10.8.0.96/28]", True) for mode in ("vxlan", "host-gw", "routes", "bgp")),
        ("none", "[10.8.0.96/28]", False),
        ("vxlan", "[]", False),
    ],
)
def test_agents_have_it_in_each_mode_of_ours_where_there_is_a_range(mode: str, ranges: str, runs: bool) -> None:
    spec = parse(f"spec: {{network: {{mode: {mode}}}, services: {{announce: {{ranges: {ranges}}}}}}}").spec
    assert ("egress" in addons._agent_controllers(spec)) == runs  # pyright: ignore[reportPrivateUsage]
    if runs:
        conf = read_egress_conf(addons._egress(spec))  # pyright: ignore[reportPrivateUsage]
        assert (conf.ranges, conf.port, conf.home) == (("10.8.0.96/28",), 8472, "10.8.0.0/24")
        # no range within another: nftables takes none twice
        assert conf.inside == ("10.8.0.0/24", "10.96.0.0/16", "10.244.0.0/16")
        assert read_egress_conf(write_egress_conf(conf)) == conf
        # of an older moyai
        older = '{"ranges": ["10.8.0.96/28"], "inside": [], "tunnel": "flannel.1"}'
        assert (read_egress_conf(older).port, read_egress_conf(older).home) == (8472, "")
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
