"""A pod that does on a control plane's machine what only the machine can do.

It is bound to the Node without the scheduler, runs the image of moyai that each machine of the cluster holds, and waits for
programs that are run in it. Always holds: it belongs to the Node and goes with it; if nobody deletes it, it ends by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from moyai.ccm import manifests as ccm
from moyai.core.errors import Terminal
from moyai.kube.objects import first_image
from moyai.kube.objects.meta import part, text
from moyai.kube.quick import KubeApi
from moyai.kube.resources import DEPLOYMENTS, KUBE_SYSTEM, Json

NAMESPACE = KUBE_SYSTEM
#: A pod that nobody has deleted ends by itself, seconds.
LIFE = 600


def own_image(api: KubeApi) -> str:
    """The image of moyai that each machine of the cluster holds."""
    image = first_image(api.get(DEPLOYMENTS, ccm.NAME, namespace=NAMESPACE))
    if not image:
        raise Terminal(f"Deployment {ccm.NAME} names no image: the control planes hold none that a pod could run")
    return image


def plane_pod(
    name: str, node: Json, *, image: str, container: str, folders: Sequence[str], read_only: bool, sees_processes: bool
) -> Json:
    """``node``: the Node object. ``folders``: of the machine, which the pod has at the same paths. ``container``: its name."""
    meta = part(node, "metadata")
    owner = {"apiVersion": "v1", "kind": "Node", "name": text(meta, "name"), "uid": text(meta, "uid")}
    volumes = {folder.strip("/").replace("/", "-").lower(): folder for folder in folders}
    main: Json = {
        "name": container,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", f"import time; time.sleep({LIFE})"],
        "resources": {"requests": {"cpu": "5m", "memory": "20Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
            "runAsUser": 0,
        },
        "volumeMounts": [{"name": volume, "mountPath": folder, "readOnly": read_only} for volume, folder in volumes.items()],
    }
    spec: dict[str, Any] = {
        "nodeName": text(meta, "name"),
        "hostNetwork": True,
        "hostPID": sees_processes,
        "automountServiceAccountToken": False,
        "restartPolicy": "Never",
        "activeDeadlineSeconds": LIFE,
        "terminationGracePeriodSeconds": 1,
        "priorityClassName": "system-node-critical",
        "tolerations": [{"operator": "Exists"}],
        "containers": [main],
        "volumes": [{"name": volume, "hostPath": {"path": folder, "type": "Directory"}} for volume, folder in volumes.items()],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "ownerReferences": [owner]}, "spec": spec}
