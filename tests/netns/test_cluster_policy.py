"""Policies of the cluster's tiers in the real kernel, around those of namespaces, between all pairs of pods of two nodes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

from moyai.agent.policy.flows import noted_flows
from moyai.diagnose.network.command_audit import entries
from moyai.kube.objects.cluster_policy import parse_cluster_policy
from moyai.kube.objects.policy import TRIAL, parse_policy
from moyai.linux import netns
from moyai.linux.process import run
from moyai.plan.network_policy.evaluation import Policies
from moyai.plan.network_policy.table_names import TABLE
from moyai.plan.network_policy.table_names import trial as trial_set
from tests.netns.policy_world import World, ruleset, world
from tests.network_policies import Dice

Json = dict[str, Any]
ALL: Json = {"namespaces": {}}


@pytest.fixture(scope="module")
def shared() -> Iterator[World]:
    with world() as made:
        yield made


@pytest.fixture
def net(shared: World) -> Iterator[World]:
    yield shared
    shared.tier()
    shared.hear()


def pods(**labels: str) -> Json:
    return {"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": labels}}}


def space(name: str) -> Json:
    return {"namespaces": {"matchLabels": {"name": name}}}


def tier(name: str, kind: str = "Admin", *, priority: int = 10, subject: Json = ALL, **rules: list[Json]) -> Json:
    return {"metadata": {"name": name}, "spec": {"tier": kind, "priority": priority, "subject": subject, **rules}}


def incoming(action: str, *peers: Json, **more: Any) -> Json:
    return {"action": action, "from": list(peers or [ALL]), **more}


def outgoing(action: str, *peers: Json, **more: Any) -> Json:
    return {"action": action, "to": list(peers or [ALL]), **more}


WEB = [{"tcp": {"destinationPort": {"number": 80}}}]
#: Nothing is sent to pods of the namespace red.
CLOSED: Json = {"metadata": {"namespace": "red", "name": "closed"}, "spec": {"podSelector": {}, "policyTypes": ["Ingress"]}}
CASES: dict[str, list[Json]] = {
    "everything is denied": [tier("p", ingress=[incoming("Deny")])],
    "names that the kernel does not take as they are": [
        tier("p", ingress=[incoming("Deny", name="\U0001f600" * 100, protocols=[{"destinationNamedPort": "x" * 300}, *WEB])]),
        tier("q", ingress=[incoming("Deny", name='a\x00"\n', protocols=[{"destinationNamedPort": "a\x00 b"}])]),
    ],
    "the first rule decides": [tier("p", ingress=[incoming("Accept", pods(pod="b")), incoming("Deny")])],
    "the lower number decides": [
        tier("p", priority=5, ingress=[incoming("Deny", space("blue"))]),
        tier("a", priority=6, ingress=[incoming("Accept")]),
    ],
    "what passes is left to the namespace": [
        tier("p", priority=5, ingress=[incoming("Pass", space("red"))]),
        tier("q", priority=6, ingress=[incoming("Accept")]),
    ],
    "the baseline is for pods that no policy selects": [tier("p", "Baseline", ingress=[incoming("Deny")])],
    "the baseline accepts and passes": [
        tier("p", "Baseline", ingress=[incoming("Accept", pods(pod="a")), incoming("Pass", pods(pod="b")), incoming("Deny")]),
        tier("q", "Baseline", priority=20, ingress=[incoming("Deny")]),
    ],
    "both tiers": [
        tier("p", subject=space("blue"), ingress=[incoming("Pass", pods(pod="a")), incoming("Deny", space("red"))]),
        tier("q", "Baseline", egress=[outgoing("Deny", {"networks": ["10.244.2.0/24"]})]),
    ],
    "one port": [tier("p", ingress=[incoming("Deny", protocols=WEB)])],
    "a port by its name": [tier("p", egress=[outgoing("Deny", protocols=[{"destinationNamedPort": "web"}])])],
    "a range of addresses": [
        tier("p", egress=[outgoing("Accept", pods(pod="d")), outgoing("Deny", {"networks": ["0.0.0.0/0"]})])
    ],
}


@pytest.mark.parametrize("namespaced", [False, True], ids=["alone", "around a policy"])
@pytest.mark.parametrize("case", CASES)
def test_every_pair_of_pods_reaches_each_other_where_the_tiers_define_so(net: World, case: str, namespaced: bool) -> None:
    if namespaced:
        net.hear(CLOSED)
    net.tier(*CASES[case])
    for protocol in ("TCP", "UDP"):
        assert net.flows(protocol) == net.expected(protocol), f"{protocol}: {case}"


@pytest.mark.parametrize("namespaced", [False, True], ids=["alone", "around a policy"])
@pytest.mark.parametrize("case", [one for one in CASES if not one.startswith("names that")])
def test_on_trial_nothing_is_dropped_and_what_would_be_is_noted(net: World, case: str, namespaced: bool) -> None:
    around = [CLOSED] if namespaced else []
    net.hear(*around)
    without = net.expected("TCP")
    net.tier(*CASES[case])
    lost = {pair for pair, passes in net.expected("TCP").items() if without[pair] and not passes}
    net.tier(*({**one, "metadata": {**one["metadata"], "annotations": {TRIAL: "true"}}} for one in CASES[case]))
    for node in net.nodes:
        run([*netns.prefix(f"pol-{node}"), "nft", "flush", "set", "inet", TABLE, trial_set(4)], timeout=20)
    assert net.flows("TCP") == without
    known = Policies([parse_policy(one) for one in around], [parse_cluster_policy(one) for one in net.cluster.tiers.values()])
    noted: set[tuple[str, str, int]] = set()
    for node, made in net.nodes.items():
        with netns.inside(f"pol-{node}"):
            flows = noted_flows()
        pods = made.index._pods  # pyright: ignore[reportPrivateUsage]
        noted |= {(one.source, one.destination, one.port) for one in entries(known, pods, noted={node: flows})}
    # one that the other end already drops is noted, too
    assert {pair for pair in noted if without[pair]} == lost


def test_the_kernel_takes_whatever_changes_come_in_a_row(net: World) -> None:
    dice = Dice(7)
    for _ in range(60):
        made = [dice.cluster_policy(f"p{number}") for number in range(dice.random.randint(0, 3))]
        net.tier(*made)
        if random.Random(len(made)).random() < 0.5:
            net.hear(*([CLOSED] if len(made) % 2 else []))
    assert net.flows("TCP") == net.expected("TCP")
    net.tier()
    assert "admin/" not in ruleset("n1")


def test_a_connection_that_a_tier_denies_ends_and_no_other(net: World) -> None:
    client, server = net.connect("red/b", "red/a", port=80)
    kept, kept_server = net.connect("blue/c", "red/a", port=80)
    net.tier(tier("p", ingress=[incoming("Deny", pods(pod="b"))]))
    client.sendall(b"after")
    with pytest.raises(TimeoutError):
        server.recv(10)
    kept.sendall(b"after")
    assert kept_server.recv(10) == b"after"
    for one in (client, server, kept, kept_server):
        one.close()
