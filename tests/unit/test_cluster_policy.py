"""ClusterNetworkPolicy as it is read: what is not known fails closed, and what decides about one packet."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import yaml

from moyai.agent import manifests
from moyai.kube.objects.cluster_policy import Action, Tier, parse_cluster_policy
from moyai.kube.objects.policy import Block, PodPeer, PolicyPod, PolicyPort, PolicyRule, Selector, parse_policy
from moyai.kube.resources import CLUSTER_NETWORK_POLICIES
from moyai.plan.network_policy.compiled import compiled_tier
from moyai.plan.network_policy.evaluation import Policies, evaluate
from moyai.plan.network_policy.pod_index import PodIndex
from moyai.plan.network_policy.table_names import named_port

Json = dict[str, Any]
ALL: Json = {"namespaces": {}}


def policy(name: str = "p", tier: str = "Admin", *, priority: int = 10, **spec: Any) -> Json:
    return {"metadata": {"name": name, "uid": "u"}, "spec": {"tier": tier, "priority": priority, "subject": ALL, **spec}}


def test_each_kind_of_peer_and_protocol_is_read() -> None:
    peers = [
        {"namespaces": {"matchLabels": {"a": "b"}}},
        {"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"c": "d"}}}},
        {"networks": ["10.1.2.3/8", "fd00::/8"]},
    ]
    protocols: list[Json] = [
        {"tcp": {"destinationPort": {"number": 80}}},
        {"udp": {"destinationPort": {"range": {"start": 1, "end": 9}}}},
        {"sctp": {}},
        {"destinationNamedPort": "dns"},
    ]
    found = parse_cluster_policy(policy(egress=[{"name": "r", "action": "Pass", "to": peers, "protocols": protocols}]))
    assert (found.tier, found.rank, found.subject, found.unsupported) == (Tier.ADMIN, (10, "p"), PodPeer(), ())
    (rule,) = found.egress
    assert (rule.name, rule.action) == ("r", Action.PASS)
    assert rule.rule.peers is not None
    assert [type(one) for one in rule.rule.peers] == [PodPeer, PodPeer, Block, Block]
    assert rule.rule.peers[2:] == (Block("10.0.0.0/8"), Block("fd00::/8"))
    named = tuple(PolicyPort(one, name="dns") for one in ("tcp", "udp", "sctp"))
    assert rule.rule.ports == (PolicyPort("tcp", 80, 80), PolicyPort("udp", 1, 9), PolicyPort("sctp"), *named)


UNKNOWN: list[tuple[Json, str]] = [
    ({"to": [{"domainNames": ["a.org"]}]}, "egress[0].to[0].domainNames"),
    ({"to": [{"nodes": {}}, ALL]}, "egress[0].to[0].nodes"),
    ({"to": [{}]}, "egress[0].to[0]"),
    ({"to": [ALL], "protocols": [{"icmp": {"type": 8}}]}, "egress[0].protocols[0]"),
    ({"to": [ALL], "protocols": [{"tcp": {"flags": ["syn"]}}]}, "egress[0].protocols[0]"),
    ({"to": [ALL], "protocols": [{"tcp": {"destinationPort": {"number": 70000}}}]}, "egress[0].protocols[0]"),
    ({"to": [ALL], "protocols": [{"tcp": {"destinationPort": {"range": {"start": 9, "end": 2}}}}]}, "egress[0].protocols[0]"),
    ({"to": [{"networks": ["010.0.0.0/8"]}, ALL]}, "egress[0].to[0].networks"),
]


@pytest.mark.parametrize(("rule", "path"), UNKNOWN)
def test_what_is_not_known_accepts_nobody_and_denies_everyone(rule: Json, path: str) -> None:
    for action, made in (("Accept", Action.ACCEPT), ("Deny", Action.DENY), ("Pass", Action.DENY)):
        found = parse_cluster_policy(policy(egress=[{"action": action, **rule}]))
        assert found.unsupported == (path,)
        (one,) = found.egress
        assert one.action is made
        if action == "Accept":
            assert one.rule.peers == ((PodPeer(),) if ALL in rule["to"] else ())
            assert one.rule.ports == (() if "protocols" in rule else None)
        else:
            assert one.rule == PolicyRule()


@pytest.mark.parametrize("name", ["x", "\u898f\u5247" * 50, "\U0001f600" * 100, "a\x00b", 'a"\n\x1b', "\ud800"])
def test_a_rules_name_becomes_a_comment_that_the_kernel_takes(name: str) -> None:
    found = parse_cluster_policy(policy(ingress=[{"name": name, "action": "Deny", "from": [ALL]}]))
    comments = [one.comment for one in compiled_tier([found], incoming=True).rules]
    assert comments
    for comment in comments:
        assert comment.isprintable()
        assert len(comment.encode()) <= 120


@pytest.mark.parametrize("name", ["x" * 300, "a b", "a\x00", "\u898f", '"', ""])
def test_a_ports_name_that_no_pod_can_have_is_a_set_that_the_kernel_takes(name: str) -> None:
    made = named_port("tcp", name, local=True, family=4)
    assert re.fullmatch(r"[a-z0-9-]{1,100}", made)
    assert made != named_port("tcp", f"{name}x", local=True, family=4)


def test_an_unknown_action_denies_and_an_unknown_subject_selects_nobody() -> None:
    found = parse_cluster_policy(policy(ingress=[{"action": "Log", "from": [ALL]}], subject={"nodes": {}}))
    assert found.unsupported == ("subject.nodes", "ingress[0].action")
    assert found.subject is None
    assert found.ingress[0].action is Action.DENY


def test_the_tiers_are_asked_around_the_policies_of_namespaces() -> None:
    pods = PodIndex()
    pods.namespaces["red"] = {}
    for name, address in (("a", "10.0.0.1"), ("b", "10.0.0.2")):
        pods.change(f"red/{name}", PolicyPod("red", name, "n", {"app": name}, (address,)))
    web = parse_policy(
        {"metadata": {"name": "web", "namespace": "red"}, "spec": {"podSelector": {"matchLabels": {"app": "b"}}}}
    )

    def judged(*tiers: Json, namespaced: bool = True) -> Any:
        everything = Policies([web] if namespaced else [], [parse_cluster_policy(one) for one in tiers])
        return evaluate(everything, pods, source="10.0.0.1", destination="10.0.0.2", port=("tcp", 80), incoming=True)

    def rule(action: str) -> list[Json]:
        return [{"action": action, "from": [ALL]}]

    accept, deny, skip = (policy(one.lower(), ingress=rule(one)) for one in ("Accept", "Deny", "Pass"))
    base = policy("base", "Baseline", ingress=rule("Deny"))
    assert judged().permitted is False
    web, earnest = replace(web, trial=True), web
    assert (judged().permitted, judged().selecting) == (True, ())
    web = earnest
    found = judged(accept, base)
    assert (found.permitted, found.decided.policy, found.decided.rule) == (True, "accept", "ingress[0]")
    # the name orders policies of one priority; a lower number comes first
    assert judged(accept, deny).decided.policy == "accept"
    assert judged(accept, {**deny, "spec": {**deny["spec"], "priority": 1}}).decided.policy == "deny"
    found = judged(skip, deny, base)
    assert found.decided.policy == "deny"
    skip["spec"]["priority"] = 0
    found = judged(skip, deny, base)
    assert (found.decided, found.selecting, found.baseline) == (None, ("red/web",), None)
    assert judged(skip, base, namespaced=False).decided.policy == "base"
    assert judged(skip, namespaced=False).permitted


def test_the_definition_that_agents_bring_is_of_the_kind_that_they_read() -> None:
    (text,) = manifests.definitions(["cluster-policy"])
    found = yaml.safe_load(text)
    names, (version,) = found["spec"]["names"], found["spec"]["versions"]
    resource = CLUSTER_NETWORK_POLICIES
    assert (found["spec"]["group"], version["name"], names["plural"]) == (resource.group, resource.version, resource.plural)
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    assert set(spec) == {"egress", "ingress", "priority", "subject", "tier"}
    peers = spec["egress"]["items"]["properties"]["to"]["items"]["properties"]
    assert set(peers) == {"namespaces", "pods", "networks"}
    assert Selector() == PodPeer().namespaces
