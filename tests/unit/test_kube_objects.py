"""Objects of the API as their users need them; what is missing or odd reads as empty."""

from __future__ import annotations

from typing import Any

import pytest

from moyai.kube.objects import (
    UNINITIALIZED,
    Container,
    parse_attachment,
    parse_claim,
    parse_csi_node,
    parse_daemon_set,
    parse_deployment,
    parse_event,
    parse_node,
    parse_pod,
    parse_service,
    parse_storage_class,
    parse_volume,
)
from moyai.kube.objects.event import by_object
from moyai.kube.objects.meta import part, rows, text, texts
from moyai.kube.objects.scheduling import Capacity, parse_allocatable
from moyai.kube.resources import Json


def test_a_field_of_another_type_reads_as_empty() -> None:
    odd: Json = {"a": None, "b": [1, {"c": 2}], "d": "x", "e": 0}
    assert part(odd, "a", "b") == {}
    assert part(odd, "d") == {}
    assert rows(odd, "b") == [{"c": 2}]
    assert rows(odd, "d") == []
    assert (text(odd, "a"), text(odd, "e")) == ("", "0")
    assert texts(odd, "d") == ()


def test_a_node_is_uninitialized_by_its_taint_alone() -> None:
    spec: Json = {"taints": [{"key": UNINITIALIZED, "effect": "NoSchedule", "value": "true"}], "unschedulable": True}
    status = {"nodeInfo": {"kubeletVersion": "v1.37.1"}}
    found = parse_node({"metadata": {"name": "n"}, "spec": spec, "status": status})
    assert (found.uninitialized, found.cordoned, found.kubelet) == (True, True, "v1.37.1")
    assert not parse_node({"metadata": {"name": "n"}}).uninitialized


def test_what_a_node_has_to_give_is_in_cores_and_bytes() -> None:
    node: Json = {"status": {"allocatable": {"cpu": "1930m", "memory": "2Gi", "pods": "110"}}}
    assert parse_allocatable(node) == Capacity(1.93, 2 << 30, 110)
    assert parse_allocatable({}) == Capacity()


@pytest.mark.parametrize(
    ("spec", "status", "generation", "done"),
    [
        ({}, {"updatedReplicas": 1, "availableReplicas": 1}, None, True),
        ({"replicas": 2}, {"updatedReplicas": 2, "availableReplicas": 1}, None, False),
        ({"replicas": 0}, {}, None, True),
        ({}, {"updatedReplicas": 1, "availableReplicas": 1, "observedGeneration": 1}, 2, False),
        ({}, {}, None, False),
    ],
)
def test_a_deployment_is_done_when_its_newest_version_has_all_its_pods(
    spec: Json, status: Json, generation: int | None, done: bool
) -> None:
    meta: Json = {"name": "d", "generation": generation}
    assert parse_deployment({"metadata": meta, "spec": spec, "status": status}).done is done


@pytest.mark.parametrize(
    ("status", "done"),
    [
        ({}, False),
        ({"numberReady": 0, "desiredNumberScheduled": 0}, False),
        ({"numberReady": 2, "updatedNumberScheduled": 3, "desiredNumberScheduled": 3}, False),
        ({"numberReady": 3, "updatedNumberScheduled": 2, "desiredNumberScheduled": 3}, False),
        ({"numberReady": 3, "updatedNumberScheduled": 3, "desiredNumberScheduled": 3}, True),
    ],
)
def test_a_daemon_set_is_done_when_it_runs_wherever_it_should_and_somewhere(status: Json, done: bool) -> None:
    assert parse_daemon_set({"metadata": {"name": "d"}, "status": status}).done is done


def test_a_pod_knows_its_owners_claims_and_containers() -> None:
    found = parse_pod(
        {
            "metadata": {"name": "db-0", "namespace": "shop", "ownerReferences": [{"kind": "StatefulSet", "name": "db"}]},
            "spec": {
                "nodeName": "w-0",
                "containers": [{"name": "db", "image": "db:1"}],
                "volumes": [
                    {"name": "a", "persistentVolumeClaim": {"claimName": "data"}},
                    {"name": "b", "ephemeral": {}},
                    {"name": "c", "emptyDir": {}},
                ],
            },
            "status": {"phase": "Succeeded", "containerStatuses": [{"name": "db", "state": {"waiting": {"reason": "Odd"}}}]},
        }
    )
    assert (found.key, found.node, found.owners, found.finished) == ("shop/db-0", "w-0", ("StatefulSet",), True)
    assert found.claims == ("data", "db-0-b")
    assert found.containers == (Container("db", "db:1", waiting="Odd"),)
    assert found.containers[0].held


