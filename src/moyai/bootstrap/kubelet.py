"""The kubelets' configuration (v1beta1): what all nodes of a cluster share, and what a node has from the spec of its own time.

Always holds: the shared part is in the cluster since `kubeadm init`, and every kubeadm that joins reads it there. ``switches``
are written on each machine as a patch of it, so that a changed spec counts for each machine that is made from then on. What the
machines of the local cloud need (cgroup v1, no CAP_SYS_RESOURCE, a disk that they share) is in it, where it does no harm
elsewhere.
"""

from __future__ import annotations

from typing import Any

from moyai.core import yamltext
from moyai.spec.security import Security

#: kubeadm's name for a patch of the kubelet's configuration.
PATCH_FILE = "kubeletconfiguration0+merge.yaml"
TLS_MIN_VERSION = "VersionTLS12"
#: Of TLS 1.2, those with authenticated encryption and forward secrecy; those of TLS 1.3 cannot be chosen. HTTP/2 needs AES-128.
TLS_CIPHER_SUITES = (
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
)


def switches(security: Security) -> dict[str, Any]:
    """The fields that the spec decides."""
    high = security.image_gc_high_threshold_percent
    return {
        "seccompDefault": security.seccomp_default,
        "podPidsLimit": security.pod_pids_limit,
        "protectKernelDefaults": security.protect_kernel_defaults,
        "evictionHard": security.eviction_hard,
        "imageGCHighThresholdPercent": high,
        "imageGCLowThresholdPercent": high - 1 if high == 100 else high - 5,
    }


def patch(security: Security) -> str:
    """The patch that gives a node its ``switches``."""
    return yamltext.dump(switches(security))


def configuration(security: Security, *, pod_prefix: int) -> dict[str, Any]:
    """The whole configuration, as `kubeadm init` takes it. ``pod_prefix``: prefix length of one node's pod range."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "serializeImagePulls": False,
        "maxPods": min(110, 2 ** (32 - pod_prefix) - 3),
        # a change, such as a disk in use for which its pod waits, is reported soon; no change is reported rarely
        "nodeStatusUpdateFrequency": "1s",
        "nodeStatusReportFrequency": "5m",
        # renewed every quarter of it: the cloud controller manager asks the cloud about a node that has missed one renewal
        "nodeLeaseDurationSeconds": 12,
        "tlsMinVersion": TLS_MIN_VERSION,
        "tlsCipherSuites": list(TLS_CIPHER_SUITES),
        "enableProfilingHandler": False,
        **switches(security),
    }
