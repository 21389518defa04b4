"""The cloud controller manager's own objects in Kubernetes: what ``lifecycle`` applies once the API answers.

Everything is in ``kube-system`` and may be applied again at any time. The rights are those that the controllers use and no
more. The text holds the credential's secret (in the Secret): treat it as one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from moyai.ccm.announce_manifests import controller_rules, definitions
from moyai.ccm.settings import CONTROLLERS, SETTLED_CONTROLLERS, CcmConfig, write_ccm_config
from moyai.cloud.kind import LOGIN_FOLDER
from moyai.core import yamltext
from moyai.core.ids import RESTORED
from moyai.kube.objects import UNINITIALIZED, apart, api_variables, secret_variables
from moyai.kube.objects.node import CONTROL_PLANE
from moyai.kube.resources import KUBE_SYSTEM
from moyai.runtime.controller_names import controllers_argument, later_controllers

NAME = "moyai-cloud-controller-manager"
NAMESPACE = KUBE_SYSTEM
#: openstack-cloud-controller-manager's port for its health and metrics.
PORT = 10258
CONFIG_PATH = f"{LOGIN_FOLDER}/cloud.conf"


@dataclass(frozen=True)
class ManifestOptions:
    """``config``: what becomes cloud.conf. ``image``: the moyai OCI image, present in the node's store.

    ``pod_cidr``: the whole cluster's pod range; router routes within it are the cluster's own. ``api_server``: ``host:port`` of
    an API server address on the node network; with it the controllers need not wait for kube-proxy (empty: by the Service's
    address). ``pull_policy``: ``IfNotPresent`` or ``Never``. ``controllers``: which of ``CONTROLLERS`` run.
    ``elected``: one copy of several works, which may become more or fewer while the cluster runs. ``provider_args``:
    ``cloud.factory.provider_args``. ``environment``: variables with which the controllers reach the cloud; they are in the
    Secret. ``revision``: with another one than before, pods are recreated and read their configuration again.
    """

    cluster_name: str
    config: CcmConfig
    image: str
    pod_cidr: str
    api_server: str = ""
    replicas: int = 1
    elected: bool = False
    pull_policy: str = "IfNotPresent"
    log_level: str = "info"
    controllers: tuple[str, ...] = CONTROLLERS
    revision: str = ""
    provider_args: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)


def render(options: ManifestOptions) -> str:
    """All objects as one YAML stream."""
    announces = bool(options.config.announce.ranges)
    objects = (
        *(definitions() if announces else ()),
        _service_account(),
        _cluster_role(controller_rules() if announces else []),
        _cluster_role_binding(),
        _role(),
        _role_binding(),
        _secret(options),
        _deployment(options),
    )
    return yamltext.dump(*objects)


def _meta(*, name: str = NAME, namespaced: bool = True) -> dict[str, Any]:
    meta: dict[str, Any] = {"name": name, "labels": {"app.kubernetes.io/name": NAME, "app.kubernetes.io/managed-by": "moyai"}}
    return {**meta, "namespace": NAMESPACE} if namespaced else meta


def _service_account() -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _meta()}


def _cluster_role(more: list[dict[str, Any]]) -> dict[str, Any]:
    def rule(group: str, resources: list[str], *, verbs: list[str]) -> dict[str, Any]:
        return {"apiGroups": [group], "resources": resources, "verbs": verbs}

    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": _meta(name="system:" + NAME, namespaced=False),
        "rules": [
            rule("", ["nodes"], verbs=["get", "list", "watch", "patch", "delete"]),
            rule("", ["nodes/status"], verbs=["patch"]),
            rule("", ["services"], verbs=["get", "list", "watch", "patch"]),
            rule("", ["services/status"], verbs=["patch"]),
            rule("", ["events"], verbs=["create", "patch"]),
            # fencing: pods that were evicted from a machine that is off are ended, and a Node stays until its disks are free
            rule("", ["pods"], verbs=["list", "delete"]),
            rule("", ["pods/status"], verbs=["patch"]),
            rule("storage.k8s.io", ["volumeattachments"], verbs=["list"]),
            rule("coordination.k8s.io", ["leases"], verbs=["list", "watch", "get"]),
            *more,
        ],
    }


def _role() -> dict[str, Any]:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": _meta(),
        "rules": [
            {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
            {
                "apiGroups": ["coordination.k8s.io"],
                "resources": ["leases"],
                "resourceNames": [NAME],
                "verbs": ["get", "update"],
            },
            {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [RESTORED], "verbs": ["get"]},
        ],
    }


def _subject() -> list[dict[str, Any]]:
    return [{"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}]


def _cluster_role_binding() -> dict[str, Any]:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": _meta(name="system:" + NAME, namespaced=False),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:" + NAME},
        "subjects": _subject(),
    }


def _role_binding() -> dict[str, Any]:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": _meta(),
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": NAME},
        "subjects": _subject(),
    }


def _secret(options: ManifestOptions) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": _meta(),
        "type": "Opaque",
        "stringData": {
            "cloud.conf": write_ccm_config(options.config),
            **options.config.cloud.files,
            **options.environment,
        },
    }


def _revision(options: ManifestOptions) -> dict[str, Any]:
    return {"annotations": {"moyai.dev/revision": options.revision}} if options.revision else {}


def _deployment(options: ManifestOptions) -> dict[str, Any]:
    labels = {"app.kubernetes.io/name": NAME}
    probe = {"host": "127.0.0.1", "port": PORT, "scheme": "HTTP"}
    container: dict[str, Any] = {
        "name": "cloud-controller-manager",
        "image": options.image,
        "imagePullPolicy": options.pull_policy,
        "command": ["moyai", "ccm"],
        "args": [
            f"--cloud-config={CONFIG_PATH}",
            *options.provider_args,
            f"--cluster-name={options.cluster_name}",
            f"--cluster-cidr={options.pod_cidr}",
            controllers_argument(options.controllers, SETTLED_CONTROLLERS),
            f"--bind=127.0.0.1:{PORT}",
            f"--log-level={options.log_level}",
            # one copy has nobody to wait for: without an election it works at once after a restart
            f"--leader-elect={'true' if options.elected else 'false'}",
        ],
        "resources": {"requests": {"cpu": "20m", "memory": "80Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "runAsUser": 65534,
            "runAsGroup": 65534,
        },
        "livenessProbe": {
            "httpGet": {**probe, "path": "/healthz"},
            "initialDelaySeconds": 10,
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 6,
        },
        "readinessProbe": {"httpGet": {**probe, "path": "/readyz"}, "periodSeconds": 5, "timeoutSeconds": 5},
        "volumeMounts": [{"name": "config", "mountPath": LOGIN_FOLDER, "readOnly": True}],
    }
    variables = [
        *secret_variables(options.environment, secret=NAME),
        *api_variables(options.api_server),
        *later_controllers(options.controllers, SETTLED_CONTROLLERS),
    ]
    if variables:
        container["env"] = variables
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _meta(),
        "spec": {
            "replicas": options.replicas,
            "revisionHistoryLimit": 2,
            # the port is the host's: a second copy cannot start beside the first on one node
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels, **_revision(options)},
                "spec": {
                    "serviceAccountName": NAME,
                    "hostNetwork": True,
                    "dnsPolicy": "Default",
                    "priorityClassName": "system-cluster-critical",
                    "nodeSelector": {CONTROL_PLANE: ""},
                    **(apart(labels) if options.elected else {}),
                    "tolerations": [
                        {"key": UNINITIALIZED, "operator": "Exists"},
                        {"key": CONTROL_PLANE, "operator": "Exists"},
                        {"key": "node.kubernetes.io/not-ready", "operator": "Exists"},
                        {"key": "node.kubernetes.io/network-unavailable", "operator": "Exists"},
                    ],
                    "securityContext": {"fsGroup": 65534, "seccompProfile": {"type": "RuntimeDefault"}},
                    "terminationGracePeriodSeconds": 15,
                    "containers": [container],
                    "volumes": [{"name": "config", "secret": {"secretName": NAME, "defaultMode": 0o440}}],
                },
            },
        },
    }