@pytest.mark.parametrize(("status", "words"), [("False", "no node fits"), ("True", "")])
def test_the_scheduler_speaks_only_while_the_pod_has_no_node(status: str, words: str) -> None:
    said = {"type": "PodScheduled", "status": status, "message": "no node fits"}
    assert parse_pod({"metadata": {"name": "p"}, "status": {"conditions": [said]}}).scheduler == words


@pytest.mark.parametrize(("reason", "held"), [("ContainerCreating", False), ("PodInitializing", False), ("ErrImagePull", True)])
def test_a_container_that_only_starts_is_not_held(reason: str, held: bool) -> None:
    assert Container("c", waiting=reason).held is held
    assert Container("c", waiting=reason).starting is not held


def test_a_volume_of_another_driver_has_no_handle_and_a_free_one_no_claim() -> None:
    found = parse_volume({"metadata": {"name": "v"}, "spec": {"nfs": {"server": "x"}}})
    assert (found.driver, found.handle, found.claim, found.terms) == ("", "", None, ())
    ref = {"namespace": "n", "name": "c"}
    bound = parse_volume({"metadata": {"name": "v"}, "spec": {"claimRef": ref, "csi": {"driver": "d", "volumeHandle": "h"}}})
    assert (bound.driver, bound.handle, bound.claim) == ("d", "h", ("n", "c"))


@pytest.mark.parametrize(
    ("modes", "exclusive"), [([], True), (["ReadWriteOnce"], True), (["ReadWriteOnce", "ReadOnlyMany"], False), (None, True)]
)
def test_a_claim_is_exclusive_unless_several_nodes_may_have_it(modes: Any, exclusive: bool) -> None:
    assert parse_claim({"metadata": {"name": "c"}, "spec": {"accessModes": modes}}).exclusive is exclusive


def test_an_attachment_names_its_last_failure() -> None:
    status = {"attached": False, "detachError": {"message": "busy"}}
    meta = {"name": "va", "deletionTimestamp": "2026-01-01T00:00:00Z"}
    spec: Json = {"nodeName": "w-0", "attacher": "d", "source": {"persistentVolumeName": "v"}}
    found = parse_attachment({"metadata": meta, "spec": spec, "status": status})
    assert (found.volume, found.node, found.attacher, found.error, found.deleting) == ("v", "w-0", "d", "busy", True)


def test_a_driver_without_a_count_has_no_limit() -> None:
    drivers = [{"name": "a", "allocatable": {"count": 25}}, {"name": "b"}]
    assert parse_csi_node({"metadata": {"name": "n"}, "spec": {"drivers": drivers}}).limits == {"a": 25, "b": -1}


def test_a_class_is_the_default_by_its_annotation() -> None:
    notes = {"storageclass.kubernetes.io/is-default-class": "true"}
    found = parse_storage_class({"metadata": {"name": "s", "annotations": notes}, "volumeBindingMode": "Immediate"})
    assert (found.default, found.waits) == (True, False)


def test_a_service_says_where_it_answers() -> None:
    spec: Json = {"type": "LoadBalancer", "ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}]}
    status = {"loadBalancer": {"ingress": [{"hostname": "a.example"}]}}
    found = parse_service({"metadata": {"name": "web", "namespace": "n"}, "spec": spec, "status": status})
    assert (found.balanced, found.address, found.tcp_ports) == (True, "a.example", (80,))
    bare = parse_service({"metadata": {"name": "web", "namespace": "n"}})
    assert (bare.balanced, bare.address, bare.tcp_ports) == (False, "", ())


def test_events_are_by_object_in_the_order_of_their_last_time() -> None:
    late: Json = {
        "involvedObject": {"uid": "a"},
        "reason": "Late",
        "series": {"lastObservedTime": "2026-01-03"},
        "eventTime": "2025",
    }
    early: Json = {"involvedObject": {"uid": "a"}, "reason": "Early", "lastTimestamp": "2026-01-02"}
    other: Json = {"involvedObject": {"uid": "b"}, "reason": "Other", "metadata": {"creationTimestamp": "2026-01-01"}}
    found = by_object([late, early, other])
    assert [one.reason for one in found["a"]] == ["Early", "Late"]
    assert found["b"][0].time == "2026-01-01"
    assert parse_event({}).time == ""


def test_a_daemon_set_whose_pods_are_held_runs_while_they_have_an_older_version() -> None:
    counts = {"desiredNumberScheduled": 3, "numberReady": 3, "updatedNumberScheduled": 1}
    for strategy, done in (("RollingUpdate", False), ("OnDelete", True)):
        found = {"metadata": {"name": "d"}, "spec": {"updateStrategy": {"type": strategy}}, "status": counts}
        assert parse_daemon_set(found).done is done
    waits = {**counts, "numberReady": 2}
    found = {"metadata": {"name": "d"}, "spec": {"updateStrategy": {"type": "OnDelete"}}, "status": waits}
    assert not parse_daemon_set(found).done
