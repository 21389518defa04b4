"""How the API server of a new cluster is started: its flags beyond kubeadm's, and the files that the flags name.

Pure. Always holds: the flags name only files that ``files`` gives; the files are for root alone, as one of them holds the key
that Secrets are encrypted with. Sources: kube-apiserver's flags, audit.k8s.io/v1, apiserver.config.k8s.io/v1,
pod-security.admission.config.k8s.io/v1.
"""

from __future__ import annotations

import base64
import secrets
from typing import Any

from moyai.bootstrap.kubelet import TLS_CIPHER_SUITES, TLS_MIN_VERSION
from moyai.core import yamltext
from moyai.core.errors import Terminal
from moyai.core.kubernetes_version import version_numbers
from moyai.kube.resources import KUBE_SYSTEM
from moyai.spec.model import ClusterSpec
from moyai.spec.security import PodSecurity

#: Where the files are, on the control plane and in the API server's container.
FOLDER = "/etc/kubernetes/api-server"
AUDIT_FOLDER = "/var/log/kubernetes/audit"
_AUTHENTICATION, _AUDIT, _ENCRYPTION, _ADMISSION = "authentication.yaml", "audit.yaml", "encryption.yaml", "admission.yaml"
#: The only paths that a request without credentials may ask for: kubelets' probes, and what machines read before they join.
ANONYMOUS_PATHS = ("/livez", "/readyz", "/healthz", "/api/v1/namespaces/kube-public/configmaps/cluster-info")
#: Days, files and megabytes per file of the audit log.
AUDIT_DAYS, AUDIT_FILES, AUDIT_MEGABYTES = 30, 10, 100
_KEY_BYTES = 32


def new_encryption_key() -> str:
    """A key for Secrets at rest, as the API server's configuration has it."""
    return base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode()


def encryption_keys(text: str) -> tuple[tuple[str, str], ...]:
    """(name, key) of the keys on record, the one that writes first. A key without a name is that of a cluster that has had no
    other one."""
    pairs = (one.rpartition(":") for one in text.split(",") if one)
    return tuple((name or "moyai", key) for name, _, key in pairs)


def flags(spec: ClusterSpec) -> dict[str, str]:
    """Flag → value."""
    security = spec.security
    chosen = {
        "profiling": "false",
        "tls-min-version": TLS_MIN_VERSION,
        "tls-cipher-suites": ",".join(TLS_CIPHER_SUITES),
        "admission-control-config-file": f"{FOLDER}/{_ADMISSION}",
    }
    if _limits_anonymous(spec):
        chosen["authentication-config"] = f"{FOLDER}/{_AUTHENTICATION}"
    if security.encryption_at_rest:
        chosen["encryption-provider-config"] = f"{FOLDER}/{_ENCRYPTION}"
    if security.audit_log:
        chosen |= {
            "audit-policy-file": f"{FOLDER}/{_AUDIT}",
            "audit-log-path": f"{AUDIT_FOLDER}/audit.log",
            "audit-log-maxage": str(AUDIT_DAYS),
            "audit-log-maxbackup": str(AUDIT_FILES),
            "audit-log-maxsize": str(AUDIT_MEGABYTES),
        }
    return chosen


def volumes(spec: ClusterSpec) -> list[dict[str, Any]]:
    """Folders of the control plane that the API server's container needs, as kubeadm's ``extraVolumes``."""
    files = {"hostPath": FOLDER, "mountPath": FOLDER, "readOnly": True, "pathType": "Directory"}
    wanted: list[dict[str, Any]] = [{"name": "api-server", **files}]
    if spec.security.audit_log:
        folder = {"hostPath": AUDIT_FOLDER, "mountPath": AUDIT_FOLDER, "pathType": "DirectoryOrCreate"}
        wanted.append({"name": "audit-log", **folder})
    return wanted


