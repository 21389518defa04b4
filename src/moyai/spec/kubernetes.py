"""What Kubernetes takes as keys and values of labels and taints, and which of them no user may give to a node.

Always holds: with labels and taints that pass these rules a kubelet starts, and the API server takes its Node.
Sources: k8s.io/apimachinery/pkg/util/validation, k8s.io/component-helpers/node/util, admission plug-in NodeRestriction.
"""

from __future__ import annotations

import re

_MOST_PREFIX = 253
_PREFIX = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
#: Of pods, Services, Nodes and namespaces: RFC 1123 and its length for subdomains.
_OBJECT = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_WORD = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
#: kubelets may give themselves only labels of these below kubernetes.io and k8s.io.
_KUBELETS = ("kubelet.kubernetes.io", "node.kubernetes.io")
#: The cloud controller manager sets them from what the cloud says.
_CLOUDS = frozenset({"node.kubernetes.io/instance-type"})
#: Kubernetes and the cloud controller manager set and remove taints of these, by a node's condition.
_CONDITIONS = ("node.kubernetes.io", "node.cloudprovider.kubernetes.io")
_MOYAIS = "moyai.dev"


def is_object_name(name: str) -> bool:
    """Whether a Node, a pod, a Service or a namespace may have the name."""
    return _OBJECT.fullmatch(name) is not None


def is_key(key: str) -> bool:
    """Whether ``key`` is a qualified name: up to 63 characters, behind a DNS subdomain and ``/`` or alone."""
    prefix, slash, word = key.rpartition("/")
    if slash and (len(prefix) > _MOST_PREFIX or not _PREFIX.fullmatch(prefix)):
        return False
    return _WORD.fullmatch(word) is not None


def is_value(value: str) -> bool:
    """Whether ``value`` may stand in a label or a taint; it may be empty."""
    return not value or _WORD.fullmatch(value) is not None


def label_taken(key: str) -> str:
    """Why a node of the user's may not have a label of this key; empty where it may."""
    prefix = key.rpartition("/")[0]
    if _below(prefix, _MOYAIS):
        return f"moyai sets the labels of {_MOYAIS} itself"
    if key in _CLOUDS:
        return "the cloud controller manager sets this label itself"
    reserved = _below(prefix, "kubernetes.io", "k8s.io")
    if reserved and not _below(prefix, *_KUBELETS):
        return "a node may not give itself labels of kubernetes.io or k8s.io, but for those of node.kubernetes.io"
    return ""


def taint_taken(key: str) -> str:
    """Why a pool may not have a taint of this key; empty where it may."""
    prefix = key.rpartition("/")[0]
    if prefix in _CONDITIONS:
        return f"the cluster sets and removes the taints of {prefix} itself"
    if _below(prefix, _MOYAIS):
        return f"moyai sets the taints of {_MOYAIS} itself"
    return ""


def _below(prefix: str, *domains: str) -> bool:
    return any(prefix == domain or prefix.endswith("." + domain) for domain in domains)
