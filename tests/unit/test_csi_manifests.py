"""The CSI driver's objects: whole, in an order that works, with images that nodes hold, and no right or secret too many."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import yaml

from moyai.cloud.factory import provider_args
from moyai.cloud.memory import MemoryAdapter
from moyai.cloud.openstack import ADAPTER
from moyai.csi import manifests
from moyai.csi.manifests import SIDECARS, CsiManifestOptions, render
from moyai.images import references

IMAGES = {name: references.load().images[name] for name in SIDECARS}
OPTIONS = CsiManifestOptions(
    "demo",
    ADAPTER.volume_names,
    "[Global]\nsecret = hidden-word\n",
    references.MOYAI,
    IMAGES,
    api_server="10.0.0.5:6443",
    guest_folders=ADAPTER.guest_folders,
)


def objects(options: CsiManifestOptions = OPTIONS) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(render(options)))


def find(kind: str, name: str, *, options: CsiManifestOptions = OPTIONS) -> dict[str, Any]:
    return next(one for one in objects(options) if (one["kind"], one["metadata"]["name"]) == (kind, name))


def pods(options: CsiManifestOptions = OPTIONS) -> Iterator[dict[str, Any]]:
    for one in objects(options):
        if one["kind"] in ("Deployment", "DaemonSet"):
            yield one["spec"]["template"]["spec"]


def test_everything_is_there_once_definitions_first_and_what_needs_them_last() -> None:
    found = [(one["kind"], one["metadata"]["name"]) for one in objects()]
    assert len(set(found)) == len(found)
    assert [name for kind, name in found[:3] if kind == "CustomResourceDefinition"] == [
        "volumesnapshotclasses.snapshot.storage.k8s.io",
        "volumesnapshotcontents.snapshot.storage.k8s.io",
        "volumesnapshots.snapshot.storage.k8s.io",
    ]
    assert found[-1] == ("VolumeSnapshotClass", "csi-cinder")
    assert {name for kind, name in found if kind in ("Deployment", "DaemonSet")} == {
        "csi-cinder-controllerplugin",
        "csi-cinder-nodeplugin",
        "snapshot-controller",
    }


def test_the_definitions_are_upstreams_with_their_licence() -> None:
    for text in manifests.definitions():
        assert "Apache License 2.0" in text.splitlines()[0]
        spec = yaml.safe_load(text)["spec"]
        assert {version["name"] for version in spec["versions"] if version["storage"]} == {"v1"}


def test_the_driver_is_cinders_by_name() -> None:
    driver = find("CSIDriver", "cinder.csi.openstack.org")["spec"]
    assert driver["attachRequired"] is True
    assert (
        find("StorageClass", "csi-cinder")["provisioner"]
        == find("VolumeSnapshotClass", "csi-cinder")["driver"]
        == "cinder.csi.openstack.org"
    )


@pytest.mark.parametrize("policy", ["Delete", "Retain"])
def test_the_default_classes_follow_the_spec(policy: Any) -> None:
    options = replace(OPTIONS, reclaim_policy=policy)
    found = find("StorageClass", "csi-cinder", options=options)
    assert found["metadata"]["annotations"] == {"storageclass.kubernetes.io/is-default-class": "true"}
    assert (found["reclaimPolicy"], found["volumeBindingMode"], found["allowVolumeExpansion"]) == (
        policy,
        "WaitForFirstConsumer",
        True,
    )
    assert find("VolumeSnapshotClass", "csi-cinder", options=options)["deletionPolicy"] == policy


def test_no_right_is_wider_than_it_must_be() -> None:
    for one in objects():
        for rule in one.get("rules", []):
            assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
            assert not {"secrets", "configmaps", "roles", "clusterroles"} & set(rule["resources"])
    bound = {one["subjects"][0]["name"] for one in objects() if one["kind"] == "ClusterRoleBinding"}
    assert bound == {"csi-cinder-controller-sa", "snapshot-controller"}


def test_the_secret_is_in_one_place_and_only_the_controller_sees_it() -> None:
    assert render(OPTIONS).count("hidden-word") == 1
    assert "hidden-word" not in repr(OPTIONS)
    users = [pod for pod in pods() if any("secret" in volume for volume in pod.get("volumes", []))]
    (controller,) = users
    assert controller["nodeSelector"] == {"node-role.kubernetes.io/control-plane": ""}
    mounting = [one["name"] for one in controller["containers"] if "config" in str(one.get("volumeMounts"))]
    assert mounting == ["cinder-csi-plugin"]
    node = find("DaemonSet", "csi-cinder-nodeplugin")["spec"]["template"]["spec"]
    assert node["automountServiceAccountToken"] is False


def test_every_image_is_one_that_nodes_hold() -> None:
    held = {*references.load().images.values(), references.MOYAI}
    used = [one["image"] for pod in pods() for one in pod["containers"]]
    assert set(used) <= held
    assert set(IMAGES.values()) <= set(used)
    assert all(one["imagePullPolicy"] == "IfNotPresent" for pod in pods() for one in pod["containers"])


def test_only_the_node_plugin_is_privileged_and_its_mounts_reach_the_kubelet() -> None:
    privileged = [one for pod in pods() for one in pod["containers"] if one["securityContext"].get("privileged")]
    (node,) = privileged
    mounts = {mount["mountPath"]: mount.get("mountPropagation") for mount in node["volumeMounts"]}
    assert (mounts["/var/lib/kubelet"], mounts["/dev"]) == ("Bidirectional", "HostToContainer")
    arguments = dict(argument.removeprefix("--").split("=", 1) for argument in node["args"])
    # the kubelet looks for the socket where the plug-in says, in its own name space
    assert arguments["endpoint"] == "unix://" + arguments["kubelet-registration-path"]
    assert arguments["registration-dir"].startswith("/var/lib/kubelet/")
    for pod in pods():
        for one in pod["containers"]:
            if one is not node and one["name"] != "cinder-csi-plugin":
                assert one["securityContext"]["runAsNonRoot"]


def test_the_two_parts_can_live_on_one_machine() -> None:
    ports = [one["livenessProbe"]["httpGet"]["port"] for pod in pods() for one in pod["containers"] if "livenessProbe" in one]
    assert len(ports) == len(set(ports)) == 2


def test_copies_elect_one_only_where_there_may_be_several() -> None:
    def elections(options: CsiManifestOptions) -> list[bool]:
        return [
            "--leader-election" in one["args"] for pod in pods(options) for one in pod["containers"] if one["name"] in SIDECARS
        ]

    assert not any(elections(OPTIONS))
    several = replace(OPTIONS, replicas=1, elected=True)
    assert all(elections(several))
    leases = [one for one in objects(several) if one["kind"] == "Role" and one["rules"][0]["resources"] == ["leases"]]
    assert len(leases) == 2
    assert not [one for one in objects() if one["kind"] == "Role"]


def test_nothing_waits_for_kube_proxy() -> None:
    for one in next(pods())["containers"]:
        assert {"name": "KUBERNETES_SERVICE_HOST", "value": "10.0.0.5"} in one["env"]
    assert (
        "env"
        not in find("Deployment", "snapshot-controller", options=replace(OPTIONS, api_server=""))["spec"]["template"]["spec"][
            "containers"
        ][0]
    )


def test_nothing_of_one_cloud_is_in_the_manifests_of_another() -> None:
    adapter = MemoryAdapter()
    options = replace(
        OPTIONS,
        names=adapter.volume_names,
        provider_args=provider_args(adapter.name),
        guest_folders=("/run/own",),
        image="image",
        images={},
        replicas=2,
        elected=True,
    )
    found = [one for one in objects(options) if one["kind"] != "CustomResourceDefinition"]
    assert [word for word in ("cinder", "openstack", "cloud-init") if word in yaml.safe_dump(found)] == []
    for kind, name in (("Deployment", "csi-memory-controllerplugin"), ("DaemonSet", "csi-memory-nodeplugin")):
        pod = find(kind, name, options=options)["spec"]["template"]["spec"]
        driver = next(one for one in pod["containers"] if one["name"] == "memory-csi-plugin")
        assert "--cloud-provider=memory" in driver["args"]
    assert {"name": "own", "mountPath": "/run/own", "readOnly": True} in driver["volumeMounts"]
    assert {"name": "own", "hostPath": {"path": "/run/own", "type": "DirectoryOrCreate"}} in pod["volumes"]
