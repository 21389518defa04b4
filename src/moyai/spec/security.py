"""The spec's section ``security``: hardened by default, and each switch with which a cluster goes without.

Always holds: the defaults are for new clusters. A cluster that exists keeps what its spec leaves out, so that neither an older
cluster nor a change of these defaults makes a difference between a cluster and its spec.
Sources of names and values: KubeletConfiguration v1beta1, the flags of kube-apiserver, PodSecurityConfiguration v1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import AfterValidator, Field

from moyai.spec.base import Model, problem

#: Space is in bytes: the machines of the local cloud see the disk of their host, and a share of that disk would evict pods from
#: a node that has room. Files are a share, as some file systems count none.
EVICTION_HARD: Mapping[str, str] = {
    "memory.available": "50Mi",
    "nodefs.available": "1Gi",
    "nodefs.inodesFree": "1%",
    "imagefs.available": "1Gi",
    "imagefs.inodesFree": "1%",
}
#: Beside those above, what a kubelet knows.
_SIGNALS = (*EVICTION_HARD, "pid.available")
_THRESHOLD = re.compile(r"(\d{1,2}(\.\d+)?%|100%|\d{1,15}(Ki|Mi|Gi|Ti|k|M|G|T)?)")
#: Enough for any pod that is not a fork bomb.
POD_PIDS = 4096
#: Fewer processes than this, and the pods that every node has do not start.
LEAST_POD_PIDS = 64
Level = Literal["privileged", "baseline", "restricted"]
_M = TypeVar("_M", bound=Model)


def _eviction(given: dict[str, str]) -> dict[str, str]:
    for signal, threshold in given.items():
        if signal not in _SIGNALS:
            raise problem(f"one of {', '.join(_SIGNALS)}, not {signal!r}")
        if not _THRESHOLD.fullmatch(threshold):
            raise problem("a quantity such as 1Gi, or a share such as 5%", at=(signal,))
    return {**EVICTION_HARD, **given}


def _pids(limit: int) -> int:
    if limit != -1 and not LEAST_POD_PIDS <= limit <= 2**22:
        raise problem(f"{LEAST_POD_PIDS} to {2**22}, or -1 for no limit")
    return limit


class PodSecurity(Model):
    """The [Pod Security Standard](https://kubernetes.io/docs/concepts/security/pod-security-standards/) of namespaces without
    labels of their own (`pod-security.kubernetes.io/…`). The namespace kube-system is exempt."""

    enforce: Level = Field(default="privileged", description="Pods that violate this level are refused.")
    audit: Level = Field(default="baseline", description="Pods that violate this level are marked in the audit log.")
    warn: Level = Field(default="baseline", description="Clients that create pods which violate this level get a warning.")


class Security(Model):
    """What nodes and the API server permit. A new cluster gets the defaults. A cluster that exists keeps what its spec leaves
    out: a cluster of a moyai without this section goes on as it is."""

    seccomp_default: bool = Field(
        default=True, description="Whether containers without a seccomp profile get the container runtime's (`RuntimeDefault`)."
    )
    pod_pids_limit: Annotated[int, AfterValidator(_pids)] = Field(
        default=POD_PIDS, description="How many processes and threads a pod may have; -1: no limit."
    )
    protect_kernel_defaults: bool = Field(
        default=True,
        description="Whether a kubelet refuses to start on a machine with other kernel settings than it needs, instead of "
        "changing them. moyai sets them before the kubelet starts.",
    )
    eviction_hard: Annotated[dict[str, str], AfterValidator(_eviction)] = Field(
        default_factory=lambda: dict(EVICTION_HARD),
        description="When a kubelet evicts pods, by signal: below these amounts. Signals that are left out have the default.",
    )
    image_gc_high_threshold_percent: Annotated[int, Field(ge=10, le=100)] = Field(
        default=100,
        alias="imageGCHighThresholdPercent",
        description="How full its disk is when a kubelet deletes unused images. 100: only when `evictionHard` asks for room, "
        "which suits machines that share a disk. Images of the node image are never deleted.",
    )
    anonymous_auth: bool = Field(
        default=False,
        description="Whether the API server takes requests without credentials on every path. `false`: only on /livez, /readyz "
        "and /healthz, and for the ConfigMap that machines read before they join (Kubernetes 1.32 and later).",
    )
    audit_log: bool = Field(
        default=True,
        description="Whether the API server logs every request, with its user and its object, in /var/log/kubernetes/audit "
        "on the control plane: never contents, at most 1.1 GB.",
    )
    encryption_at_rest: bool = Field(
        default=True, description="Whether Secrets are encrypted in etcd, with a key in the cluster's record."
    )
    pod_security: PodSecurity = Field(default_factory=PodSecurity, description="Pod Security Standards.")


#: What clusters have that were built before there was the section, or a field of it.
BEFORE = Security.model_validate(
    {
        "seccompDefault": False,
        "podPidsLimit": -1,
        "protectKernelDefaults": False,
        "evictionHard": {"nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "anonymousAuth": True,
        "auditLog": False,
        "encryptionAtRest": False,
        "podSecurity": {"enforce": "privileged", "audit": "privileged", "warn": "privileged"},
    }
)


def kept(given: Security, has: object) -> Security:
    """``given``, with what a cluster ``has`` in the place of the fields that the spec leaves out. ``has``: a dumped section."""
    return _merged(given, has)


def _merged(given: _M, has: object) -> _M:
    if not isinstance(has, Mapping):
        return given
    has = cast("Mapping[str, Any]", has)
    values: dict[str, Any] = {}
    for name, field in type(given).model_fields.items():
        alias, value = field.alias or name, getattr(given, name)
        if alias not in has:
            continue
        if isinstance(value, Model):
            values[name] = _merged(value, has[alias])
        elif name not in given.model_fields_set:
            values[name] = has[alias]
    return given.model_copy(update=values)
