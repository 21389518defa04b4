"""`moyai policy audit`: what the kernels of nodes noted, in the words of policies and pods."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from moyai.agent.policy.flows import NotedFlow, parse_flows
from moyai.cli.policy import policy as command
from moyai.core.errors import Terminal
from moyai.core.progress import Reporter
from moyai.diagnose.network import command_audit
from moyai.kube.objects.cluster_policy import ClusterPolicy, parse_cluster_policy
from moyai.kube.objects.policy import TRIAL, PolicyPod, parse_policy
from moyai.kube.resources import CLUSTER_NETWORK_POLICIES, NAMESPACES, NETWORK_POLICIES, PODS
from moyai.plan.network_policy.evaluation import Policies
from moyai.plan.network_policy.pod_index import PodIndex
from tests.fakes.kubernetes import QuickKubernetes
from tests.fakes.object_store import ObjectStore

Json = dict[str, Any]
WEB, CLIENT, FAR = "10.244.1.2", "10.244.1.3", "10.244.2.2"


def policy(name: str, *, trial: bool = True, **spec: Any) -> Json:
    annotations = {TRIAL: "true"} if trial else {}
    return {"metadata": {"name": name, "namespace": "red", "annotations": annotations}, "spec": {"podSelector": {}, **spec}}


def pod(name: str, address: str, *, node: str = "n1", namespace: str = "red", **labels: str) -> Json:
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": labels or {"app": name}},
        "spec": {"nodeName": node},
        "status": {"podIP": address, "phase": "Running"},
    }


def test_the_kernels_answer_is_read_and_what_is_no_flow_is_left_out() -> None:
    value = {"concat": [CLIENT, WEB, "tcp", 80]}
    elements = [{"elem": {"val": value, "expires": 3590}}, {"elem": {"val": {"concat": [CLIENT]}}}, "x"]
    assert list(parse_flows({"set": {"name": "trial-4", "elem": elements}})) == [NotedFlow(CLIENT, WEB, "tcp", 80, 10)]
    # as nftables writes them where there is no /etc/protocols
    numbers = [{"elem": {"val": {"concat": [CLIENT, WEB, said, 53]}}} for said in (6, "17", 132, "tcp")]
    assert [one.protocol for one in parse_flows({"set": {"elem": numbers}})] == ["tcp", "udp", "sctp", "tcp"]
    assert not list(parse_flows({"set": {"name": "trial-4"}}))
    assert not list(parse_flows({"metainfo": {}}))


def index() -> PodIndex:
    made = PodIndex()
    made.namespaces["red"] = {}
    for name, address, node in (("web", WEB, "n1"), ("client", CLIENT, "n1"), ("far", FAR, "n2")):
        made.change(f"red/{name}", PolicyPod("red", name, node, {"app": name}, (address,)))
    return made


def test_a_flow_is_named_by_the_policies_that_would_drop_it_on_the_node_that_noted_it() -> None:
    rule = {"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}
    known = [parse_policy(policy("in", ingress=[rule])), parse_policy(policy("out", policyTypes=["Egress"]))]
    flows = [NotedFlow(FAR, WEB, "tcp", 80, 7), NotedFlow("192.0.2.1", WEB, "udp", 53, 2), NotedFlow(CLIENT, WEB, "tcp", 80, 1)]
    found = command_audit.entries(Policies(known), index(), noted={"n1": flows, "n2": flows[:1]})
    said = [(one.node, one.policies, one.direction, one.source, one.destination, one.seconds) for one in found]
    assert said == [
        ("n1", ("red/out",), "egress", "red/client", "red/web", 1),
        ("n1", ("red/in",), "ingress", "192.0.2.1", "red/web", 2),
        ("n1", ("red/in",), "ingress", "red/far", "red/web", 7),
        ("n2", ("red/out",), "egress", "red/far", "red/web", 7),
    ]


def test_what_the_policies_of_now_permit_or_decide_is_left_out() -> None:
    flow = {"n1": [NotedFlow(FAR, WEB, "tcp", 80, 7)]}
    assert not command_audit.entries(Policies([parse_policy(policy("open", ingress=[{}]))]), index(), noted=flow)
    # one that is no trial decides already
    both = [parse_policy(policy("p", policyTypes=["Ingress"], trial=on)) for on in (True, False)]
    assert not command_audit.entries(Policies(both), index(), noted=flow)
    assert command_audit.entries(Policies(both[:1]), index(), noted=flow)


def tier(name: str, action: str, *, kind: str = "Admin", trial: bool = True, priority: int = 10) -> ClusterPolicy:
    annotations = {TRIAL: "true"} if trial else {}
    rules: list[dict[str, Any]] = [{"action": action, "from": [{"namespaces": {}}]}]
    return parse_cluster_policy(
        {
            "metadata": {"name": name, "annotations": annotations},
            "spec": {"tier": kind, "priority": priority, "subject": {"namespaces": {}}, "ingress": rules},
        }
    )


@pytest.mark.parametrize(
    ("tiers", "namespaced", "dropping"),
    [
        ([tier("t", "Deny")], [], "t"),
        ([tier("t", "Deny", kind="Baseline")], [], "t"),
        ([tier("t", "Accept")], [], ""),
        # what is enforced decides before, or drops it already
        ([tier("t", "Deny"), tier("first", "Accept", trial=False, priority=1)], [], ""),
        ([tier("t", "Deny", priority=1), tier("last", "Accept", trial=False)], [], "t"),
        ([tier("t", "Deny", priority=1), tier("last", "Deny", trial=False)], [], ""),
        # one on trial that accepts or passes is the first that is about the packet
        ([tier("a", "Accept", priority=1), tier("t", "Deny")], [], ""),
        ([tier("p", "Pass", priority=1), tier("t", "Deny"), tier("b", "Deny", kind="Baseline")], [], "b"),
        # a policy of the namespace that permits: the baseline is not asked
        ([tier("t", "Deny", kind="Baseline")], [policy("in", ingress=[{}], trial=False)], ""),
        ([tier("t", "Deny")], [policy("in", ingress=[{}], trial=False)], "t"),
        ([tier("t", "Deny")], [policy("in", policyTypes=["Ingress"], trial=False)], ""),
    ],
)
def test_one_of_the_clusters_tiers_on_trial_is_named_where_it_would_change_the_decision(
    tiers: list[ClusterPolicy], namespaced: list[Json], dropping: str
) -> None:
    known = Policies([parse_policy(one) for one in namespaced], tiers)
    found = command_audit.entries(known, index(), noted={"n1": [NotedFlow(FAR, WEB, "tcp", 80, 7)]})
    assert [one.policies for one in found] == ([(dropping,)] if dropping else [])


class Api(QuickKubernetes):
    """``printed``: pod → what the program in it prints; an error where it fails."""

    def __init__(self, store: ObjectStore, printed: dict[str, str]) -> None:
        super().__init__(store)
        self._printed = printed

    def execute(self, namespace: str, pod: str, *, command: Sequence[str], timeout: float, given: bytes = b"") -> str:
        assert (namespace, [*command]) == ("kube-system", ["moyai", "agent-flows"])
        if pod not in self._printed:
            raise Terminal(f"a program in pod {namespace}/{pod} failed: No such command 'agent-flows'.")
        return self._printed[pod]


def test_the_command_lists_flows_and_the_nodes_that_cannot_be_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    store = ObjectStore()
    store.put(NAMESPACES, {"metadata": {"name": "red"}})
    store.put(NETWORK_POLICIES, policy("in", policyTypes=["Ingress"]))
    about = {"name": "closed", "annotations": {TRIAL: "true"}}
    store.put(CLUSTER_NETWORK_POLICIES, {"metadata": about, "spec": {"tier": "Admin", "subject": {"namespaces": {}}}})
    store.put(PODS, pod("web", WEB))
    for number in (1, 2):
        label = {"app.kubernetes.io/name": "moyai-agent"}
        store.put(PODS, pod(f"agent-{number}", f"10.8.0.{number}", node=f"n{number}", namespace="kube-system", **label))
    printed = json.dumps([{"source": FAR, "destination": WEB, "protocol": "tcp", "port": 80, "seconds": 3}])
    api = Api(store, {"agent-1": printed})

    class Known:
        name = "demo"

    def require(_record: object) -> Api:
        return api

    def recorded(_name: str | None) -> type[Known]:
        return Known

    monkeypatch.setattr(command_audit, "require_api", require)
    monkeypatch.setattr("moyai.cli.cluster.recorded", recorded)
    found = command_audit.audit(Known, reporter=Reporter())  # type: ignore[arg-type]
    assert found.trials == ("closed", "red/in")
    assert [(one.source, one.destination, one.node) for one in found.entries] == [(FAR, "red/web", "n1")]
    assert list(found.unread) == ["n2"]
    done = CliRunner().invoke(command, ["audit"])
    assert done.exit_code == 1
    assert "on trial: closed, red/in" in done.output
    assert "red/web 80/tcp" in done.output
    assert "! n2 could not be asked: a program in pod kube-system/agent-2 failed: No such command" in done.output
