"""The index of network policies against Kubernetes' definition, evaluated naively; its differences against the whole table."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator
from typing import Any

import pytest

from moyai.kube.objects.cluster_policy import parse_cluster_policy
from moyai.kube.objects.policy import Alike, PodPeer, PolicyPort, PolicyRule, parse_policy, parse_policy_pod
from moyai.plan.network_policy import table_names as names
from moyai.plan.network_policy.index import PolicyIndex
from moyai.plan.network_policy.ruleset import ChainRule, Delta, Match, PolicyTable, Verdict
from tests.network_policies import NODE, NUMBERS, OUTSIDE, PROTOCOLS, Cluster, Dice, Json


class Kernel:
    """A table as the kernel would have it after the differences, and what it does with a first packet."""

    def __init__(self) -> None:
        self.elements: dict[str, dict[Any, str]] = {}
        self.chains: dict[str, tuple[ChainRule, ...]] = {}
        self.noted: set[tuple[str, str, str, int]] = set()
        self.counters: set[str] = set()

    def apply(self, delta: Delta) -> None:
        for name in delta.new_sets:
            assert name not in self.elements
            self.elements[name] = {}
        for name in delta.new_chains:
            assert name not in self.chains
        assert not self.counters & set(delta.new_counters)
        assert self.counters >= set(delta.gone_counters)
        self.counters = (self.counters | set(delta.new_counters)) - set(delta.gone_counters)
        for name, held in delta.removed.items():
            for element, target in held.items():
                assert self.elements[name].pop(element) == target
        self.chains.update(delta.chains)
        for name, held in delta.added.items():
            for element, target in held.items():
                assert element not in self.elements[name], "nftables refuses another target without a removal"
                self.elements[name][element] = target
        for name in delta.gone_chains:
            del self.chains[name]
        for name in delta.gone_sets:
            assert not self.elements.pop(name)
        # what is referred to exists
        targets = {target for held in self.elements.values() for target in held.values() if target}
        targets |= {rule.jump for rules in self.chains.values() for rule in rules if rule.jump}
        assert targets <= self.chains.keys()
        assert self.counters == {one.counter for rules in self.chains.values() for one in rules} - {""}
        for rules in self.chains.values():
            for rule in rules:
                used = {rule.match.addresses, rule.match.named[1] if rule.match.named else ""} - {""}
                assert used <= self.elements.keys()

    def passes(self, source: str, destination: str, *, protocol: str, port: int) -> bool:
        if (source, destination) in self.elements[names.itself(4)]:
            return True
        starts = (self.elements[names.isolated_from(4)].get(source), self.elements[names.isolated_to(4)].get(destination))
        packet = (source, destination, protocol.lower(), port)
        return all(self._verdict(start, packet) is not Verdict.DROP for start in starts if start)

    def _verdict(self, chain: str, packet: tuple[str, str, str, int]) -> Verdict | None:
        for rule in self.chains[chain]:
            if rule.jump:
                found = self._verdict(rule.jump, packet)
                if found not in (None, Verdict.RETURN):
                    return found
            elif self._matches(rule.match, packet):
                if rule.note:
                    self.noted.add(packet)
                    continue
                return rule.verdict
        return None

    def _matches(self, match: Match, packet: tuple[str, str, str, int]) -> bool:
        source, destination, protocol, port = packet
        address = source if match.source else destination
        one = ipaddress.ip_address(address)
        return not (
            match.family == 6
            or (match.addresses and address not in self.elements[match.addresses])
            or (match.cidr and one not in ipaddress.ip_network(match.cidr))
            or any(one in ipaddress.ip_network(no) for no in match.excepts)
            or (match.ports and match.ports.protocol != protocol)
            or (match.ports and match.ports.ranges and not any(a <= port <= b for a, b in match.ports.ranges))
            or (match.named and (match.named[0] != protocol or (destination, port) not in self.elements[match.named[1]]))
        )


def packets(cluster: Cluster) -> Iterator[tuple[str, str, str, int]]:
    addresses = [*dict.fromkeys(one["status"]["podIP"] for one in cluster.pods.values()), *OUTSIDE]
    for source in addresses:
        for destination in addresses:
            for protocol in PROTOCOLS:
                for port in NUMBERS:
                    yield source, destination, protocol, port


def step(cluster: Cluster, dice: Dice, *, index: PolicyIndex) -> None:
    """One random change of the cluster, of which the index hears."""
    namespace, number = dice.random.choice(["red", "blue", "green"]), dice.random.randint(1, 4)
    kind = dice.random.choice(["namespace", "pod", "pod", "policy", "policy", "cluster policy"])
    key = f"{namespace}/{kind}{number}"
    gone = dice.random.random() < 0.25
    if kind == "namespace":
        cluster.namespaces[namespace] = dice.namespace(namespace)
        index.set_namespace(namespace, cluster.namespaces[namespace]["metadata"]["labels"])
    elif kind == "pod":
        cluster.pods.pop(key, None)
        taken = {one["status"]["podIP"] for one in cluster.pods.values()}
        free = [address for last in range(1, 16) if (address := f"10.0.0.{last}") not in taken]
        if gone:
            index.set_pod(key, None)
        else:
            cluster.pods[key] = dice.pod(namespace, f"pod{number}", address=dice.random.choice(free))
            index.set_pod(key, parse_policy_pod(cluster.pods[key]))
    elif kind == "cluster policy":
        name = f"policy{number}"
        if gone:
            cluster.tiers.pop(name, None)
            index.set_cluster_policy(name, None)
        else:
            cluster.tiers[name] = dice.cluster_policy(name)
            index.set_cluster_policy(name, parse_cluster_policy(cluster.tiers[name]))
    elif gone:
        cluster.policies.pop(key, None)
        index.set_policy(key, None)
    else:
        cluster.policies[key] = dice.policy(namespace, f"policy{number}")
        index.set_policy(key, parse_policy(cluster.policies[key]))


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(6))
def test_after_each_of_many_changes_every_packet_fares_as_kubernetes_defines(seed: int) -> None:
    dice, cluster, index, kernel = Dice(seed), Cluster(), PolicyIndex(NODE), Kernel()
    for name in ("red", "blue", "green"):
        cluster.namespaces[name] = dice.namespace(name)
        index.set_namespace(name, cluster.namespaces[name]["metadata"]["labels"])
    kernel.apply(index.table.everything())
    for round_ in range(40):
        for _ in range(dice.random.randint(1, 4)):
            step(cluster, dice, index=index)
        kernel.apply(index.table.take())
        if round_ % 4:
            continue
        for source, destination, protocol, port in packets(cluster):
            expected = cluster.allowed(source, destination, protocol=protocol, port=port)
            where = f"{source} to {destination}, {protocol} {port}, after round {round_}"
            kernel.noted.clear()
            assert kernel.passes(source, destination, protocol=protocol, port=port) is expected, where
            assert bool(kernel.noted) is cluster.noted, where
            assert index.permits(source, destination, protocol=protocol.lower(), port=port) is expected, where


@pytest.mark.parametrize("seed", range(6))
def test_the_table_depends_on_the_cluster_alone_and_not_on_the_order_of_its_changes(seed: int) -> None:
    dice, cluster, index, kernel = Dice(seed), Cluster(), PolicyIndex(NODE), Kernel()
    for name in ("red", "blue", "green"):
        cluster.namespaces[name] = dice.namespace(name)
        index.set_namespace(name, cluster.namespaces[name]["metadata"]["labels"])
    kernel.apply(index.table.everything())
    for _ in range(60):
        step(cluster, dice, index=index)
        kernel.apply(index.table.take())
    fresh, other = PolicyIndex(NODE), Kernel()
    adds = [
        *((fresh.set_policy, key, parse_policy(one)) for key, one in cluster.policies.items()),
        *((fresh.set_cluster_policy, key, parse_cluster_policy(one)) for key, one in cluster.tiers.items()),
        *((fresh.set_pod, key, parse_policy_pod(one)) for key, one in cluster.pods.items()),
        *((fresh.set_namespace, key, one["metadata"]["labels"]) for key, one in cluster.namespaces.items()),
    ]
    dice.random.shuffle(adds)
    for call, key, value in adds:
        call(key, value)  # type: ignore[operator]
    other.apply(fresh.table.everything())
    assert other.elements == kernel.elements
    assert other.chains == kernel.chains


def policy(name: str = "p", **spec: Any) -> Json:
    return {"metadata": {"namespace": "red", "name": name}, "spec": {"podSelector": {}, **spec}}


def pod(name: str, address: str, *, labels: dict[str, str] | None = None, **status: Any) -> Json:
    return {
        "metadata": {"namespace": "red", "name": name, "labels": labels or {"app": "web"}},
        "spec": {"nodeName": NODE},
        "status": {"podIP": address, "phase": "Running", **status},
    }


def filled(*policies: Json, pods: tuple[Json, ...] = ()) -> PolicyIndex:
    index = PolicyIndex(NODE)
    index.set_namespace("red", {})
    for one in policies:
        index.set_policy(f"red/{one['metadata']['name']}", parse_policy(one))
    for one in pods:
        index.set_pod(f"red/{one['metadata']['name']}", parse_policy_pod(one))
    index.table.everything()
    return index


def elements_alone(delta: Delta) -> bool:
    """Whether nothing but elements of sets and maps changes."""
    return not (delta.new_sets or delta.gone_sets or delta.chains or delta.gone_chains)


def test_a_pod_that_comes_or_goes_beside_others_of_its_kind_changes_elements_alone() -> None:
    web = {"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": "http"}]}
    index = filled(policy(ingress=[web]), pods=(pod("one", "10.0.0.1"),))
    index.set_pod("red/two", parse_policy_pod(pod("two", "10.0.0.2")))
    delta = index.table.take()
    assert elements_alone(delta)
    assert delta.added
    index.set_pod("red/two", None)
    delta = index.table.take()
    assert elements_alone(delta)
    assert delta.removed


def test_policies_share_the_set_of_a_selector_however_it_is_written() -> None:
    first = {"from": [{"podSelector": {"matchLabels": {"a": "x", "b": "y"}}}]}
    said = [{"key": key, "operator": "In", "values": [value]} for key, value in (("b", "y"), ("a", "x"))]
    index = filled(
        policy("one", ingress=[first]),
        policy("two", ingress=[{"from": [{"podSelector": {"matchExpressions": said}}]}]),
        pods=(pod("one", "10.0.0.1"),),
    )
    assert sum(name.startswith("pods-") for name in index.table.kinds) == 2  # one a family


@pytest.mark.parametrize(
    ("spec", "ingress", "egress"),
    [
        ("{}", True, False),
        ('{"egress": [{}]}', True, True),
        ('{"egress": []}', True, False),
        ('{"policyTypes": ["Egress"]}', False, True),
        ('{"policyTypes": ["Ingress"], "egress": [{}]}', True, False),
    ],
)
def test_policy_types_left_out_are_ingress_and_egress_where_there_is_a_rule(spec: str, ingress: bool, egress: bool) -> None:
    found = parse_policy(policy(**json.loads(spec)))
    assert (found.ingress is not None, found.egress is not None) == (ingress, egress)


UNREADABLE: list[tuple[Json, PolicyRule]] = [
    ({"from": [{"ipBlock": {"cidr": "010.0.0.0/8"}}]}, PolicyRule(())),
    ({"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["010.1.0.0/16"]}}]}, PolicyRule(())),
    ({"from": [{"ipBlock": {}}, {"podSelector": {}}]}, PolicyRule((PodPeer(namespace="red"),))),
    ({"ports": [{"port": 80, "endPort": 70}, {"port": 0}, {"port": 70000}, {"port": [1]}]}, PolicyRule(None, ())),
    ({"ports": [{"port": -1}, {"port": 80, "endPort": 90}]}, PolicyRule(None, (PolicyPort("tcp", 80, 90),))),
    ({"ports": [{"protocol": "ICMP"}, {"protocol": "ICMP", "port": 8}]}, PolicyRule(None, ())),
    ({"ports": [{"port": "http"}]}, PolicyRule(None, (PolicyPort("tcp", name="http"),))),
]


@pytest.mark.parametrize(("rule", "kept"), UNREADABLE)
def test_what_cannot_be_read_of_a_policy_permits_nobody_and_the_policy_holds(rule: Json, kept: PolicyRule) -> None:
    found = parse_policy({"metadata": {"name": "p", "namespace": "red"}, "spec": {"podSelector": {}, "ingress": [rule]}})
    assert found.ingress == (kept,)


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_has_ended_lends_its_labels_to_nobody_who_gets_its_address(phase: str) -> None:
    index = filled(policy(), pods=(pod("old", "10.0.0.1", phase=phase),))
    assert not index.is_isolated("10.0.0.1")


def test_a_pod_that_is_ending_yields_its_address_to_the_next_one_in_either_order() -> None:
    guarded = policy(podSelector={"matchLabels": {"app": "new"}})
    old = pod("old", "10.0.0.1", labels={"app": "old"})
    old["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    new = pod("new", "10.0.0.1", labels={"app": "new"})
    for pods in ((old, new), (new, old)):
        index = filled(guarded, pods=pods)
        assert index.is_isolated("10.0.0.1")
        index.set_pod("red/new", None)
        assert not index.is_isolated("10.0.0.1")


def test_a_pod_on_its_nodes_network_is_seen_by_no_policy() -> None:
    host = pod("host", "172.16.0.9")
    host["spec"]["hostNetwork"] = True
    assert not filled(policy(), pods=(host,)).is_isolated("172.16.0.9")


def test_addresses_of_unknown_pods_are_guarded_while_there_is_a_policy() -> None:
    index = filled()
    index.set_ranges(["10.0.0.0/24", "fd00::/64"])
    assert not index.table.elements[names.ranges(4)]
    index.set_policy("red/p", parse_policy(policy()))
    assert set(index.table.elements[names.ranges(4)]) == {"10.0.0.0/24"}
    assert set(index.table.elements[names.ranges(6)]) == {"fd00::/64"}
    index.set_policy("red/p", None)
    assert not index.table.elements[names.ranges(4)]


def test_a_change_that_is_undone_before_it_is_taken_is_no_difference() -> None:
    index = filled(policy(), pods=(pod("one", "10.0.0.1"),))
    index.set_policy("red/q", parse_policy(policy("q")))
    index.set_pod("red/two", parse_policy_pod(pod("two", "10.0.0.2")))
    index.set_pod("red/two", None)
    index.set_policy("red/q", None)
    assert not index.table.take()


def test_only_what_may_forbid_something_has_connections_looked_at() -> None:
    index = filled(policy(ingress=[{"from": [{"podSelector": {}}]}]), pods=(pod("one", "10.0.0.1"),))
    peer = pod("far", "10.0.1.1")
    peer["spec"]["nodeName"] = "n2"
    index.set_pod("red/far", parse_policy_pod(peer))
    assert not index.table.take().may_forbid
    index.set_pod("red/far", None)
    assert index.table.take().may_forbid


def test_a_table_without_changes_has_no_difference() -> None:
    assert not PolicyTable().take()


def test_pods_that_are_kept_together_share_equal_labels_and_others_do_not() -> None:
    alike = Alike()
    one, two = (parse_policy_pod(pod(name, f"10.0.0.{number}"), alike) for number, name in enumerate(("one", "two"), 1))
    assert one.labels is two.labels
    assert one.ports is two.ports
    other = parse_policy_pod(pod("three", "10.0.0.3"))
    assert other.labels == one.labels
    assert other.labels is not one.labels
