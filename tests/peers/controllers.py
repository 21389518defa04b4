"""The two cloud controller managers of the race, on one cluster, one at a time.

moyai's is the Deployment that every cluster has; it is scaled to 0 while the peer runs. The peer is upstream's
program, unmodified, with the settings of upstream's manifest, in a pod on the control plane as moyai's is. Of its controllers
only that of Services runs: the nodes have what moyai's controllers gave them.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import openstack

from moyai.ccm.manifests import NAME as OURS
from moyai.core.paths import default_paths
from moyai.core.progress import Reporter
from moyai.images import base_files
from moyai.images.oci import Entry, ImageConfig, write_archive, write_layer
from moyai.toolchain.toolchain import Toolchain

MOYAI, PEER = "moyai", "openstack-cloud-controller-manager"
_NAMESPACE = "kube-system"
_PROGRAM = f"/bin/{PEER}"
_CONF = "/etc/config/cloud.conf"
#: Its health, served with a certificate of its own.
_PORT = 10258
#: kubectl's own limit for a wait.
_WAIT = "180s"


def image(version: str) -> str:
    return f"registry.k8s.io/provider-os/{PEER}:v{version}"


def cloud_conf(login: Mapping[str, str], *, region: str, network_id: str, subnet_id: str) -> str:
    """The file that it reads: the cluster's owner logs in; provider, health checks and security groups are as moyai's."""
    lines = [
        "[Global]",
        f"auth-url={login['auth_url']}",
        f"username={login['username']}",
        f'password="{login["password"]}"',
        f"tenant-name={login['project_name']}",
        f"domain-id={login['project_domain_id']}",
        f"region={region}",
        "[LoadBalancer]",
        "lb-provider=moyai",
        f"floating-network-id={network_id}",
        f"subnet-id={subnet_id}",
        "create-monitor=true",
        "manage-security-groups=true",
    ]
    return "\n".join(lines) + "\n"


def objects(*, image: str, conf: str, cluster: str, api_server: str) -> list[dict[str, Any]]:
    """Everything of it in Kubernetes. ``conf`` holds a password. ``api_server``: ``host:port``, as moyai's own has it."""
    meta = {"name": PEER, "namespace": _NAMESPACE}
    labels = {"app": PEER}
    host, _, port = api_server.rpartition(":")
    container = {
        "name": PEER,
        "image": image,
        "args": [
            _PROGRAM,
            "--v=1",
            f"--cluster-name={cluster}",
            f"--cloud-config={_CONF}",
            "--cloud-provider=openstack",
            "--controllers=service",
            "--use-service-account-credentials=false",
            "--bind-address=127.0.0.1",
            # one copy has nobody to wait for: moyai's runs without an election as well
            "--leader-elect=false",
        ],
        "env": [
            {"name": "KUBERNETES_SERVICE_HOST", "value": host.strip("[]")},
            {"name": "KUBERNETES_SERVICE_PORT", "value": port},
        ],
        "readinessProbe": {
            "httpGet": {"host": "127.0.0.1", "port": _PORT, "scheme": "HTTPS", "path": "/healthz"},
            "periodSeconds": 2,
        },
        "volumeMounts": [{"name": "config", "mountPath": _CONF.rpartition("/")[0], "readOnly": True}],
    }
    pod = {
        "serviceAccountName": PEER,
        "hostNetwork": True,
        "dnsPolicy": "Default",
        "nodeSelector": {"node-role.kubernetes.io/control-plane": ""},
        "tolerations": [{"operator": "Exists"}],
        "securityContext": {"runAsUser": 1001, "fsGroup": 1001},
        "terminationGracePeriodSeconds": 5,
        "containers": [container],
        "volumes": [{"name": "config", "secret": {"secretName": PEER, "defaultMode": 0o440}}],
    }
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": f"system:{PEER}"}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
        {
            "apiVersion": role["apiGroup"] + "/v1",
            "kind": "ClusterRole",
            "metadata": {"name": role["name"]},
            "rules": [
                _rule("", ["events"], verbs=["create", "patch", "update"]),
                _rule("", ["nodes"], verbs=["get", "list", "watch"]),
                _rule("", ["services"], verbs=["list", "patch", "update", "watch", "get"]),
                _rule("", ["services/status"], verbs=["patch"]),
                _rule("", ["configmaps"], verbs=["get", "list", "watch"]),
            ],
        },
        {
            "apiVersion": role["apiGroup"] + "/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": role["name"]},
            "roleRef": role,
            "subjects": [{"kind": "ServiceAccount", **meta}],
        },
        {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": {"cloud.conf": conf}},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": meta,
            "spec": {
                "replicas": 0,
                "strategy": {"type": "Recreate"},
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        },
    ]


