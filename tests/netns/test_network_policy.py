"""Network policies in the real kernel: two nodes with pods, each pair of pods probed at two ports by TCP and UDP."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from moyai.agent.policy.flows import noted_flows
from moyai.core.errors import Retriable
from moyai.kube.objects.policy import parse_policy, parse_policy_pod
from moyai.linux import netns
from moyai.plan.network_policy.nft_commands import changes
from tests.netns.policy_world import NODES, World, boot, ping, planner, ruleset, switch_off, world

Json = dict[str, Any]


@pytest.fixture(scope="module")
def shared() -> Iterator[World]:
    with world() as made:
        yield made


@pytest.fixture
def net(shared: World) -> Iterator[World]:
    yield shared
    shared.hear()


def policy(name: str, pods: Json | None = None, *, namespace: str = "red", **spec: Any) -> Json:
    return {"metadata": {"namespace": namespace, "name": name}, "spec": {"podSelector": pods or {}, **spec}}


def labelled(**labels: str) -> Json:
    return {"matchLabels": labels}


NONE: Json = {"policyTypes": ["Ingress"]}
CASES: dict[str, list[Json]] = {
    "nothing is sent to any pod of the namespace": [policy("p", **NONE)],
    "no pod of the namespace sends anything": [policy("p", policyTypes=["Egress"])],
    "both": [policy("p", policyTypes=["Ingress", "Egress"])],
    "everything is permitted": [policy("p", ingress=[{}], egress=[{}])],
    "a rule for everyone beats a policy without rules": [policy("p", **NONE), policy("q", labelled(pod="a"), ingress=[{}])],
    "from pods of the same namespace": [policy("p", ingress=[{"from": [{"podSelector": labelled(pod="b")}]}])],
    "from pods by an expression": [
        policy(
            "p",
            ingress=[{"from": [{"podSelector": {"matchExpressions": [{"key": "pod", "operator": "NotIn", "values": ["b"]}]}}]}],
        )
    ],
    "from a namespace": [policy("p", ingress=[{"from": [{"namespaceSelector": labelled(name="blue")}]}])],
    "from a pod in a namespace": [
        policy("p", ingress=[{"from": [{"namespaceSelector": labelled(name="blue"), "podSelector": labelled(pod="e")}]}])
    ],
    "from a pod or a namespace": [
        policy(
            "p",
            ingress=[{"from": [{"namespaceSelector": labelled(name="blue")}, {"podSelector": labelled(pod="b")}]}],
        )
    ],
    "one port of one protocol": [policy("p", ingress=[{"ports": [{"port": 80, "protocol": "TCP"}]}])],
    "one protocol, all ports": [policy("p", ingress=[{"ports": [{"protocol": "UDP"}]}])],
    "a range of ports": [policy("p", ingress=[{"ports": [{"port": 81, "endPort": 90, "protocol": "UDP"}]}])],
    "a port by its name, to the pod": [policy("p", ingress=[{"ports": [{"port": "web"}]}])],
    "a port by its name, from the pod": [policy("p", egress=[{"ports": [{"port": "web"}]}], policyTypes=["Egress"])],
    "sources and ports of one rule belong together": [
        policy(
            "p",
            labelled(pod="a"),
            ingress=[
                {"from": [{"podSelector": labelled(pod="b")}], "ports": [{"port": 80}]},
                {"from": [{"podSelector": labelled(pod="d")}], "ports": [{"port": 81}]},
            ],
        )
    ],
    "to a pod on another node": [policy("p", egress=[{"to": [{"podSelector": labelled(pod="d")}]}], policyTypes=["Egress"])],
    "to a range without a part of it": [
        policy(
            "p",
            egress=[{"to": [{"ipBlock": {"cidr": "10.244.0.0/16", "except": ["10.244.1.4/32", "10.244.2.2/31"]}}]}],
            policyTypes=["Egress"],
        )
    ],
    "from every address but some": [
        policy("p", ingress=[{"from": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.244.1.0/24"]}}]}])
    ],
    "the sender's policy forbids what the receiver's permits": [
        policy("p", labelled(pod="a"), ingress=[{}]),
        policy("q", policyTypes=["Egress"], namespace="blue"),
    ],
    "policies add to each other": [
        policy("p", ingress=[{"from": [{"podSelector": labelled(pod="b")}]}]),
        policy("q", ingress=[{"from": [{"namespaceSelector": labelled(name="blue")}], "ports": [{"port": 80}]}]),
    ],
}


@pytest.mark.parametrize("case", CASES)
def test_every_pair_of_pods_reaches_each_other_where_kubernetes_defines_so(net: World, case: str) -> None:
    net.hear(*CASES[case])
    for protocol in ("TCP", "UDP"):
        assert net.flows(protocol) == net.expected(protocol), f"{protocol}: {case}"


def test_without_policies_everyone_reaches_everyone(net: World) -> None:
    assert all(net.flows("TCP").values())
    assert all(net.flows("UDP").values())


def test_a_node_reaches_its_pods_whatever_the_policies_say(net: World) -> None:
    net.hear(policy("p", policyTypes=["Ingress", "Egress"]))
    assert ping("n1", "10.244.1.2")
    assert not ping("n2", "10.244.1.2")


def test_the_node_keeps_its_connections_to_pods_when_others_are_cut(net: World) -> None:
    assert ping("n1", "10.244.1.2")
    net.hear(policy("p", policyTypes=["Ingress", "Egress"]))
    found = net.nodes["n1"].kernel.connections()
    assert not any("10.244.1.1" in (one.source, one.destination) for one in found)


@pytest.mark.parametrize(("source", "destination"), [("red/b", "red/a"), ("red/d", "red/a"), ("red/a", "blue/e")])
def test_a_connection_that_is_no_longer_permitted_ends_and_no_other(net: World, source: str, destination: str) -> None:
    client, server = net.connect(source, destination, port=80)
    kept, kept_server = net.connect("blue/c", "blue/e", port=80)
    client.sendall(b"before")
    assert server.recv(10) == b"before"
    key = "Ingress" if destination.startswith("red") else "Egress"
    net.hear(policy("p", policyTypes=[key]))
    for sender, receiver in ((client, server), (server, client)):
        sender.sendall(b"after")
        with pytest.raises(TimeoutError):
            receiver.recv(10)
    kept.sendall(b"after")
    assert kept_server.recv(10) == b"after"
    for one in (client, server, kept, kept_server):
        one.close()


def test_a_connection_lives_through_changes_that_permit_it(net: World) -> None:
    net.hear(policy("p", ingress=[{"from": [{"podSelector": labelled(pod="b")}]}]))
    client, server = net.connect("red/b", "red/a", port=80)
    for number in range(5):
        ports = [{"port": 80 - number, "endPort": 80}]
        net.hear(policy("p", ingress=[{"from": [{"podSelector": labelled(pod="b")}], "ports": ports}]))
        client.sendall(b"again")
        assert server.recv(10) == b"again"
    client.close()
    server.close()


def test_no_packet_of_a_permitted_flow_is_lost_while_policies_are_replaced(net: World) -> None:
    sender = net.socket_in("red/b", socket.SOCK_DGRAM)
    receiver = net.datagrams["red/a", 80]
    receiver.settimeout(1)
    for number in range(30):
        permit = policy("p", ingress=[{"from": [{"podSelector": labelled(pod="b")}]}])
        other = policy("q", labelled(pod="a"), ingress=[{"ports": [{"port": 1000 + number}]}])
        net.hear(*([permit, other] if number % 2 else [permit]))
        word = f"packet {number}".encode()
        # from a new port each time, so that no remembered connection carries it
        with net.socket_in("red/b", socket.SOCK_DGRAM) as fresh:
            fresh.sendto(word, (net.addresses["red/a"], 80))
        assert receiver.recv(100) == word
    sender.close()


def test_an_agent_that_starts_again_finds_the_table_of_the_last_one_and_makes_it_its_own(net: World) -> None:
    net.hear(policy("old", policyTypes=["Ingress"]), policy("stays", ingress=[{"ports": [{"port": 80}]}]))
    del net.cluster.policies["red/old"]
    for number, name in enumerate(NODES, 1):
        net.nodes[name].kernel.close()
        net.nodes[name] = planner(net, name, number=number)
    assert "old" in ruleset("n1")  # until its first transaction nothing changes
    for name in NODES:
        net.nodes[name].apply()
    assert "red/old" not in ruleset("n1")
    assert net.flows("TCP") == net.expected("TCP")


def test_a_pod_that_is_not_known_yet_has_no_traffic_until_it_is(net: World) -> None:
    net.hear(policy("p", labelled(pod="c"), ingress=[{}]))
    for node in net.nodes.values():
        node.index.set_pod("red/a", None)
        node.apply()
    try:
        flows = net.flows("TCP")
        assert not any(passes for (a, b, _), passes in flows.items() if a != b and "red/a" in (a, b))
        assert all(passes for (a, b, _), passes in flows.items() if "red/a" not in (a, b))
    finally:
        for node in net.nodes.values():
            node.index.set_pod("red/a", parse_policy_pod(net.cluster.pods["red/a"]))
            node.apply()
    assert net.flows("TCP") == net.expected("TCP")


def test_after_a_boot_pods_have_no_traffic_until_the_agents_first_transaction(net: World) -> None:
    net.hear(policy("p", ingress=[{"from": [{"podSelector": labelled(pod="b")}]}]))
    for node in net.nodes.values():
        # as a machine begins: nothing in the kernel, and the node's service before the kubelet
        switch_off(node)
        node.standing = False
        boot(node)
    for protocol in ("TCP", "UDP"):
        flows = net.flows(protocol)
        assert not [(a, b) for (a, b, _), passes in flows.items() if passes and a != b], protocol
    assert ping("n1", "10.244.1.2"), "the kubelet's probes arrive"
    for node in net.nodes.values():
        node.apply()
    assert net.flows("TCP") == net.expected("TCP")
    # the service again, beside an agent at work
    boot(net.nodes["n1"])
    assert "gate" not in ruleset("n1")
    assert net.flows("TCP") == net.expected("TCP")


def test_what_policies_decide_is_counted_by_their_names(net: World) -> None:
    net.hear(policy("p", labelled(pod="a"), ingress=[{"from": [{"podSelector": labelled(pod="b")}], "ports": [{"port": 80}]}]))
    assert net.flows("TCP") == net.expected("TCP")
    found = net.nodes["n1"].kernel.counters()
    assert found["ingress:accept:red/p"] == 1
    # those who are denied try again
    assert found["ingress:drop:red/p"] >= 7
    net.hear(policy("q", labelled(pod="a"), ingress=[{}]))
    assert set(net.nodes["n1"].kernel.counters()) == {"ingress:accept:red/q", "ingress:drop:red/q"}


def test_what_a_policy_with_a_log_denies_is_noted_for_it(net: World) -> None:
    logged = policy("p", labelled(pod="a"), ingress=[{"from": [{"podSelector": labelled(pod="b")}]}])
    logged["metadata"]["annotations"] = {"policy.moyai.dev/log": "denied"}
    net.hear(logged, policy("q", labelled(pod="b"), ingress=[]))
    assert net.flows("TCP") == net.expected("TCP")
    found = {(one.source, one.destination, one.port) for one in net.nodes["n1"].kernel.denied()}
    to_a = {(source, net.addresses["red/a"], port) for source in net.addresses.values() for port in (80, 81)}
    assert found == {one for one in to_a if one[0] not in (net.addresses["red/a"], net.addresses["red/b"])}


def on_trial(one: Json) -> Json:
    return {**one, "metadata": {**one["metadata"], "annotations": {"policy.moyai.dev/trial": "true"}}}


def test_a_policy_on_trial_drops_nothing_and_the_kernel_notes_what_it_would_drop(net: World) -> None:
    only_b = policy("p", labelled(pod="a"), ingress=[{"from": [{"podSelector": labelled(pod="b")}]}])
    kept, kept_server = net.connect("blue/c", "red/a", port=80)
    net.hear(on_trial(only_b))
    for protocol in ("TCP", "UDP"):
        assert all(net.flows(protocol).values())
    kept.sendall(b"after")
    assert kept_server.recv(10) == b"after"
    with netns.inside("pol-n1"):
        noted = {(one.source, one.destination, one.protocol, one.port) for one in noted_flows()}
    names = {address: name for name, address in net.addresses.items()}
    expected = {(other, protocol, port) for other in net.addresses for protocol in ("tcp", "udp") for port in (80, 81)}
    found = {(names[source], protocol, port) for source, destination, protocol, port in noted if names[destination] == "red/a"}
    assert found == {one for one in expected if one[0] not in ("red/a", "red/b")}
    assert len(noted) == len(found)
    # in earnest
    net.hear(only_b)
    assert net.flows("TCP") == net.expected("TCP")
    assert not all(net.flows("TCP").values())
    for one in (kept, kept_server):
        one.close()


def test_switched_off_nothing_of_the_table_is_left(net: World) -> None:
    net.hear(policy("p", policyTypes=["Ingress", "Egress"]))
    for node in net.nodes.values():
        switch_off(node)
        node.standing = False
    assert ruleset("n1").strip() == ""
    assert all(net.flows("TCP").values())
    switch_off(net.nodes["n1"])  # twice does no harm


def test_a_refused_transaction_changes_nothing(net: World) -> None:
    net.hear(policy("p", policyTypes=["Ingress"]))
    before = ruleset("n1")
    node = net.nodes["n1"]
    node.index.set_policy("red/q", parse_policy(policy("q", ingress=[{}])))
    wrong = {"delete": {"chain": {"family": "inet", "table": "moyai-policy", "name": "no"}}}
    commands = [*changes(node.index.table.take()), wrong]
    with pytest.raises(Retriable, match="refuses the table"):
        node.kernel.apply(commands)
    assert ruleset("n1") == before
    node.index.set_policy("red/q", None)
    node.standing = False
    node.apply()
