"""Names and tags of what moyai makes. One owner for everything: the cluster's UID is in every tag.

The UID is drawn once per cluster and never changes; an object that carries another UID is never touched.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import Literal

#: Tag key on cloud objects (as ``moyai.cluster=UID`` where tags are plain strings, as key and value in metadata).
CLUSTER_TAG = "moyai.cluster"
ROLE_KEY = "moyai.role"
#: The values of ``ROLE_KEY``.
Role = Literal["control-plane", "worker", "machine"]
#: Server metadata and tag of ports: the name of a machine beside the cluster, which is no node.
MACHINE_KEY = "moyai.machine"
POOL_KEY = "moyai.pool"
#: Label of a Node: the same.
POOL_LABEL = "moyai.dev/pool"
#: Server metadata: the key that opens the encrypted part of a control plane's user data, until the machine has used it.
UNSEALING_KEY = "moyai.key"
#: Description of the bootstrap tokens that moyai makes, by which it knows them from those of other people.
TOKEN_DESCRIPTION = "moyai: machines of this cluster join with it"
#: Server metadata: the pod CIDR that the planner gave this node; the cloud controller manager copies it to the Node.
POD_CIDR_KEY = "moyai.pod-cidr"
#: Label of a Node: the same, where servers have no metadata; ``_`` stands for ``/``.
POD_CIDR_LABEL = "moyai.dev/pod-cidr"
#: Server metadata: what the machine was made with, by which a plan knows one that is out of date.
TEMPLATE_KEY = "moyai.template"
#: Annotation of a Node that `up` removes: what was done to it before its machine goes, so that a removal that is called off can
#: be undone.
REMOVAL_KEY = "moyai.dev/removal"
#: Label of a Node: the zone of its machine, by Kubernetes' own name. The CSI driver offers it as a key of topologies, too.
ZONE_LABEL = "topology.kubernetes.io/zone"
#: Tag of a floating IP that outlives its Service and its cluster.
KEEP_TAG = "moyai.keep=true"
#: Begins the name and the tag of what belongs to a Service of type LoadBalancer, as in openstack-cloud-controller-manager.
SERVICE_TAG_PREFIX = "kube_service_"
#: The ConfigMap of kube-system in a cluster that was restored from a backup. While it is there, nothing in the cloud is removed
#: because no Service has it: its Service may be younger than the backup. Its ``made`` says when the backup was made.
RESTORED = "moyai-restored"
#: Name in kube-system of the Secret that holds the cluster's record, and of the Lease of whoever works on the cluster.
CLUSTER_RECORD = "moyai-record"
#: Name of the DaemonSet whose pods are the nodes' agents, and of its configuration.
AGENT = "moyai-agent"
#: Begins the name of a node image in the cloud; the version of Kubernetes that it holds follows.
NODE_IMAGE = "moyai-node-"
#: The image of kube-proxy in the node's own version. Each node image has it under this name, so that one DaemonSet serves nodes
#: of several versions.
NODE_KUBE_PROXY = "registry.moyai.dev/kube-proxy:node"

#: Properties of an image: the digest of the disk that it holds, and the version of Kubernetes.
IMAGE_DIGEST, IMAGE_VERSION = "moyai_sha256", "moyai_kubernetes_version"

_DNS_LABEL = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")


@dataclass(frozen=True)
class ClusterIdentity:
    """``uid`` marks what belongs to the cluster; ``name`` is in the names that users see in their cloud."""

    name: str
    uid: str


def new_uid() -> str:
    """A new cluster UID: 10 hexadecimal digits, unique enough for the clusters of one cloud."""
    return secrets.token_hex(5)


def cluster_tag(uid: str) -> str:
    """The tag string that marks an object as the cluster's own."""
    return f"{CLUSTER_TAG}={uid}"


def machine_tag(name: str) -> str:
    """The tag string that marks a port as that of a machine beside the cluster."""
    return f"{MACHINE_KEY}={name}"


def tag_owner(tag: str) -> str | None:
    """The UID in a tag that ``cluster_tag`` made, None for any other tag."""
    key, _, uid = tag.partition("=")
    return uid if key == CLUSTER_TAG and uid else None


def node_image(version: str) -> str:
    """Name in the cloud of the node image with this version of Kubernetes."""
    return f"{NODE_IMAGE}{version}"


def version_in_image(name: str) -> str:
    """The version that ``node_image`` was given; empty for a name that it did not make."""
    return name.removeprefix(NODE_IMAGE) if name.startswith(NODE_IMAGE) else ""


def is_dns_label(name: str, *, max_length: int = 63) -> bool:
    """Whether ``name`` can be part of a host name (RFC 1123, starting with a letter)."""
    return len(name) <= max_length and _DNS_LABEL.fullmatch(name) is not None
