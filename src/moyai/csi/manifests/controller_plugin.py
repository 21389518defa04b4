"""The controller's pod with the upstream sidecars, and the snapshot controller's.

Both run on the control plane's own network with no privilege and find the API by the control plane's own address.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from moyai.cloud.kind import LOGIN_FOLDER
from moyai.csi.manifests.objects import SNAPSHOT_CONTROLLER, CsiManifestOptions, meta
from moyai.csi.manifests.probes import CONTROLLER_HEALTH, probes
from moyai.kube.objects import apart, api_variables, secret_variables
from moyai.kube.objects.node import CONTROL_PLANE

CONFIG_PATH = f"{LOGIN_FOLDER}/cloud.conf"
#: Long enough for a clone of a large volume; a call that takes longer is asked for again and finds its work in progress.
_TIMEOUT = "--timeout=3m"
#: client-go's own 5 requests a second would make fifty claims at once wait for each other.
_RATE = ("--kube-api-qps=100", "--kube-api-burst=200")
_RETRIES = ("--retry-interval-start=500ms", "--retry-interval-max=30s")
#: The driver offers no group snapshots; the gate would have the controllers wait for their definitions.
_NO_GROUPS = "--feature-gates=CSIVolumeGroupSnapshot=false"
_SOCKET_FOLDER = {"name": "socket", "mountPath": "/csi"}
_NOBODY = 65534


def controller(options: CsiManifestOptions) -> dict[str, Any]:
    driver = _container(
        options,
        options.names.container,
        args=[
            "--endpoint=unix:///csi/csi.sock",
            f"--cloud-config={CONFIG_PATH}",
            f"--cluster={options.cluster_name}",
            *options.provider_args,
            "--provide-node-service=false",
            f"--http-endpoint=127.0.0.1:{CONTROLLER_HEALTH}",
            f"--log-level={options.log_level}",
        ],
        memory="80Mi",
        mounts=[_SOCKET_FOLDER, {"name": "config", "mountPath": LOGIN_FOLDER, "readOnly": True}],
    )
    driver |= {"command": ["moyai", "csi"], **probes(CONTROLLER_HEALTH)}
    # of the containers this one alone speaks to the cloud
    if variables := secret_variables(options.environment, secret=options.names.secret):
        driver["env"] = [*variables, *driver.get("env", ())]
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
        _container(options, name, args=[*common, *args], memory="20Mi", mounts=[_SOCKET_FOLDER])
        for name, args in sidecars.items()
        if options.snapshots or name != "csi-snapshotter"
    ]
    volumes: list[dict[str, Any]] = [
        {"name": "socket", "emptyDir": {}},
        {"name": "config", "secret": {"secretName": options.names.secret, "defaultMode": 0o440}},
    ]
    return _deployment(
        options, options.names.controller, account=options.controller_account, containers=containers, volumes=volumes
    )


def snapshot_controller(options: CsiManifestOptions) -> dict[str, Any]:
    args = [*_RATE, *_RETRIES, "--worker-threads=20", _NO_GROUPS, *_election(options)]
    container = _container(options, SNAPSHOT_CONTROLLER, args=args, memory="20Mi")
    return _deployment(options, SNAPSHOT_CONTROLLER, account=SNAPSHOT_CONTROLLER, containers=[container], volumes=[])


def _election(options: CsiManifestOptions) -> list[str]:
    # a single copy needs no election: without one it works at once after a restart
    return ["--leader-election"] if options.elected else []


def _container(
    options: CsiManifestOptions,
    name: str,
    *,
    args: list[str],
    memory: str,
    mounts: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """A container without any privilege, which finds the API by the control plane's own address."""
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
    if variables := api_variables(options.api_server):
        container["env"] = variables
    return {**container, "volumeMounts": [dict(mount) for mount in mounts]} if mounts else container


def _deployment(
    options: CsiManifestOptions, name: str, *, account: str, containers: list[dict[str, Any]], volumes: list[dict[str, Any]]
) -> dict[str, Any]:
    labels = {"app": name}
    pod: dict[str, Any] = {
        "serviceAccountName": account,
        "automountServiceAccountToken": True,
        # on the machine's own network: neither waits for the pod network, and the cloud sees the machine's address
        "hostNetwork": True,
        "dnsPolicy": "Default",
        "priorityClassName": "system-cluster-critical",
        "nodeSelector": {CONTROL_PLANE: ""},
        # not for a node that is not ready or not known yet: the first seconds of a cluster belong to others
        "tolerations": [{"key": CONTROL_PLANE, "operator": "Exists"}],
        "securityContext": {"fsGroup": _NOBODY, "seccompProfile": {"type": "RuntimeDefault"}},
        "terminationGracePeriodSeconds": 15,
        "containers": containers,
    }
    if options.elected:
        pod |= apart(labels)
    if volumes:
        pod["volumes"] = volumes
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": meta(options.names, name),
        "spec": {
            "replicas": options.replicas,
            "revisionHistoryLimit": 2,
            # the port is the host's: a second copy cannot start beside the first on one node
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }
