"""The node plug-in: privileged, on every node, without the cloud's credential and without the API."""

from __future__ import annotations

from typing import Any

from moyai.csi.manifests.objects import CsiManifestOptions, meta
from moyai.csi.manifests.probes import NODE_HEALTH, probes

_KUBELET = "/var/lib/kubelet"


def node(options: CsiManifestOptions) -> dict[str, Any]:
    names = options.names
    folders = {folder.strip("/").rpartition("/")[2]: folder for folder in options.guest_folders}
    labels = {"app": names.node}
    container: dict[str, Any] = {
        "name": names.container,
        "image": options.image,
        "imagePullPolicy": options.pull_policy,
        "command": ["moyai", "csi"],
        "args": [
            # within the kubelet's own folder, which is mounted under its own name: the kubelet finds the socket by this path
            f"--endpoint=unix://{_KUBELET}/plugins/{names.driver}/csi.sock",
            f"--kubelet-registration-path={_KUBELET}/plugins/{names.driver}/csi.sock",
            f"--registration-dir={_KUBELET}/plugins_registry",
            f"--cluster={options.cluster_name}",
            *options.provider_args,
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
            *({"name": name, "mountPath": folder, "readOnly": True} for name, folder in folders.items()),
        ],
        **probes(NODE_HEALTH),
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": meta(names, names.node),
        "spec": {
            "selector": {"matchLabels": labels},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "serviceAccountName": options.node_account,
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
                        *(
                            {"name": name, "hostPath": {"path": folder, "type": "DirectoryOrCreate"}}
                            for name, folder in folders.items()
                        ),
                    ],
                },
            },
        },
    }
