"""The node plug-in: privileged, on every node, without the cloud's credential and without the API."""

from __future__ import annotations

from typing import Any

from moyai.csi.manifests.objects import NODE, NODE_ACCOUNT, CsiManifestOptions, meta
from moyai.csi.manifests.probes import NODE_HEALTH, probes
from moyai.csi.names import DRIVER

_KUBELET = "/var/lib/kubelet"


def node(options: CsiManifestOptions) -> dict[str, Any]:
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
            # the kubelet and pods must see the mounts that are made here
            {"name": "kubelet", "mountPath": _KUBELET, "mountPropagation": "Bidirectional"},
            # disks that come later must be seen here
            {"name": "dev", "mountPath": "/dev", "mountPropagation": "HostToContainer"},
            # which server this is, and in which zone
            {"name": "cloud-init", "mountPath": "/run/cloud-init", "readOnly": True},
        ],
        **probes(NODE_HEALTH),
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": meta(NODE),
        "spec": {
            "selector": {"matchLabels": labels},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "serviceAccountName": NODE_ACCOUNT,
                    "automountServiceAccountToken": False,
                    "hostNetwork": True,
                    "dnsPolicy": "Default",
                    "priorityClassName": "system-node-critical",
                    # every node that can run a pod with a volume, whatever taints the node has
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
