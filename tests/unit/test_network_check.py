"""`moyai net check`: what the probes found becomes failures; probes are pods that leave nothing behind."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from moyai.core.errors import MoyaiError, NotFound, Retriable, Terminal
from moyai.diagnose.network import probe_pods as probing
from moyai.diagnose.network.check import report
from moyai.diagnose.network.probe_pods import HOLDER, LABEL, ProbePods, leftovers, probe_pod
from moyai.kube.objects.meta import part, rows
from moyai.kube.resources import DEPLOYMENTS, NAMESPACES, PODS, Json, Resource
from tests.fakes.clock import FakeClock
from tests.fakes.kubernetes import QuickKubernetes
from tests.fakes.object_store import ObjectStore

NODES = ("a", "b", "c")
NOW = datetime(2026, 1, 2, tzinfo=UTC)


def answers(**changes: Any) -> dict[str, Json]:
    """Of three nodes between which everything works."""
    found: dict[str, Json] = {
        node: {
            "mtu": 1400,
            "pods": dict.fromkeys(NODES, ""),
            "services": dict.fromkeys(NODES, ""),
            "sizes": {other: {"passes": 1400, "over": ""} for other in NODES},
            "names": "",
        }
        for node in NODES
    }
    for path, value in changes.items():
        node, key, *rest = path.split("_")
        if rest:
            found[node][key][rest[0]] = value
        else:
            found[node][key] = value
    return found


def failures(found: Mapping[str, Json], missing: Mapping[str, str] | None = None) -> list[str]:
    return [one.text for one in report(NODES, found, missing=missing or {}).failures]


def test_nodes_between_which_everything_works_have_no_failure() -> None:
    found = report(NODES, answers(), missing={})
    assert (found.failures, found.tried) == ((), {"pods": 6, "services": 9, "sizes": 6, "paths": 6, "names": 3})
    assert found.data()["ok"] is True


def test_the_paths_between_nodes_are_held_against_their_links() -> None:
    measured: dict[str, Json] = {
        one: {"link": 1450, "paths": {other: 1450 for other in NODES if other != one}} for one in NODES
    }
    measured["a"]["paths"]["b"], measured["c"]["paths"]["b"] = 1400, 0
    found = report(NODES, answers(), missing={}, measured=measured)
    assert [one.text for one in found.failures] == [
        "node to node: a → b: packets of 1400 bytes pass at most, the link says 1450; the network between them carries less "
        "than their links say: set the network's MTU in the cloud",
        "node to node: c → b: no answer to ICMP; do the security groups let nodes ask each other?",
    ]
    assert found.working["paths"] == 4
    assert found.data()["paths"]["a"] == {"b": 1400, "c": 1450}
    assert found.links == dict.fromkeys(NODES, 1450)


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({"a_pods_b": "no answer"}, ["pod to pod: a → b: no answer; the other direction works"]),
        ({"a_pods_b": "no answer", "b_pods_a": "no answer"}, ["pod to pod: a → b: no answer", "pod to pod: b → a: no answer"]),
        (
            {"a_services_b": "no answer"},
            ["pod to Service: a → b: no answer; the pod itself is reached: does kube-proxy on a know the Service?"],
        ),
        (
            {"a_services_a": "x", "a_services_b": "x", "a_services_c": "x"},
            [f"pod to Service: a → {one}: x; does kube-proxy run on a?" for one in NODES],
        ),
        (
            {"a_sizes_b": {"passes": 1350, "over": ""}},
            [
                "full-size packets: a → b: packets of 1350 bytes pass at most, pods of a send 1400; "
                "the way between the nodes carries less than pods think"
            ],
        ),
        (
            {"b_mtu": 1350, "a_sizes_b": {"passes": 1350, "over": ""}},
            [
                "full-size packets: a → b: packets of 1350 bytes pass at most, pods of a send 1400; "
                "pods of b have an MTU of 1350"
            ],
        ),
        (
            {"a_sizes_c": {"passes": 0, "over": ""}},
            ["full-size packets: a → c: no UDP packet comes back, TCP does; does something between the nodes drop UDP?"],
        ),
        (
            {"a_sizes_c": {"passes": 1400, "over": "1401 bytes were taken"}},
            ["full-size packets: a → c: a packet that is too large is not refused: 1401 bytes were taken"],
        ),
        ({"c_names": "no answer"}, ["DNS: c: no answer"]),
    ],
)
def test_each_way_that_fails_is_one_line(changes: dict[str, Any], lines: list[str]) -> None:
    assert failures(answers(**changes)) == lines


def test_a_node_without_a_probe_is_a_failure_and_its_ways_are_untried() -> None:
    found = answers()
    del found["c"]
    made = report(NODES, found, missing={"c": "the node is not Ready"})
    assert [one.text for one in made.failures] == ["probe: c: not checked: the node is not Ready"]
    # no path was measured here
    assert [made.working[one] for one in made.tried] == [2, 4, 2, 0, 2]


def test_a_probe_that_ends_before_its_answer_leaves_the_counts_true() -> None:
    found = answers(a_pods_b="no answer", a_pods_c="no answer")
    del found["b"]
    made = report(NODES, found, missing={"b": "the exec broke off"})
    assert [made.working[one] for one in made.tried] == [1, 4, 1, 0, 2]


def test_no_size_passes_between_pods_that_do_not_reach_each_other() -> None:
    made = report(NODES, answers(a_pods_b="no answer"), missing={})
    assert [made.working[one] for one in made.tried] == [5, 9, 5, 0, 3]


class Cluster(QuickKubernetes):
    """Pods run at once, but those of the nodes in ``held``. ``refused``: what is answered to the creation of a pod."""

    def __init__(self) -> None:
        super().__init__(ObjectStore())
        container = {"name": "m", "image": "moyai:1"}
        meta = {"name": "moyai-cloud-controller-manager", "namespace": "kube-system"}
        self.store.put(DEPLOYMENTS, {"metadata": meta, "spec": {"template": {"spec": {"containers": [container]}}}})
        self.held: set[str] = set()
        self.refused: MoyaiError | None = None
        self.printed = "{}"
        self.ran: list[tuple[str, Sequence[str]]] = []

    def create(
        self, resource: Resource, body: Mapping[str, Any], *, namespace: str | None = None, timeout: float | None = None
    ) -> Json:
        if resource is PODS:
            if self.refused:
                raise self.refused
            if body["spec"]["nodeName"] not in self.held:
                body = {**body, "status": {"phase": "Running", "podIP": "10.244.0.9"}}
        return super().create(resource, body, namespace=namespace, timeout=timeout)

    def execute(self, namespace: str, pod: str, *, command: Sequence[str], timeout: float, given: bytes = b"") -> str:
        self.ran.append((pod, command))
        return self.printed

    def probes(self) -> list[str]:
        return [one["metadata"]["name"] for one in self.store.all(NAMESPACES)]


def test_probes_run_where_they_can_and_go_with_their_namespace() -> None:
    api = Cluster()
    api.held = {"b"}
    with ProbePods(api, clock=FakeClock()) as probes:
        assert probes.start("pod", ["a", "b"]) == {"a": "10.244.0.9"}
        assert probes.missing == {"b": "its kubelet does not start the probe"}
        assert probes.run("pod", "a", program="pod_probe.py", words=["x"]) == {}
        api.printed = "Killed"
        with pytest.raises(Terminal, match="the probe on a printed no JSON but 'Killed'"):
            probes.run("pod", "a", program="pod_probe.py", words=["x"])
        assert api.ran[:1] == [("pod-a", ["python3", "/opt/moyai-probe/pod_probe.py", "x"])]
        (namespace,) = api.store.all(NAMESPACES)
        assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "privileged"
        assert leftovers([namespace], now=NOW) == []
    assert api.probes() == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Terminal("no")])
def test_an_interrupted_check_leaves_no_namespace(error: BaseException) -> None:
    api = Cluster()
    with pytest.raises(type(error)), ProbePods(api, clock=FakeClock()):
        raise error
    assert api.probes() == []


def test_a_start_that_fails_half_way_leaves_no_namespace() -> None:
    api = Cluster()

    def failing(name: str, _after: bool) -> None:
        if name == "create configmaps":
            raise Retriable("the API does not answer")

    api.store.on_call = failing
    with pytest.raises(Retriable), ProbePods(api, clock=FakeClock()):
        pass
    assert api.probes() == []


def test_a_refused_pod_is_a_fact_of_its_node() -> None:
    api = Cluster()
    api.refused = Terminal("violates PodSecurity")
    with ProbePods(api, clock=FakeClock()) as probes:
        assert probes.start("host", ["a"]) == {}
        assert probes.missing == {"a": "violates PodSecurity"}


def test_a_cluster_without_controllers_has_no_image_for_probes() -> None:
    api = Cluster()
    api.delete(DEPLOYMENTS, "moyai-cloud-controller-manager", namespace="kube-system")
    with pytest.raises(NotFound), ProbePods(api, clock=FakeClock()):
        pass


def namespace(name: str, *, age: timedelta = timedelta(0), holder: str = "", **meta: Any) -> Json:
    created = (NOW - age).isoformat()
    return {
        "metadata": {
            "name": name,
            "creationTimestamp": created,
            "labels": {LABEL: "true"},
            "annotations": {HOLDER: holder},
            **meta,
        }
    }


def test_only_what_nobody_holds_is_left_over() -> None:
    with ProbePods(Cluster(), clock=FakeClock()) as probes:
        mine = part(probes._api.list(NAMESPACES)[0], "metadata", "annotations")[HOLDER]  # pyright: ignore[reportPrivateUsage]
    here, _, _ = str(mine).rpartition(" ")
    old = timedelta(hours=1)
    found = [
        namespace("held", holder=mine),
        namespace("dead", holder=f"{here} {os.getpid()}/1"),
        namespace("elsewhere", holder="boot pid:[1] 1/1"),
        namespace("old", age=old, holder="boot pid:[1] 1/1"),
        namespace("going", age=old, deletionTimestamp="2026-01-01T00:00:00Z"),
        namespace("others", age=old, labels={"team": "x"}),
    ]
    assert leftovers(found, now=NOW) == ["dead", "old"]


def test_a_new_run_removes_what_a_killed_one_left() -> None:
    api = Cluster()
    api.store.put(NAMESPACES, namespace("moyai-probe-old", age=timedelta(days=9000)))
    with ProbePods(api, clock=FakeClock()) as probes:
        assert api.probes() == [probes.namespace]


def test_a_pod_probe_is_as_restricted_as_pod_security_knows_it() -> None:
    spec = probe_pod("pod", "a.b", image="i")["spec"]
    (container,) = rows(spec, "containers")
    assert spec["hostNetwork"] is False
    assert spec["securityContext"] == {
        "seccompProfile": {"type": "RuntimeDefault"},
        "runAsNonRoot": True,
        "runAsUser": 65534,
        "runAsGroup": 65534,
    }
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert {next(iter(set(one) - {"name"})) for one in rows(spec, "volumes")} == {"configMap"}
    assert spec["automountServiceAccountToken"] is False
    assert json.dumps(spec)


def test_probes_end_by_themselves() -> None:
    assert probe_pod("host", "a", image="i")["spec"]["activeDeadlineSeconds"] == probing.LIFE.total_seconds()
