"""`moyai explain`: what is read of the API, and what a wrong question is answered."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from moyai.cli.main import run
from moyai.cloud.capabilities import Cloud
from moyai.cloud.memory.machines import powered
from moyai.cloud.model import DiskState, Server, Volume
from moyai.core.errors import Retriable, UsageError
from moyai.diagnose.gather import gather
from moyai.diagnose.pod_facts import Facts
from moyai.diagnose.pods import explain
from moyai.kube.objects import scheduling
from moyai.kube.quick import KubeApi
from moyai.kube.resources import (
    CLAIMS,
    CSI_NODES,
    EVENTS,
    NODES,
    PODS,
    STORAGE_CLASSES,
    VOLUME_ATTACHMENTS,
    VOLUMES,
    Json,
)
from moyai.spec.load import validate
from tests.fakes.cloud import memory
from tests.fakes.kubernetes import QuickKubernetes
from tests.fakes.object_store import ObjectStore

ZONE = "topology.cinder.csi.openstack.org/zone"
DRIVER = "cinder.csi.openstack.org"
SPEC = validate({"metadata": {"name": "q"}, "spec": {"nodePools": [{"replicas": 1}]}}, source="test").spec


def node(name: str, zone: str) -> Json:
    return {
        "metadata": {"name": name, "labels": {ZONE: zone, "topology.kubernetes.io/zone": zone, "kubernetes.io/hostname": name}},
        "spec": {},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "allocatable": {"cpu": "2", "memory": "2Gi", "pods": "110"},
        },
    }


def pod(name: str, **spec: Any) -> Json:
    container = {"name": "db", "image": "db:1", "resources": {"requests": {"cpu": "500m", "memory": "64Mi"}}}
    plain = {"containers": [container], "volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]}
    meta = {"name": name, "namespace": "shop", "uid": f"uid-{name}"}
    return {"metadata": meta, "spec": {**plain, **spec}, "status": {"phase": "Pending"}}


def world(**spec: Any) -> QuickKubernetes:
    volume = {
        "metadata": {"name": "pvc-1"},
        "spec": {
            "csi": {"driver": DRIVER},
            "nodeAffinity": {
                "required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": ZONE, "operator": "In", "values": ["az1"]}]}]}
            },
        },
    }
    claim = {
        "metadata": {"name": "data", "namespace": "shop", "uid": "c1"},
        "spec": {"volumeName": "pvc-1", "storageClassName": "csi-cinder", "accessModes": ["ReadWriteOnce"]},
        "status": {"phase": "Bound"},
    }
    storage = {
        "metadata": {"name": "csi-cinder", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": DRIVER,
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    attachment = {
        "metadata": {"name": "va"},
        "spec": {"nodeName": "w-2", "attacher": DRIVER, "source": {"persistentVolumeName": "pvc-1"}},
        "status": {"attached": True},
    }
    events: list[Json] = [
        {"type": "Warning", "reason": "Later", "message": "b", "lastTimestamp": "2026-01-02T00:00:00Z"},
        {"type": "Normal", "reason": "First", "message": "a", "eventTime": "2026-01-01T00:00:00.5Z"},
        {"type": "Warning", "reason": "OfAnotherPod", "message": "c", "lastTimestamp": "2026-01-02T00:00:00Z"},
    ]
    db = pod("db-0", **spec)
    drivers = [{"name": DRIVER, "nodeID": "x", "allocatable": {"count": 25}}]
    made = QuickKubernetes(ObjectStore())
    for body in (db, pod("busy", nodeName="w-2")):
        made.store.put(PODS, body)
    for number, event in enumerate(events):
        about = {"kind": "Pod", "uid": "uid-busy" if event["reason"] == "OfAnotherPod" else "uid-db-0"}
        made.store.put(EVENTS, {**event, "metadata": {"name": f"e-{number}", "namespace": "shop"}, "involvedObject": about})
    made.store.put(CLAIMS, claim)
    made.store.put(VOLUMES, volume)
    made.store.put(NODES, node("w-2", "az2"))
    made.store.put(STORAGE_CLASSES, storage)
    made.store.put(VOLUME_ATTACHMENTS, attachment)
    made.store.put(CSI_NODES, {"metadata": {"name": "w-2"}, "spec": {"drivers": drivers}})
    return made


def cloud(disk: Volume | None = None) -> Callable[[], Cloud]:
    """A cloud with two zones and one disk, or none. Its only machine is called ``by-hand``."""
    made = memory()
    made.store.servers.put(powered(Server("7f3a", "by-hand", "", "az1", "m1"), on=True))
    if disk is not None:
        made.store.volumes.put(disk)
    return lambda: made


EMPTY = cloud()


def read(
    api: QuickKubernetes, name: str = "db-0", *, cloud: Callable[[], Cloud] = EMPTY, wanted: Mapping[str, str] | None = None
) -> Facts:
    return gather(cast("KubeApi", api), name, spec=SPEC, namespace="shop", cloud=cloud, wanted=wanted)


def test_what_the_api_has_becomes_the_sentence() -> None:
    facts = read(world())
    assert facts.requirements.cpu == pytest.approx(0.5)
    assert facts.nodes[0].cpu == pytest.approx(1.5)
    assert (facts.nodes[0].pods, facts.nodes[0].limits, facts.nodes[0].attached) == (109, {DRIVER: 25}, {DRIVER: 1})
    assert facts.disks[0].at == {"w-2"}
    assert facts.default_class == "csi-cinder"
    assert [one.reason for one in facts.events] == ["First", "Later"]
    found = explain(facts)
    assert found.cause == "zone"
    assert "(volume pvc-1) is in zone az1, where the cluster has no node; w-2 (az2) cannot reach it." in found.summary
    assert "of pool workers from 1 to 3 in the spec, for a node in az1 (its nodes take turns in az1, az2)" in found.help[0]


def test_a_cloud_that_does_not_answer_makes_the_advice_vaguer_not_the_answer_fail() -> None:
    def down() -> Cloud:
        raise Retriable("no answer")

    facts = read(world(), cloud=down)
    assert "until a node comes up in az1" in explain(facts).help[0]


def unattached(**more: Any) -> QuickKubernetes:
    """The pod has a node, and its disk is not attached to it."""
    api = world(nodeName="w-1")
    api.store.find(VOLUMES, "pvc-1")["spec"]["csi"]["volumeHandle"] = "v-1"
    status = {"attached": False, **more}
    source = {"persistentVolumeName": "pvc-1"}
    attachment = {"metadata": {"name": "va"}, "spec": {"nodeName": "w-1", "attacher": DRIVER, "source": source}}
    api.store.put(VOLUME_ATTACHMENTS, {**attachment, "status": status})
    api.store.vanish(NODES, "w-2")
    api.store.put(NODES, node("w-1", "az1"))
    return api


REFUSED = {"attachError": {"message": "rpc error: code = FailedPrecondition desc = volume v-1 is attached to machine 7f3a"}}


def test_a_volume_that_was_deleted_in_the_cloud_does_not_come_by_itself() -> None:
    error = {"attachError": {"message": "rpc error: code = NotFound desc = volume v-1 or machine m is not there"}}
    found = explain(read(unattached(**error), cloud=cloud()))
    assert found.cause == "volume-gone"
    assert found.summary == (
        "Pod shop/db-0 is Pending: the disk of its claim data (volume pvc-1, v-1 in the cloud) does not exist any more: it was "
        "deleted in the cloud."
    )
    assert found.help == (
        "restore its content from a snapshot or a backup into a new claim, and let the pod use that",
        "`moyai kubectl -n shop delete pvc data` and create the claim again, for an empty disk",
    )


def test_a_disk_that_somebody_attached_elsewhere_names_the_machine() -> None:
    at = Volume("v-1", "pvc-1", "in-use", 1, attached_server_ids=("7f3a",), state=DiskState.IN_USE)
    found = explain(read(unattached(**REFUSED), cloud=cloud(at)))
    assert "is attached to machine by-hand, and not by Kubernetes" in found.summary
    assert found.help == ("detach volume v-1 from machine by-hand in the cloud: then it comes to w-1 by itself",)


def test_a_broken_disk_is_the_operators() -> None:
    broken = Volume("v-1", "pvc-1", "error", 1, state=DiskState.FAILED)
    found = explain(read(unattached(), cloud=cloud(broken)))
    assert "is in error in the cloud" in found.summary
    assert "the cloud's operator" in found.help[0]


@pytest.mark.parametrize(
    ("message", "help_"),
    [
        ("rpc error: code = Unavailable desc = the cloud does not answer", ("it is tried again by itself",)),
        ("rpc error: code = ResourceExhausted desc = machine w-1 has its 25 volumes already",
         ("end a pod on w-1 that has a disk: then this one comes by itself",)),
        ("rpc error: code = Internal desc = something odd", ()),
        ("something odd", ()),
    ],
)  # fmt: skip
def test_what_helps_follows_from_the_refusal_and_nothing_is_made_up(message: str, help_: tuple[str, ...]) -> None:
    def down() -> Cloud:
        raise Retriable("no answer")

    found = explain(read(unattached(attachError={"message": message}), cloud=down))
    assert (found.cause, found.help) == ("attach-failed", help_)


def test_a_node_that_the_spec_has_and_nobody_sees_is_named_before_a_larger_pool() -> None:
    facts = read(world(), wanted={"w-1": "az1", "w-2": "az2", "w-3": "az3"})
    found = explain(facts)
    assert found.summary.endswith("w-2 (az2) cannot reach it; node w-1 (az1) is missing.")
    assert found.help == ("`moyai up` brings node w-1 back",)


def test_the_largest_starter_counts_where_it_asks_for_more() -> None:
    starters = [
        {"name": "a", "resources": {"requests": {"cpu": "2"}}},
        {"name": "side", "restartPolicy": "Always", "resources": {"requests": {"cpu": "250m"}}},
    ]
    assert read(world(initContainers=starters)).requirements.cpu == 2
    assert read(world(initContainers=starters[1:], overhead={"cpu": "1"})).requirements.cpu == pytest.approx(1.75)


def test_a_claim_and_a_volume_that_are_not_there_are_facts() -> None:
    api = world()
    api.store.vanish(CLAIMS, "data", namespace="shop")
    assert explain(read(api)).cause == "claim-missing"
    api = world()
    api.store.vanish(VOLUMES, "pvc-1")
    assert read(api).disks == ()


def test_a_generic_volume_has_a_claim_named_after_the_pod() -> None:
    facts = read(world(volumes=[{"name": "tmp", "ephemeral": {}}, {"name": "x", "emptyDir": {}}]))
    assert [claim.name for claim in facts.claims] == ["db-0-tmp"]


def test_containers_and_node_names_are_read() -> None:
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["w-7"]}]}]}}}  # fmt: skip
    terms = read(world(affinity=affinity)).requirements.terms
    assert (terms[0][0].key, terms[0][0].values) == ("kubernetes.io/hostname", ("w-7",))
    api = world(nodeName="w-2")
    state = {"name": "db", "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
             "lastState": {"terminated": {"reason": "Error", "exitCode": 3}}}  # fmt: skip
    api.store.find(PODS, "db-0", namespace="shop")["status"] = {"phase": "Running", "containerStatuses": [state]}
    facts = read(api)
    assert (facts.pod.containers[0].image, facts.pod.containers[0].ended, facts.pod.containers[0].restarts) == (
        "db:1", "exit code 3", 3,
    )  # fmt: skip
    assert explain(facts).cause == "crash"


def test_a_pod_that_is_not_there_is_one_line_with_those_that_are() -> None:
    with pytest.raises(UsageError, match="there is no pod db in namespace shop: there is shop/db-0"):
        read(world(), "db")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["Web!"], "moyai: 'Web!' is no pod's name: should be NAME, pod/NAME or NAMESPACE/NAME"),
        (["a/web", "-n", "b"], "moyai: namespace b and pod a/web: two namespaces: name one"),
        (["web", "nowhere"], "moyai: there is no cluster 'nowhere': `moyai up` makes one"),
        (["web"], "moyai: there is no cluster: `moyai up` makes one"),
        ([], "moyai: Missing argument 'POD'."),
    ],
)
def test_a_wrong_question_is_one_line(
    words: list[str], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MOYAI_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MOYAI_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("MOYAI_CLUSTER", raising=False)
    assert run(["explain", *words]) == 2
    captured = capsys.readouterr()
    assert captured.err.strip() == line
    assert captured.out == ""


def test_a_pod_that_has_a_node_is_explained_without_quantities(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(text: object) -> float:
        raise AssertionError(text)

    monkeypatch.setattr(scheduling, "parse_quantity", refuse)
    assert read(world(nodeName="w-2")).nodes[0].name == "w-2"


def test_json_holds_all_that_the_sentence_is_made_of() -> None:
    from dataclasses import asdict

    data = json.loads(json.dumps(asdict(explain(read(world())))))
    assert set(data) == {"pod", "state", "cause", "summary", "help", "volume", "zone", "nodes", "events"}
    assert data["nodes"][0] == {"name": "w-2", "zone": "az2", "why": ["is in az2, not in az1 as the disk"]}
