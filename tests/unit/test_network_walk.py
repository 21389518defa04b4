"""The hops of a packet: whole clusters let it through in each mode, and each thing that is missing is named where it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from moyai.cloud.model import Router, SecurityGroupRule
from moyai.diagnose.network.cloud_wire import CloudFacts
from moyai.diagnose.network.kernel_facts import NeighbourFacts, RouteFacts
from moyai.diagnose.network.nft_rules import Packet
from moyai.diagnose.network.trace_model import PacketEnd, ServiceFacts, Trace, World
from moyai.diagnose.network.walk import follow
from moyai.kube.objects import parse_policy
from moyai.kube.objects.cluster_policy import parse_cluster_policy
from tests.unit import network_world as w

POD_1 = PacketEnd("pod", "default/p1", w.pod_address(1), "n1")
NODE_1 = PacketEnd("machine", "n1", w.address(1), "n1")


def to_pod(number: int, port: int = 8080) -> Packet:
    return Packet(POD_1.address, w.pod_address(number), "tcp", port)


def kinds(found: Trace) -> list[str]:
    return [hop.kind for hop in found.hops]


def text(found: Trace) -> str:
    return "\n".join(f"{hop.where}: {hop.text}" for hop in found.hops)


@pytest.mark.parametrize("mode", ["vxlan", "host-gw", "routes"])
@pytest.mark.parametrize("source", [POD_1, NODE_1], ids=["pod", "node"])
def test_a_whole_cluster_lets_packets_and_answers_through(mode: str, source: PacketEnd) -> None:
    packet = to_pod(2) if source is POD_1 else replace(to_pod(2), source="")
    found = follow(w.world(mode), source, packet=packet)
    assert found.arrives, f"{text(found)}\n{found.why}\n{found.back and text(found.back)}"
    assert found.hops[-1].text == f"cni0 → veth5 → eth0 of pod default/p2 (MTU {1400 if mode == 'vxlan' else 1450})"
    assert found.mtu == (1400 if mode == "vxlan" else 1450)


def test_each_hop_of_a_tunnel_is_said() -> None:
    found = follow(w.world("vxlan"), POD_1, packet=to_pod(2))
    assert text(found).splitlines() == [
        "n1: pod default/p1 (10.244.1.5): eth0 (MTU 1400) → veth5 of bridge cni0; default via 10.244.1.1",
        "n1: route 10.244.2.0/24 via 10.244.2.0 proto 77 dev flannel.1 (MTU 1400)",
        "n1: flannel.1 puts it into VXLAN: VNI 1, 10.8.0.11 → 10.8.0.12 UDP 8472, dev ens3 (MTU 1450)",
        "cloud: machines' network: n1 → n2 (security groups allow it)",
        "n2: flannel.1 (MTU 1400) takes it out of VXLAN, VNI 1",
        "n2: route 10.244.2.0/24 dev cni0 (MTU 1400)",
        "n2: cni0 → veth5 → eth0 of pod default/p2 (MTU 1400)",
    ]


def test_a_machine_sends_with_the_tunnels_address_and_a_router_is_a_hop() -> None:
    found = follow(w.world("routes"), POD_1, packet=to_pod(3))
    assert "cloud: router demo-router: 10.244.3.5 via 10.8.0.13" in text(found)


def without(entries: tuple[Any, ...], **fields: Any) -> tuple[Any, ...]:
    kept = tuple(one for one in entries if any(getattr(one, key) != value for key, value in fields.items()))
    assert len(kept) < len(entries)
    return kept


def kernel_without(found: World, number: int, *, part: str, **fields: Any) -> World:
    return w.changed(found, number, **{part: without(getattr(found.kernels[w.name(number)], part), **fields)})


def link_changed(found: World, number: int, *, index: int, **changes: Any) -> World:
    links = found.kernels[w.name(number)].links
    return w.changed(found, number, links={**links, index: replace(links[index], **changes)})


V, H, R = w.world("vxlan"), w.world("host-gw"), w.world("routes")
VXLAN_2 = V.kernels["n2"].links[w.TUNNEL].vxlan
assert VXLAN_2 is not None
LOOP = RouteFacts("10.244.2.0/24", "10.8.0.11", w.UPLINK)
BROKEN: dict[str, tuple[World, str]] = {
    "route": (
        kernel_without(V, 1, part="routes", destination="10.244.2.0/24"),
        "n1 has no route to 10.244.2.5 but unreachable 10.244.0.0/16 proto 77 metric 9999",
    ),
    "neighbour": (
        kernel_without(V, 1, part="neighbours", address="10.244.2.0"),
        "flannel.1 of n1 has no neighbour entry for 10.244.2.0",
    ),
    "forwarding entry": (
        kernel_without(V, 1, part="entries", address="10.8.0.12"),
        "flannel.1 of n1 has no forwarding entry for 02:00:00:00:00:02 (10.244.2.0)",
    ),
    "stale forwarding entry": (
        w.changed(V, 1, entries=(NeighbourFacts(w.TUNNEL, "10.8.0.99", w.mac(2)),)),
        "no node has the address 10.8.0.99 that flannel.1 of n1 sends to",
    ),
    "mac": (
        link_changed(V, 2, index=w.TUNNEL, mac=w.mac(9)),
        "the frame is for 02:00:00:00:00:02, flannel.1 of n2 has 02:00:00:00:00:09",
    ),
    "vni": (
        link_changed(V, 2, index=w.TUNNEL, vxlan=replace(VXLAN_2, vni=7)),
        "n2 has no VXLAN device with VNI 1 on UDP 8472, it has VNI 7",
    ),
    "tunnel down": (link_changed(V, 2, index=w.TUNNEL, up=False), "flannel.1 of n2 is down"),
    "own tunnel down": (link_changed(V, 1, index=w.TUNNEL, up=False), "flannel.1 of n1 is down"),
    "veth down": (link_changed(V, 1, index=w.VETH, up=False), "the link eth0 of pod default/p1 (10.244.1.5) is down"),
    "no such pod": (
        w.changed(V, 2, pods={}),
        "no pod on n2 has the address 10.244.2.5; Kubernetes has pod default/p2 with it on n2",
    ),
    "sender gone": (w.changed(V, 1, pods={}), "no pod on n1 has the address 10.244.1.5: is the pod running?"),
    "forwarding": (w.changed(H, 1, forwards=False), "n1 forwards nothing: net.ipv4.ip_forward is 0"),
    "firewall": (
        replace(V, cloud=replace(V.cloud, rules=(SecurityGroupRule(w.GROUP, "egress"),))),
        "the cloud drops it: no security group rule lets 10.8.0.12:8472/udp from 10.8.0.11 reach port n2",
    ),
    "source address": (
        replace(H, cloud=replace(H.cloud, ports={**H.cloud.ports, "n1": replace(H.cloud.ports["n1"], send_from=())})),
        "the cloud drops it: port n1 may send from 10.8.0.11 only, not from 10.244.1.5",
    ),
    "router's route": (
        replace(R, cloud=replace(R.cloud, router=Router("r", "demo-router"))),
        "router demo-router has no route to 10.244.2.5",
    ),
    "dead machine": (
        w.changed(H, 1, neighbours=(NeighbourFacts(w.UPLINK, "10.8.0.12", "", "failed"),)),
        "nobody answers n1's ARP requests for 10.8.0.12 (n2): does the machine run?",
    ),
    "circle": (
        w.changed(
            replace(H, cloud=CloudFacts(unknown="it does not answer")),
            2,
            routes=(*without(H.kernels["n2"].routes, destination="10.244.2.0/24"), LOOP),
        ),
        "routes lead in a circle: n1 → n2 → n1",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_missing_is_named_where_it_is(what: str) -> None:
    broken, why = BROKEN[what]
    found = follow(broken, POD_1, packet=to_pod(2))
    assert (found.outcome, found.why) == ("dropped", why)
    assert found.hops[-1].kind == "dropped"
    assert (found.hops[-1].where == "cloud") is (why.startswith(("the cloud", "router")))


def test_an_answer_without_a_way_back_is_said() -> None:
    found = follow(kernel_without(V, 2, part="entries", address="10.8.0.11"), POD_1, packet=to_pod(2))
    assert (found.outcome, found.arrives) == ("delivered", False)
    assert found.back is not None
    assert found.back.why == "flannel.1 of n2 has no forwarding entry for 02:00:00:00:00:01 (10.244.1.0)"


def test_a_node_whose_kernel_nobody_has_read_is_asked_for() -> None:
    found = follow(replace(V, kernels={"n1": V.kernels["n1"]}, absent={"n2": "it is not Ready"}), POD_1, packet=to_pod(2))
    assert (found.outcome, found.missing) == ("unknown", "n2")
    assert "it is not Ready" in found.why


def test_kube_proxys_choice_is_followed_and_named() -> None:
    found = follow(V, POD_1, packet=Packet(POD_1.address, "10.96.0.10", "tcp", 80))
    assert found.arrives
    assert (
        "Service default/web 10.96.0.10:80/tcp: kube-proxy chooses one of 2 endpoints, 10.244.2.5:8080, 10.244.3.5:8080; "
        "followed: 10.244.2.5:8080"
    ) in text(found)
    assert "masquerade" not in kinds(found)


def test_a_node_that_asks_a_service_is_masqueraded() -> None:
    found = follow(V, NODE_1, packet=Packet("", "10.96.0.10", "tcp", 80))
    assert found.arrives
    assert "10.8.0.11 becomes 10.244.1.0 (table ip kube-proxy)" in text(found)


@pytest.mark.parametrize(
    ("address", "port", "why"),
    [
        ("10.96.0.10", 81, "Service default/web has no port 81/tcp, it has 80/tcp"),
        ("10.96.0.11", 80, "kube-proxy on n1 refuses it: Service a/b has no ready endpoint"),
        ("10.96.0.12", 80, "kube-proxy on n1 does not know Service a/b 10.96.0.12:80/tcp"),
    ],
)
def test_a_service_that_leads_nowhere(address: str, port: int, why: str) -> None:
    other = ServiceFacts("a", "b", ("10.96.0.11", "10.96.0.12"), (("tcp", 80),))
    found = follow(replace(V, services=(*V.services, other)), POD_1, packet=Packet(POD_1.address, address, "tcp", port))
    assert (found.outcome, found.why) == ("dropped", why)


def test_a_packet_for_the_world_outside_has_its_nodes_address() -> None:
    found = follow(V, POD_1, packet=Packet(POD_1.address, "192.0.2.7", "tcp", 443))
    assert (found.outcome, found.arrives) == ("left", True)
    assert "10.244.1.5 becomes 10.8.0.11 (table ip moyai)" in text(found)


def test_a_pod_reaches_another_machine_and_the_answer_comes_back_through_translation() -> None:
    found = follow(V, POD_1, packet=Packet(POD_1.address, w.address(2), "tcp", 10250))
    assert found.arrives
    assert "10.244.1.5 becomes 10.8.0.11" in text(found)
    assert found.back is not None
    assert "hands the answer on" in found.back.hops[-1].text


def policy(way: str, *rules: dict[str, Any]) -> Any:
    spec: dict[str, Any] = {"podSelector": {}, "policyTypes": [way.title()], way: list(rules)}
    return parse_policy({"metadata": {"name": "guard", "namespace": "default"}, "spec": spec})


def guarded(way: str, *rules: dict[str, Any]) -> World:
    found = w.world("vxlan", policies=[policy(way, *rules)])
    for number in (1, 2, 3):
        tables = found.kernels[w.name(number)].tables
        found = w.changed(found, number, tables=(*tables, *w.policy_chains("default/guard")))
    return found


def test_a_policy_that_permits_or_denies_is_named() -> None:
    found = follow(guarded("ingress", {"ports": [{"port": 8080}]}), POD_1, packet=to_pod(2))
    assert found.arrives
    assert "n2: ingress of pod default/p2: permitted by default/guard" in text(found)
    found = follow(guarded("ingress", {"ports": [{"port": 8080}]}), POD_1, packet=to_pod(2, 81))
    assert found.why == "no NetworkPolicy permits 10.244.2.5:81/tcp from 10.244.1.5: default/guard selects it"
    found = follow(guarded("egress"), POD_1, packet=to_pod(2))
    assert found.outcome == "dropped"
    assert [hop.where for hop in found.hops][-1] == "n1"


def test_a_rule_of_a_tier_that_decides_is_named() -> None:
    everyone: dict[str, Any] = {"namespaces": {}}
    rules = [{"name": "no web", "action": "Deny", "from": [everyone]}]
    spec = {"tier": "Admin", "priority": 1, "subject": everyone, "ingress": rules}
    tiers = (parse_cluster_policy({"metadata": {"name": "closed"}, "spec": spec}),)
    found = follow(replace(w.world("vxlan"), cluster_policies=tiers), POD_1, packet=to_pod(2))
    assert found.why == "rule no web of ClusterNetworkPolicy closed denies 10.244.2.5:8080/tcp from 10.244.1.5"
    rules[0]["action"] = "Accept"
    tiers = (parse_cluster_policy({"metadata": {"name": "open"}, "spec": spec}),)
    found = follow(replace(guarded("ingress"), cluster_policies=tiers), POD_1, packet=to_pod(2))
    assert found.arrives
    assert "permitted by rule no web of ClusterNetworkPolicy open" in text(found)


def test_a_policy_without_a_table_has_no_effect_and_one_not_yet_applied_is_said() -> None:
    late = w.world("vxlan", policies=[policy("ingress")])
    assert "default/guard (default/guard is not in the kernel yet)" in text(follow(late, POD_1, packet=to_pod(2)))
    for number in (1, 2, 3):
        late = w.changed(late, number, tables=w.own_table(bare=False))
    found = follow(late, POD_1, packet=to_pod(2))
    assert found.arrives
    assert "default/guard has no effect, n2 has no table inet moyai-policy" in text(found)
    assert found.notes[0].startswith("n2: does the node's agent run?")
    off = follow(replace(late, enforces=False), POD_1, packet=to_pod(2))
    assert off.notes[0].startswith("this cluster enforces no network policies: `moyai up` with `spec.network.policy: true`")


def test_a_node_whose_agent_has_not_started_since_the_boot_is_named() -> None:
    world = w.world("vxlan")
    booted = w.changed(world, 2, tables=(*w.own_table(bare=False), w.chain("moyai-policy", "gate", family="inet")))
    found = follow(booted, POD_1, packet=to_pod(2))
    assert (found.outcome, [hop.where for hop in found.hops][-1]) == ("dropped", "n2")
    assert found.why.startswith("n2 has booted, and its agent has not applied network policies since")


def test_other_programs_chains_that_drop_are_a_note() -> None:
    closed = w.chain("filter", "FORWARD", type="filter", hook="forward", prio=0, policy="drop")
    tables = V.kernels["n1"].tables
    found = follow(w.changed(V, 1, tables=(*tables, closed)), POD_1, packet=to_pod(2))
    assert found.notes == ("n1: table ip filter chain FORWARD drops what its rules do not accept; they were not looked at",)


def test_the_smallest_link_on_the_way_decides_what_fits() -> None:
    assert follow(link_changed(V, 2, index=w.UPLINK, mtu=1300), POD_1, packet=to_pod(2)).mtu <= 1400
    assert follow(link_changed(V, 1, index=w.UPLINK, mtu=1300), POD_1, packet=to_pod(2)).mtu == 1250


def test_a_cloud_that_was_not_asked_leaves_the_way_over_its_router_unknown() -> None:
    found = follow(replace(w.world("routes"), cloud=CloudFacts(unknown="it does not answer")), POD_1, packet=to_pod(2))
    assert (found.outcome, found.arrives) == ("unknown", False)
    assert found.why == "the cloud, whose router has the next route, was not asked: it does not answer"


def test_pods_do_not_reach_the_clouds_metadata() -> None:
    world = w.world("vxlan")
    refusal = w.rule(
        "moyai",
        "forward",
        w.match("saddr", w.prefix(w.PODS)),
        w.match("daddr", w.prefix("169.254.0.0/16")),
        {"reject": {"type": "icmp", "expr": "admin-prohibited"}},
    )
    world = w.changed(world, 1, tables=(*world.kernels["n1"].tables, refusal))
    found = follow(world, POD_1, packet=replace(to_pod(2), destination="169.254.169.254"))
    assert (found.outcome, found.hops[-1].where) == ("dropped", "n1")
    assert found.why.startswith("table ip moyai of n1 rejects it: no pod reaches 169.254.169.254")
    assert follow(world, POD_1, packet=to_pod(2)).arrives


def test_a_node_port_is_not_taken_for_the_machines_own() -> None:
    world = replace(w.world("vxlan"), services=(replace(w.SERVICE, node_ports=(("tcp", 30080),)),))
    found = follow(world, POD_1, packet=Packet(POD_1.address, w.address(2), "tcp", 30080))
    assert (found.outcome, found.why) == ("unknown", "port 30080 is a node port of Service default/web, which is not followed")
    assert follow(world, POD_1, packet=Packet(POD_1.address, w.address(2), "tcp", 22)).arrives


def test_what_carries_an_answer_through_a_tunnel_must_pass_the_firewall() -> None:
    world = w.world("vxlan")
    one_way = (
        SecurityGroupRule(w.GROUP, "egress"),
        SecurityGroupRule(w.GROUP, remote_cidr=f"{w.address(1)}/32"),
    )
    found = follow(replace(world, cloud=replace(world.cloud, rules=one_way)), POD_1, packet=to_pod(2))
    assert found.outcome == "delivered"
    assert found.back is not None
    assert (found.back.outcome, found.arrives) == ("dropped", False)
    assert "8472/udp" in found.back.why
