"""The log of what policies denied: names, the policy that decides, and its limits."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from moyai.agent.policy.flows import NotedFlow
from moyai.agent.policy.verdict_log import VerdictLog
from moyai.kube.objects.cluster_policy import parse_cluster_policy
from moyai.kube.objects.policy import LOG, PolicyPod, parse_policy
from moyai.plan.network_policy import table_names as names
from moyai.plan.network_policy.index import PolicyIndex
from moyai.plan.network_policy.nft_commands import whole

WEB, CLIENT = "10.244.1.2", "10.244.1.3"


def index(*, log: str = "denied", tier: bool = False) -> PolicyIndex:
    made = PolicyIndex("n1")
    made.set_ranges(["10.244.1.0/24"])
    made.set_namespace("red", {})
    for name, address in (("web", WEB), ("client", CLIENT)):
        made.set_pod(f"red/{name}", PolicyPod("red", name, "n1", {"app": name}, (address,)))
    meta: dict[str, Any] = {"name": "guard", "namespace": "red", "annotations": {LOG: log}}
    if tier:
        everyone: dict[str, Any] = {"namespaces": {}}
        rule = {"name": "shut", "action": "Deny", "from": [everyone]}
        spec = {"tier": "Admin", "priority": 1, "subject": everyone, "ingress": [rule]}
        made.set_cluster_policy("guard", parse_cluster_policy({"metadata": meta, "spec": spec}))
    else:
        web = {"matchLabels": {"app": "web"}}
        made.set_policy("red/guard", parse_policy({"metadata": meta, "spec": {"podSelector": web}}))
    return made


def flow(port: int = 80, *, seconds: int = 1) -> NotedFlow:
    return NotedFlow(CLIENT, WEB, "tcp", port, seconds)


def test_a_denial_names_both_pods_and_the_policy(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    VerdictLog(index()).log([flow(), NotedFlow("192.0.2.1", WEB, "udp", 53, 0)], now=0)
    VerdictLog(index(tier=True)).log([flow()], now=0)
    assert [one.getMessage() for one in caplog.records] == [
        f"denied: red/client ({CLIENT}) to red/web ({WEB}) port 80/tcp: no policy permits it (red/guard)",
        f"denied: 192.0.2.1 to red/web ({WEB}) port 53/udp: no policy permits it (red/guard)",
        f"denied: red/client ({CLIENT}) to red/web ({WEB}) port 80/tcp: rule shut of guard denies it",
    ]


def test_a_flow_that_goes_on_has_a_line_a_minute_and_a_quiet_one_none(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    log = VerdictLog(index())
    for moment in range(0, 120, 10):
        log.log([flow(), flow(81, seconds=30)], now=float(moment))
    assert len(caplog.records) == 2


def test_a_look_has_so_many_lines_and_counts_the_others(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    VerdictLog(index()).log([flow(port) for port in range(1, 101)], now=0)
    assert len(caplog.records) == 51
    assert caplog.records[-1].getMessage() == "denied: 50 more flows"


@pytest.mark.parametrize("tier", [False, True])
def test_the_kernel_notes_denials_only_where_a_policy_wants_a_log(tier: bool) -> None:
    for log, wanted in (("denied", True), ("", False)):
        made = index(log=log, tier=tier)
        assert VerdictLog(made).wanted is wanted
        rules = [one for rules in made.table.chains.values() for one in rules if one.note]
        assert {one.note for one in rules} == ({names.denied(4), names.denied(6)} if wanted else set())
        assert ("update" in str(whole(made.table.everything()))) is wanted


def test_the_annotation_that_comes_or_goes_changes_the_table() -> None:
    made = index(log="")
    made.table.take()
    meta: dict[str, Any] = {"name": "guard", "namespace": "red", "annotations": {LOG: "denied"}}
    spec = {"podSelector": {"matchLabels": {"app": "web"}}}
    made.set_policy("red/guard", parse_policy({"metadata": meta, "spec": spec}))
    assert any(one.note for rules in made.table.take().chains.values() for one in rules)
