"""Why a pod does not run: each cause in words, each advice exact, and no reason invented."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from moyai.core.errors import Terminal
from moyai.diagnose.advice import more_nodes
from moyai.diagnose.placement import CandidateNode, Disk, cores, obstacles
from moyai.diagnose.pod_facts import ClaimFacts, Facts, MissingNode, PoolFacts
from moyai.diagnose.pods import explain
from moyai.kube.objects import Container, ObjectEvent, Pod, StorageClass, Taint, VolumeAttachment
from moyai.kube.objects.scheduling import PodRequirements as Needs
from moyai.kube.objects.scheduling import Requirement, Toleration, matches
from moyai.kube.quantities import parse_quantity

DRIVER = "cinder.csi.openstack.org"
ZONE = "topology.kubernetes.io/zone"
CSI_ZONE = "topology.cinder.csi.openstack.org/zone"
GI = 1 << 30
CLASS = StorageClass("csi-cinder", DRIVER, waits=True)
CLAIM = ClaimFacts("data-db-0", phase="Bound", volume="pvc-1", class_name="csi-cinder", storage=CLASS)
DISK = Disk("data-db-0", "pvc-1", DRIVER, ((Requirement(CSI_ZONE, "In", ("az1",)),),))
PLANE = Taint("node-role.kubernetes.io/control-plane", "NoSchedule")


def node(name: str, zone: str, **more: Any) -> CandidateNode:
    labels = {ZONE: zone, CSI_ZONE: zone, "kubernetes.io/hostname": name}
    return replace(CandidateNode(name, labels, cpu=2, memory=4 * GI, pods=100, limits={DRIVER: 25}), **more)


def at(volume: str, name: str, *, attached: bool, error: str = "", deleting: bool = False) -> VolumeAttachment:
    return VolumeAttachment("va", volume, name, DRIVER, attached, error, deleting)


def facts(*nodes: CandidateNode, pod: Pod | None = None, **more: Any) -> Facts:
    pod = pod or Pod("shop", "db-0", phase="Pending")
    pools = (PoolFacts("workers", 1, ("az2", "az1")),)
    return replace(Facts(pod, nodes=nodes, claims=(CLAIM,), disks=(DISK,), pools=pools), **more)


def test_a_disk_in_a_zone_without_nodes() -> None:
    found = explain(facts(node("w-0", "az2")))
    assert found.cause == "zone"
    assert found.summary == (
        "Pod shop/db-0 is Pending: the disk of its claim data-db-0 (volume pvc-1) is in zone az1, where the cluster has no "
        "node; w-0 (az2) cannot reach it."
    )
    assert found.help == (
        "raise `replicas` of pool workers from 1 to 2 in the spec, for a node in az1 (its nodes take turns in az2, az1), "
        "and run `moyai up`",
    )
    assert (found.volume, found.zone) == ("pvc-1", "az1")
    assert [(one.name, one.zone) for one in found.nodes] == [("w-0", "az2")]
    assert found.nodes[0].why == ("is in az2, not in az1 as the disk",)


def test_every_node_of_the_zone_is_told_with_what_keeps_it() -> None:
    found = explain(
        facts(
            node("plane-0", "az1", taints=(PLANE,)),
            node("w-0", "az1", ready=False, taints=(Taint("node.kubernetes.io/unreachable", "NoExecute"),)),
            node("w-1", "az2"),
        )
    )
    assert (
        "no node there takes the pod: plane-0 is kept for the control plane (node-role.kubernetes.io/control-plane:NoSchedule)"
        "; w-0 is not Ready; w-1 (az2) cannot reach it"
    ) in found.summary
    assert found.help[0] == "`moyai status` says what the machine of w-0 does, and `moyai up` starts or restarts it"
    assert "raise `replicas`" in found.help[1]
    assert not any("toleration" in text for text in found.help)


def test_a_disk_that_can_be_reached_leaves_other_reasons() -> None:
    found = explain(facts(node("w-0", "az1"), node("w-1", "az2"), requirements=Needs(cpu=4)))
    assert found.cause == "zone"  # the only zone it can be in is full
    assert "w-0 has 2 CPUs free, the pod asks for 4" in found.summary
    assert found.help[0].startswith("lower the pod's requests, or raise `replicas`")
    plain = explain(facts(node("w-0", "az1"), node("w-1", "az2"), requirements=Needs(cpu=4), disks=(), claims=()))
    assert plain.cause == "no-place"
    assert "none of the 2 nodes takes it" in plain.summary
    assert plain.help == ("lower the pod's requests, or raise `replicas` of pool workers in the spec and run `moyai up`",)


def test_where_no_reason_is_known_the_scheduler_speaks() -> None:
    pod = Pod("shop", "db-0", phase="Pending", scheduler="0/1 nodes are available: didn't match pod affinity rules.")
    found = explain(facts(node("w-0", "az1"), pod=pod))
    assert found.cause == "unknown"
    assert "no reason is known here why w-0 does not take it, but the scheduler says: 0/1 nodes" in found.summary


@pytest.mark.parametrize(
    ("changes", "wish", "text"),
    [
        ({"cordoned": True, "taints": (Taint("node.kubernetes.io/unschedulable", "NoSchedule"),)}, Needs(), "is cordoned"),
        ({"taints": (Taint("a", "NoSchedule", "b"),)}, Needs(), "has a taint that the pod does not tolerate (a=b:NoSchedule)"),
        ({"taints": (Taint("gpu", "PreferNoSchedule"),)}, Needs(), None),
        ({"taints": (Taint("gpu", "NoSchedule", "yes"),)}, Needs(tolerations=(Toleration("gpu", "Exists"),)), None),
        ({"taints": (Taint("gpu", "NoSchedule", "yes"),)}, Needs(tolerations=(Toleration("gpu", "Equal", "yes"),)), None),
        (
            {"taints": (Taint("gpu", "NoExecute"),)},
            Needs(tolerations=(Toleration("gpu", "Exists", effect="NoSchedule"),)),
            "has a taint that the pod does not tolerate (gpu:NoExecute)",
        ),
        ({}, Needs(selector={"disk": "ssd"}), "does not have what the pod selects (disk=ssd)"),
        ({}, Needs(terms=((Requirement("gpu", "Exists"),),)), "does not have what the pod selects (gpu)"),
        ({}, Needs(memory=8 * GI), "has 4096 Mi memory free, the pod asks for 8192 Mi"),
        ({"pods": 0}, Needs(), "has as many pods as it may"),
        ({"attached": {DRIVER: 25}}, Needs(), "has 25 volumes attached and may have 25"),
        ({"labels": {ZONE: "az1"}, "limits": {}}, Needs(), f"does not run the CSI driver {DRIVER}"),
        ({"taints": (Taint("node.kubernetes.io/out-of-service", "NoExecute", "nodeshutdown"),)}, Needs(),
         "is out of service (node.kubernetes.io/out-of-service=nodeshutdown:NoExecute)"),
    ],
)  # fmt: skip
def test_what_keeps_a_pod_from_a_node(changes: dict[str, Any], wish: Needs, text: str | None) -> None:
    found = [one.text for one in obstacles(node("w-0", "az1", **changes), wish, disks=(DISK,))]
    assert found == ([text] if text else [])


def test_a_disk_that_is_attached_there_already_needs_no_room() -> None:
    full = node("w-0", "az1", attached={DRIVER: 25})
    assert obstacles(full, Needs(), disks=(replace(DISK, at=frozenset({"w-0"})),)) == ()


@pytest.mark.parametrize(
    ("claim", "cause", "text"),
    [
        (ClaimFacts("c", found=False), "claim-missing", "there is no claim c in namespace shop"),
        (ClaimFacts("c", phase="Lost", volume="pv"), "volume-lost", "the volume pv of its claim c is gone"),
        (ClaimFacts("c", phase="Pending", class_name="fast"), "class-missing", "there is none of that name"),
        (ClaimFacts("c", phase="Pending"), "claim-unbound", "names no StorageClass and no volume fits it"),
        (ClaimFacts("c", phase="Pending", volume="pv"), "claim-unbound", "waits for the volume pv"),
        (
            ClaimFacts(
                "c",
                phase="Pending",
                class_name="csi-cinder",
                storage=CLASS,
                events=(ObjectEvent("Warning", "ProvisioningFailed", "quota exceeded\n for gigabytes."),),
            ),
            "provisioning-failed",
            "no disk could be made for its claim c (csi-cinder): quota exceeded for gigabytes",
        ),
        (
            ClaimFacts("c", phase="Pending", class_name="now", storage=StorageClass("now", DRIVER)),
            "claim-unbound",
            f"the disk of its claim c is being made by {DRIVER}",
        ),
    ],
)
def test_claims(claim: ClaimFacts, cause: str, text: str) -> None:
    found = explain(facts(node("w-0", "az1"), claims=(claim,), disks=(), classes=("csi-cinder",), default_class="csi-cinder"))
    assert found.cause == cause
    assert text in found.summary


@pytest.mark.parametrize(
    ("message", "help_"),
    [
        ("failed to provision volume with StorageClass \"x\": rpc error: code = InvalidArgument desc = the cloud has no volume "
         "type 'fast': there are slow",
         ("create StorageClass csi-cinder or claim c again without what the reason names: as they are, none fits",)),
        ("rpc error: code = ResourceExhausted desc = quota exceeded",
         ("delete volumes, or have the cloud's operator make room or raise the quota: then it is made by itself",)),
        ("rpc error: code = NotFound desc = the source of the copy does not exist",
         ("create claim c again from a source that exists",)),
        ("rpc error: code = DeadlineExceeded desc = it took too long", ("it is tried again by itself",)),
        ("requested volume size 104857600 is less than the size 1073741824 for the source snapshot s",
         ("create claim c again and ask for at least 1Gi, the size of its source",)),
        ("rpc error: code = Internal desc = odd", ()),
        ("quota exceeded for gigabytes", ()),
    ],
)  # fmt: skip
def test_what_helps_a_claim_follows_from_the_refusal(message: str, help_: tuple[str, ...]) -> None:
    event = ObjectEvent("Warning", "ProvisioningFailed", message)
    claim = ClaimFacts("c", phase="Pending", class_name="csi-cinder", storage=CLASS, events=(event,))
    found = explain(facts(node("w-0", "az1"), claims=(claim,), disks=()))
    assert (found.cause, found.help) == ("provisioning-failed", help_)
    assert "rpc error" not in found.summary


def test_without_a_default_class_that_is_the_reason() -> None:
    claim = ClaimFacts("c", phase="Pending")
    found = explain(facts(node("w-0", "az1"), claims=(claim,), disks=(), classes=("a", "b")))
    assert found.cause == "class-missing"
    assert found.help == ("name one in the claim, or make one the default: a, b",)


def test_a_claim_that_waits_for_its_first_pod_is_not_the_reason() -> None:
    claim = ClaimFacts("c", phase="Pending", class_name="csi-cinder", storage=CLASS)
    assert explain(facts(node("w-0", "az1"), claims=(claim,), disks=(), requirements=Needs(cpu=9))).cause == "no-place"


PLACED = Pod("shop", "db-0", phase="Pending", node="w-1", containers=(Container("db", "db:1", "ContainerCreating"),))


@pytest.mark.parametrize(
    ("holder", "attachment", "text"),
    [
        (
            node("w-0", "az1", ready=False),
            at("pvc-1", "w-0", attached=True),
            "still attached to w-0, which does not answer",
        ),
        (None, at("pvc-1", "w-0", attached=True), "still attached to w-0, which is gone"),
        (node("w-0", "az1"), at("pvc-1", "w-0", attached=True), "still attached to w-0, where another pod uses it"),
        (node("w-0", "az1"), at("pvc-1", "w-0", attached=True, error="busy", deleting=True), "is being detached (busy)"),
    ],
)
def test_a_disk_that_another_node_holds(holder: CandidateNode | None, attachment: VolumeAttachment, text: str) -> None:
    nodes = [node("w-1", "az1"), *([holder] if holder else [])]
    found = explain(facts(*nodes, pod=PLACED, attachments=(attachment,)))
    assert found.cause == "attached-elsewhere"
    assert text in found.summary
    assert (found.volume, found.zone) == ("pvc-1", "az1")
    shared = explain(facts(*nodes, pod=PLACED, attachments=(attachment,), claims=(replace(CLAIM, exclusive=False),)))
    assert shared.cause != "attached-elsewhere"


def test_a_disk_that_cannot_be_attached_and_one_that_is() -> None:
    refused = at("pvc-1", "w-1", attached=False, error="no slot is free")
    found = explain(facts(node("w-1", "az1"), pod=PLACED, attachments=(refused,)))
    assert (found.cause, "cannot be attached to w-1: no slot is free" in found.summary) == ("attach-failed", True)
    there = at("pvc-1", "w-1", attached=True)
    failed = ObjectEvent("Warning", "FailedMount", "wrong fs type")
    found = explain(facts(node("w-1", "az1"), pod=PLACED, attachments=(there,), events=(failed,)))
    assert (found.cause, "wrong fs type" in found.summary) == ("mount-failed", True)
    assert explain(facts(node("w-1", "az1"), pod=PLACED, attachments=(there,))).cause == "starting"


def container(**more: Any) -> Pod:
    return Pod("shop", "db-0", phase="Running", node="w-0", containers=(replace(Container("db", "db:1"), **more),))


@pytest.mark.parametrize(
    ("pod", "cause", "text"),
    [
        (
            container(waiting="ImagePullBackOff", message="not found"),
            "image",
            "the image db:1 of container db cannot be pulled: not",
        ),
        (
            container(waiting="CrashLoopBackOff", ended="exit code 3", restarts=7),
            "crash",
            "ended 7 times, last with exit code 3",
        ),
        (container(waiting="CreateContainerConfigError", message='secret "x" not found'), "container", 'secret "x" not found'),
        (container(), "probe", "container db runs but is not ready: HTTP 500"),
        (Pod("shop", "db-0", phase="Failed", reason="Evicted", message="disk full."), "failed", "Evicted: disk full"),
        (Pod("shop", "db-0", phase="Pending", gates=("quota",)), "gated", "scheduling gates quota"),
        (Pod("shop", "db-0", phase="Running", node="w-9"), "node-not-ready", "its node w-9 is gone"),
        (Pod("shop", "db-0", phase="Running", node="w-1", deleting=True), "node-not-ready", "its node w-1 does not answer"),
        (Pod("shop", "db-0", phase="Running", node="w-0", deleting=True), "terminating", "its containers have not ended yet"),
        (Pod("shop", "db-0", phase="Running", node="w-0", ready=True), "runs", "it runs on w-0 and is ready"),
        (Pod("shop", "db-0", phase="Succeeded"), "done", "have done their work"),
    ],
)
def test_other_causes(pod: Pod, cause: str, text: str) -> None:
    events = (ObjectEvent("Warning", "Unhealthy", "HTTP 500"),)
    found = explain(facts(node("w-0", "az1"), node("w-1", "az1", ready=False), pod=pod, claims=(), disks=(), events=events))
    assert found.cause == cause
    assert text in found.summary
    assert found.summary.startswith("Pod shop/db-0 is ")


@pytest.mark.parametrize(
    ("reason", "message", "help_"),
    [
        ("ErrImagePull", "manifest unknown", "correct the image's name or tag"),
        ("ImagePullBackOff", "pull access denied", "give the pod `imagePullSecrets`"),
        ("ErrImagePull", "dial tcp 10.0.0.1:443: i/o timeout", "the node does not reach that registry"),
        ("InvalidImageName", "", "correct the image's name"),
        ("ErrImageNeverPull", "", "let the pod pull it"),
        ("ErrImagePull", "odd", None),
    ],
)
def test_what_helps_an_image_follows_from_what_the_registry_said(reason: str, message: str, help_: str | None) -> None:
    pod = container(waiting=reason, message=message)
    found = explain(facts(node("w-0", "az1"), pod=pod, claims=(), disks=()))
    assert [text.startswith(help_ or "") for text in found.help] == ([True] if help_ else [])


def test_a_cluster_whose_only_worker_is_missing_gets_it_back() -> None:
    missing = (MissingNode("w-0", "az1"),)
    found = explain(facts(claims=(), disks=(), missing=missing))
    assert (found.cause, found.help) == ("no-node", ("`moyai up` brings node w-0 back",))
    full = explain(facts(node("w-1", "az1", ready=False), claims=(), disks=(), missing=missing))
    assert full.summary.endswith("w-1 is not Ready; node w-0 (az1) is missing.")
    gone = Pod("shop", "db-0", phase="Running", node="w-0")
    assert explain(facts(node("w-1", "az1"), pod=gone, claims=(), disks=(), missing=missing)).help == full.help


def test_nothing_found_is_said_with_the_last_events() -> None:
    events = tuple(ObjectEvent("Normal", f"Step{number}", "…") for number in range(9))
    found = explain(facts(node("w-0", "az1"), pod=container(ready=True), claims=(), disks=(), events=events))
    assert found.cause == "unknown"
    assert "no reason was found" in found.summary
    assert [one.reason for one in found.events] == ["Step4", "Step5", "Step6", "Step7", "Step8"]


@pytest.mark.parametrize(
    ("pools", "text"),
    [
        ((PoolFacts("a", 0, ("az1",)),), "raise `replicas` of pool a from 0 to 1 in the spec, for a node in az1, and"),
        ((PoolFacts("a", 2, ("az2", "az3", "az1")),), "from 2 to 3"),
        ((PoolFacts("a", 3, ("az2", "az1")), PoolFacts("b", 5, ("az1",))), "pool a from 3 to 4"),
        ((PoolFacts("a", 4, ("az2", "az1")), PoolFacts("b", 5, ("az1",))), "pool b from 5 to 6"),
        ((PoolFacts("a", 3, ("az2",)),), "add a pool with `zones: [az1]`"),
        ((PoolFacts("a", 3),), "until a node comes up in az1"),
        ((), "add a pool with `zones: [az1]`"),
    ],
)
def test_the_advice_names_the_pool_and_the_number(pools: tuple[PoolFacts, ...], text: str) -> None:
    assert text in more_nodes(pools, ("az1",))


@pytest.mark.parametrize(
    ("operator", "values", "labels", "holds"),
    [
        ("In", ("a", "b"), {"k": "b"}, True), ("In", ("a",), {}, False), ("NotIn", ("a",), {}, True),
        ("NotIn", ("a",), {"k": "a"}, False), ("Exists", (), {"k": ""}, True), ("Exists", (), {}, False),
        ("DoesNotExist", (), {}, True), ("Gt", ("3",), {"k": "4"}, True), ("Gt", ("3",), {"k": "3"}, False),
        ("Lt", ("3",), {"k": "2"}, True), ("Lt", ("3",), {}, False), ("Gt", ("3",), {"k": "x"}, False),
    ],
)  # fmt: skip
def test_selectors(operator: str, values: tuple[str, ...], labels: dict[str, str], holds: bool) -> None:
    assert matches(((Requirement("k", operator, values),),), labels) == holds


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("500m", 0.5),
        ("2", 2),
        ("1.5", 1.5),
        ("1Ki", 1024),
        ("2Gi", 2 * GI),
        ("1k", 1000),
        ("1e3", 1000),
        ("128974848000m", 128974848),
        ("100n", 1e-7),
        (3, 3),
    ],
)
def test_quantities(text: object, number: float) -> None:
    assert parse_quantity(text) == pytest.approx(number)


@pytest.mark.parametrize("text", ["", "x", "2 Gi", "1Gb"])
def test_what_is_no_quantity_is_refused_by_name(text: str) -> None:
    with pytest.raises(Terminal, match=f"'{text}' is no quantity of Kubernetes: should be such as 500m"):
        parse_quantity(text)


def test_cores_are_short() -> None:
    assert [cores(value) for value in (0, 0.5, 2, 1.25, -1)] == ["0", "0.5", "2", "1.25", "0"]
