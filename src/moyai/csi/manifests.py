"""The CSI driver's own objects in Kubernetes: what ``lifecycle`` applies once the API answers.

Controller (with the upstream sidecars), node plug-in, snapshot controller, their rights, the CSIDriver object, the default
classes and the definitions of snapshots. All may be applied again at any time. Names are those of Cinder CSI's own
manifests. The rights are those that the sidecars use and no more; the driver itself has none, and no node but the control
plane gets the cloud's credential. The text holds the credential's secret (in the Secret): treat it as one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any, Literal

from moyai.core import yamltext
from moyai.csi.names import DRIVER

NAMESPACE = "kube-system"
CONTROLLER = "csi-cinder-controllerplugin"
NODE = "csi-cinder-nodeplugin"
SNAPSHOT_CONTROLLER = "snapshot-controller"
#: The default StorageClass, and the default VolumeSnapshotClass.
CLASS = "csi-cinder"
SECRET = "csi-cinder-cloud-config"
CONFIG_PATH = "/etc/moyai/cloud.conf"
#: Where the two parts of the driver serve their health, on the loopback of their machine (both may run on one).
CONTROLLER_HEALTH, NODE_HEALTH = 9808, 9809
#: Short names of the images that are used beside moyai's own.
SIDECARS = ("csi-attacher", "csi-provisioner", "csi-resizer", "csi-snapshotter", "snapshot-controller")

_CONTROLLER_ACCOUNT, _NODE_ACCOUNT = "csi-cinder-controller-sa", "csi-cinder-node-sa"
_KUBELET = "/var/lib/kubelet"
#: Long enough for a clone of a large volume; a call that takes longer is asked for again and finds its work in progress.
_TIMEOUT = "--timeout=3m"
#: client-go's own 5 requests a second would make fifty claims at once wait for each other.
_RATE = ("--kube-api-qps=100", "--kube-api-burst=200")
_RETRIES = ("--retry-interval-start=500ms", "--retry-interval-max=30s")
#: Group snapshots are not offered by Cinder's driver; the gate would have the controllers wait for their definitions.
_NO_GROUPS = "--feature-gates=CSIVolumeGroupSnapshot=false"
_SOCKET_FOLDER = {"name": "socket", "mountPath": "/csi"}
_NOBODY = 65534


@dataclass(frozen=True)
class ManifestOptions:
    """``cloud_conf``: the driver's configuration file, with its secret. ``image``: the moyai OCI image.

    ``images``: short name → reference, for each of ``SIDECARS``; all are present in the node's store. ``api_server``:
    ``host:port`` of an API server address on the node network, with which the sidecars need not wait for kube-proxy (empty: by
    the Service's address). ``reclaim_policy``: of the default classes, so of what is made through them.
    """

    cluster_name: str
    cloud_conf: str = field(repr=False)
    image: str
    images: Mapping[str, str]
    api_server: str = ""
    reclaim_policy: Literal["Delete", "Retain"] = "Delete"
    replicas: int = 1
    pull_policy: str = "IfNotPresent"
    log_level: str = "info"


def render(options: ManifestOptions) -> str:
    """All objects as one YAML stream, the definitions of snapshots first: the provisioner looks for them when it starts."""
    objects = (
        _secret(options),
        *_accounts(),
        *_rights(options),
        _driver(),
        storage_class(options.reclaim_policy),
        _controller(options),
        _node(options),
        _snapshot_controller(options),
        # last: its kind is known only a moment after its definition was taken
        _snapshot_class(options.reclaim_policy),
    )
    return "---\n".join([*definitions(), yamltext.dump(*objects)])


def definitions() -> list[str]:
    """The definitions of the snapshot kinds, each as upstream's own YAML (see the head of the files)."""
    folder = resources.files("moyai.csi") / "crds"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".yaml")), key=lambda file: file.name)
    # as text: reading and writing them as YAML would cost `up` half a second
    return [file.read_text(encoding="utf-8") for file in files]