def files(spec: ClusterSpec, *, encryption_key: str) -> dict[str, str]:
    """File name below FOLDER → content. ``encryption_key``: of the record (``encryption_keys``). Raises Terminal where Secrets
    are to be encrypted and there is no key."""
    security = spec.security
    content = {_ADMISSION: yamltext.dump(_admission(security.pod_security))}
    if _limits_anonymous(spec):
        content[_AUTHENTICATION] = yamltext.dump(_authentication(spec))
    if security.audit_log:
        content[_AUDIT] = yamltext.dump(_audit_policy())
    if security.encryption_at_rest:
        if not encryption_key:
            raise Terminal("Secrets are to be encrypted at rest, and the cluster's record has no key for them")
        content[_ENCRYPTION] = encryption(encryption_key)
    return content


def encryption(keys: str) -> str:
    """The API server's configuration of encryption at rest. ``keys``: as on record."""
    return yamltext.dump(_encryption(keys))


def _minor(spec: ClusterSpec) -> int:
    return version_numbers(spec.kubernetes_version)[1]


def _limits_anonymous(spec: ClusterSpec) -> bool:
    """An older API server cannot let requests without credentials in on some paths only, and needs some: kubelets' probes."""
    return not spec.security.anonymous_auth and _minor(spec) >= 32


def _authentication(spec: ClusterSpec) -> dict[str, Any]:
    conditions = [{"path": path} for path in ANONYMOUS_PATHS]
    return {
        "apiVersion": f"apiserver.config.k8s.io/{'v1' if _minor(spec) >= 34 else 'v1beta1'}",
        "kind": "AuthenticationConfiguration",
        "anonymous": {"enabled": True, "conditions": conditions},
    }


def _encryption(keys: str) -> dict[str, Any]:
    provider = {"secretbox": {"keys": [{"name": name, "secret": key} for name, key in encryption_keys(keys)]}}
    return {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        # the last provider reads what was stored before there was a key, such as a restored copy of another cluster
        "resources": [{"resources": ["secrets"], "providers": [provider, {"identity": {}}]}],
    }


def _admission(levels: PodSecurity) -> dict[str, Any]:
    defaults: dict[str, str] = {}
    for mode, level in (("enforce", levels.enforce), ("audit", levels.audit), ("warn", levels.warn)):
        defaults |= {mode: level, f"{mode}-version": "latest"}
    return {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AdmissionConfiguration",
        "plugins": [
            {
                "name": "PodSecurity",
                "configuration": {
                    "apiVersion": "pod-security.admission.config.k8s.io/v1",
                    "kind": "PodSecurityConfiguration",
                    "defaults": defaults,
                    # kube-proxy and the CSI driver's node part need all privileges
                    "exemptions": {"usernames": [], "runtimeClasses": [], "namespaces": [KUBE_SYSTEM]},
                },
            }
        ],
    }


def _audit_policy() -> dict[str, Any]:
    """Each request with its user and its object, and never a body: bodies would carry Secrets and tokens.

    What the cluster's own parts do all the time is left out: it would turn the log over within hours.
    """
    own = ["system:kube-scheduler", "system:kube-controller-manager", "system:apiserver"]
    accounts = "system:serviceaccounts:kube-system"
    read = ["get", "list", "watch"]
    rules: list[dict[str, Any]] = [
        {"level": "None", "nonResourceURLs": ["/healthz*", "/livez*", "/readyz*", "/version", "/openapi*"]},
        {"level": "Metadata", "resources": [{"group": "", "resources": ["secrets", "serviceaccounts/token"]}]},
        {"level": "None", "resources": [{"group": "", "resources": ["events"]}, {"group": "events.k8s.io"}]},
        {
            "level": "None",
            "userGroups": ["system:nodes", accounts],
            "verbs": ["get", "update", "patch"],
            "resources": [{"group": "coordination.k8s.io", "resources": ["leases"]}],
        },
        {
            "level": "None",
            "userGroups": ["system:nodes"],
            "verbs": ["get", "patch"],
            "resources": [{"group": "", "resources": ["nodes", "nodes/status", "pods/status"]}],
        },
        {"level": "None", "userGroups": ["system:nodes", accounts], "verbs": read},
        {"level": "None", "users": own, "verbs": read},
        {"level": "Metadata"},
    ]
    return {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": rules}