def _rule(group: str, resources: list[str], *, verbs: list[str]) -> dict[str, Any]:
    return {"apiGroups": [group], "resources": resources, "verbs": verbs}


class Controllers:
    """Both on one cluster: ``run`` ends one of them and lets the second run."""

    def __init__(self, reporter: Reporter, *, kubeconfig: Path, cloud: str) -> None:
        toolchain = Toolchain(default_paths(), reporter)
        self._program = toolchain.ensure([PEER])[PEER]
        self._kubectl = toolchain.ensure(["kubernetes"])["kubernetes"].files["kubectl"]
        self._kubeconfig, self._cloud = kubeconfig, cloud

    @property
    def version(self) -> str:
        """Of the peer."""
        return self._program.version

    def archive(self, folder: Path) -> Path:
        """The image of the peer, as an archive in ``folder`` that `moyai image load` takes."""
        program = Entry(_PROGRAM.strip("/"), 0o755, content=self._program.files[PEER])
        layer = write_layer([*base_files.users(), program], folder / "layer")
        archive = folder / "peer.tar"
        write_archive(archive, tags=[image(self.version)], layers=[layer], config=ImageConfig())
        return archive

    def install(self, *, cluster: str, api_server: str, network_id: str, subnet_id: str) -> None:
        """The peer's objects in Kubernetes, with no pod of it yet."""
        found: Any = openstack.connect(cloud=self._cloud)
        login = found.config.config
        conf = cloud_conf(login["auth"], region=str(login["region_name"]), network_id=network_id, subnet_id=subnet_id)
        wanted = objects(image=image(self.version), conf=conf, cluster=cluster, api_server=api_server)
        self.kubectl("apply", "-f", "-", given=json.dumps({"apiVersion": "v1", "kind": "List", "items": wanted}))

    def run(self, name: str) -> None:
        """``name``: MOYAI or PEER. Returns once its pod is ready and the pod of the second one is gone."""
        deployments = {MOYAI: OURS, PEER: PEER}
        wanted = deployments.pop(name)
        for other in deployments.values():
            self._scale(other, 0)
            label = "app" if other == PEER else "app.kubernetes.io/name"
            self.kubectl("-n", _NAMESPACE, "wait", "pod", "-l", f"{label}={other}", "--for=delete", f"--timeout={_WAIT}")
        self._scale(wanted, 1)
        self.kubectl("-n", _NAMESPACE, "rollout", "status", f"deployment/{wanted}", f"--timeout={_WAIT}")

    def _scale(self, deployment: str, replicas: int) -> None:
        self.kubectl("-n", _NAMESPACE, "scale", f"deployment/{deployment}", f"--replicas={replicas}")

    def kubectl(self, *words: str, given: str = "") -> str:
        """What kubectl printed. RuntimeError with its last words where it failed."""
        with tempfile.TemporaryDirectory() as home:
            done = subprocess.run(
                [str(self._kubectl), f"--kubeconfig={self._kubeconfig}", *words],
                input=given,
                capture_output=True,
                text=True,
                env={"HOME": home},
            )
        if done.returncode:
            raise RuntimeError(f"kubectl {' '.join(words)}: {done.stderr.strip()[-500:]}")
        return done.stdout