def storage_class(reclaim_policy: Literal["Delete", "Retain"]) -> dict[str, Any]:
    """The default StorageClass. Its policy cannot be changed in place: a changed one is a new object of the same name."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": _meta(CLASS, namespaced=False, annotations={"storageclass.kubernetes.io/is-default-class": "true"}),
        "provisioner": DRIVER,
        "reclaimPolicy": reclaim_policy,
        "volumeBindingMode": "WaitForFirstConsumer",
        "allowVolumeExpansion": True,
    }


def _snapshot_class(deletion_policy: Literal["Delete", "Retain"]) -> dict[str, Any]:
    return {
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshotClass",
        "metadata": _meta(CLASS, namespaced=False, annotations={"snapshot.storage.kubernetes.io/is-default-class": "true"}),
        "driver": DRIVER,
        "deletionPolicy": deletion_policy,
    }


def _driver() -> dict[str, Any]:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "CSIDriver",
        "metadata": _meta(DRIVER, namespaced=False),
        "spec": {
            "attachRequired": True,
            "podInfoOnMount": True,
            "fsGroupPolicy": "ReadWriteOnceWithFSType",
            "volumeLifecycleModes": ["Persistent"],
        },
    }


def _meta(name: str, *, namespaced: bool = True, annotations: Mapping[str, str] | None = None) -> dict[str, Any]:
    meta: dict[str, Any] = {"name": name}
    if namespaced:
        meta["namespace"] = NAMESPACE
    meta["labels"] = {"app.kubernetes.io/name": "csi-cinder", "app.kubernetes.io/managed-by": "moyai"}
    return {**meta, "annotations": dict(annotations)} if annotations else meta


def _secret(options: ManifestOptions) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": _meta(SECRET),
        "type": "Opaque",
        "stringData": {"cloud.conf": options.cloud_conf},
    }


# ---- rights


def _accounts() -> list[dict[str, Any]]:
    names = (_CONTROLLER_ACCOUNT, _NODE_ACCOUNT, SNAPSHOT_CONTROLLER)
    return [
        # what has no rights needs no token; the others' pods ask for theirs
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _meta(name), "automountServiceAccountToken": False}
        for name in names
    ]


def _rule(group: str, resources_: Sequence[str], verbs: str) -> dict[str, Any]:
    return {"apiGroups": [group], "resources": list(resources_), "verbs": verbs.split()}


def _rights(options: ManifestOptions) -> list[dict[str, Any]]:
    read, events = "get list watch", "list watch create update patch"
    snapshots = "snapshot.storage.k8s.io"
    controller = [
        _rule("", ["persistentvolumes"], f"{read} create patch delete"),
        _rule("", ["persistentvolumeclaims"], f"{read} update patch"),
        _rule("", ["persistentvolumeclaims/status"], "patch"),
        _rule("", ["nodes", "pods"], read),
        _rule("", ["events"], events),
        _rule("storage.k8s.io", ["storageclasses", "csinodes", "volumeattributesclasses"], read),
        _rule("storage.k8s.io", ["volumeattachments"], f"{read} patch"),
        _rule("storage.k8s.io", ["volumeattachments/status"], "patch"),
        _rule(snapshots, ["volumesnapshots"], f"{read} update"),
        _rule(snapshots, ["volumesnapshotclasses"], read),
        _rule(snapshots, ["volumesnapshotcontents"], f"{read} update patch"),
        _rule(snapshots, ["volumesnapshotcontents/status"], "update patch"),
    ]
    snapshot_controller = [
        _rule("", ["persistentvolumes"], read),
        _rule("", ["persistentvolumeclaims"], f"{read} update"),
        _rule("", ["events"], events),
        _rule(snapshots, ["volumesnapshotclasses"], read),
        _rule(snapshots, ["volumesnapshotcontents", "volumesnapshots"], f"{read} create update patch delete"),
        _rule(snapshots, ["volumesnapshotcontents/status", "volumesnapshots/status"], "update patch"),
    ]
    objects = [
        *_bound("system:csi-cinder-controller", controller, _CONTROLLER_ACCOUNT),
        *_bound("system:snapshot-controller", snapshot_controller, SNAPSHOT_CONTROLLER),
    ]
    if options.replicas > 1:
        lease = [_rule("coordination.k8s.io", ["leases"], "get watch list delete update create")]
        objects += _bound("csi-cinder-controller", lease, _CONTROLLER_ACCOUNT, namespaced=True)
        objects += _bound(SNAPSHOT_CONTROLLER, lease, SNAPSHOT_CONTROLLER, namespaced=True)
    return objects


def _bound(name: str, rules: list[dict[str, Any]], account: str, *, namespaced: bool = False) -> list[dict[str, Any]]:
    """A role and its binding to one account."""
    group, kind = "rbac.authorization.k8s.io", "Role" if namespaced else "ClusterRole"
    meta = _meta(name, namespaced=namespaced)
    return [
        {"apiVersion": f"{group}/v1", "kind": kind, "metadata": meta, "rules": rules},
        {
            "apiVersion": f"{group}/v1",
            "kind": f"{kind}Binding",
            "metadata": meta,
            "roleRef": {"apiGroup": group, "kind": kind, "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": NAMESPACE}],
        },
    ]


# ---- pods


def _controller(options: ManifestOptions) -> dict[str, Any]:
    driver = _container(
        options,
        "cinder-csi-plugin",
        [
            "--endpoint=unix:///csi/csi.sock",
            f"--cloud-config={CONFIG_PATH}",
            f"--cluster={options.cluster_name}",
            "--provide-node-service=false",
            f"--http-endpoint=127.0.0.1:{CONTROLLER_HEALTH}",
            f"--log-level={options.log_level}",
        ],
        memory="80Mi",
        mounts=[_SOCKET_FOLDER, {"name": "config", "mountPath": CONFIG_PATH.rpartition("/")[0], "readOnly": True}],
    )
    driver |= {"command": ["moyai", "csi"], **_probes(CONTROLLER_HEALTH)}
    common = ["--csi-address=/csi/csi.sock", _TIMEOUT, *_RATE, *_RETRIES, *_election(options)]
    sidecars = {
        "csi-provisioner": [
            "--default-fstype=ext4",
            "--extra-create-metadata",
            # a claim that is bound at once may go to any zone: the driver chooses, not the list of nodes' zones
            "--immediate-topology=false",
            "--worker-threads=100",
        ],
        "csi-attacher": ["--default-fstype=ext4", "--worker-threads=50"],
        "csi-resizer": ["--workers=20", "--handle-volume-inuse-error=false"],
        "csi-snapshotter": ["--extra-create-metadata", "--worker-threads=20", _NO_GROUPS],
    }
    containers = [driver]
    containers += [
        _container(options, name, [*common, *args], memory="20Mi", mounts=[_SOCKET_FOLDER]) for name, args in sidecars.items()
    ]
    volumes: list[dict[str, Any]] = [
        {"name": "socket", "emptyDir": {}},
        {"name": "config", "secret": {"secretName": SECRET, "defaultMode": 0o440}},
    ]
    return _deployment(options, CONTROLLER, _CONTROLLER_ACCOUNT, containers, volumes)


def _snapshot_controller(options: ManifestOptions) -> dict[str, Any]:
    args = [*_RATE, *_RETRIES, "--worker-threads=20", _NO_GROUPS, *_election(options)]
    container = _container(options, SNAPSHOT_CONTROLLER, args, memory="20Mi")
    return _deployment(options, SNAPSHOT_CONTROLLER, SNAPSHOT_CONTROLLER, [container], [])


def _election(options: ManifestOptions) -> list[str]:
    # one copy has nobody to wait for: without an election it works at once after a restart
    return ["--leader-election"] if options.replicas > 1 else []


def _container(
    options: ManifestOptions,
    name: str,
    args: list[str],
    *,
    memory: str,
    mounts: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """A container without any privilege, which finds the API by the control plane's own address."""
    host, _, port = options.api_server.rpartition(":")
    container: dict[str, Any] = {
        "name": name,
        "image": options.images.get(name, options.image),
        "imagePullPolicy": options.pull_policy,
        "args": args,
        "resources": {"requests": {"cpu": "5m", "memory": memory}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "runAsUser": _NOBODY,
            "runAsGroup": _NOBODY,
        },
    }
    if host:
        container["env"] = [
            {"name": "KUBERNETES_SERVICE_HOST", "value": host.strip("[]")},
            {"name": "KUBERNETES_SERVICE_PORT", "value": port},
        ]
    return {**container, "volumeMounts": [dict(mount) for mount in mounts]} if mounts else container


def _probes(port: int) -> dict[str, Any]:
    def probe(**when: int) -> dict[str, Any]:
        return {
            "httpGet": {"host": "127.0.0.1", "port": port, "scheme": "HTTP", "path": "/healthz"},
            "timeoutSeconds": 5,
            **when,
        }

    return {
        # asked every second only until it answers once; a readiness probe would be asked for ever, and nobody would look
        "startupProbe": probe(periodSeconds=1, failureThreshold=300),
        "livenessProbe": probe(periodSeconds=30, failureThreshold=4),
    }


def _deployment(
    options: ManifestOptions, name: str, account: str, containers: list[dict[str, Any]], volumes: list[dict[str, Any]]
) -> dict[str, Any]:
    labels = {"app": name}
    pod: dict[str, Any] = {
        "serviceAccountName": account,
        "automountServiceAccountToken": True,
        # on the machine's own network: neither waits for the pod network, and the cloud sees the machine's address
        "hostNetwork": True,
        "dnsPolicy": "Default",
        "priorityClassName": "system-cluster-critical",
        "nodeSelector": {"node-role.kubernetes.io/control-plane": ""},
        # not for a node that is not ready or not known yet: the first seconds of a cluster belong to others
        "tolerations": [{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}],
        "securityContext": {"fsGroup": _NOBODY, "seccompProfile": {"type": "RuntimeDefault"}},
        "terminationGracePeriodSeconds": 15,
        "containers": containers,
    }
    if volumes:
        pod["volumes"] = volumes
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _meta(name),
        "spec": {
            "replicas": options.replicas,
            "revisionHistoryLimit": 2,
            # the port is the host's: a second copy cannot start beside the first on one node
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def _node(options: ManifestOptions) -> dict[str, Any]:
    labels = {"app": NODE}
    container: dict[str, Any] = {
        "name": "cinder-csi-plugin",
        "image": options.image,
        "imagePullPolicy": options.pull_policy,
        "command": ["moyai", "csi"],
        "args": [
            # within the kubelet's own folder, which is mounted under its own name: the kubelet finds the socket by this path
            f"--endpoint=unix://{_KUBELET}/plugins/{DRIVER}/csi.sock",
            f"--kubelet-registration-path={_KUBELET}/plugins/{DRIVER}/csi.sock",
            f"--registration-dir={_KUBELET}/plugins_registry",
            f"--cluster={options.cluster_name}",
            "--provide-controller-service=false",
            f"--http-endpoint=127.0.0.1:{NODE_HEALTH}",
            f"--log-level={options.log_level}",
        ],
        "resources": {"requests": {"cpu": "5m", "memory": "60Mi"}},
        "securityContext": {"privileged": True},
        "volumeMounts": [
            # what is mounted here must be seen by the kubelet and by pods
            {"name": "kubelet", "mountPath": _KUBELET, "mountPropagation": "Bidirectional"},
            # disks that come later must be seen here
            {"name": "dev", "mountPath": "/dev", "mountPropagation": "HostToContainer"},
            # which server this is, and in which zone
            {"name": "cloud-init", "mountPath": "/run/cloud-init", "readOnly": True},
        ],
        **_probes(NODE_HEALTH),
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": _meta(NODE),
        "spec": {
            "selector": {"matchLabels": labels},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "serviceAccountName": _NODE_ACCOUNT,
                    "automountServiceAccountToken": False,
                    "hostNetwork": True,
                    "dnsPolicy": "Default",
                    "priorityClassName": "system-node-critical",
                    # wherever a pod with a volume can run, whatever its node is tainted with
                    "tolerations": [{"operator": "Exists"}],
                    "terminationGracePeriodSeconds": 15,
                    "containers": [container],
                    "volumes": [
                        {"name": "kubelet", "hostPath": {"path": _KUBELET, "type": "Directory"}},
                        {"name": "dev", "hostPath": {"path": "/dev", "type": "Directory"}},
                        {"name": "cloud-init", "hostPath": {"path": "/run/cloud-init", "type": "DirectoryOrCreate"}},
                    ],
                },
            },
        },
    }
