"""Where objects of the Kubernetes API are addressed: both clients speak of a ``Resource``, and no other module writes a URL.

Always holds: every part of a path is escaped, so that a name that a user typed never reaches another object.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

#: A JSON object as the API sends it. Code that reads more than one field of it uses the parsed forms in ``kube.objects``.
Json = dict[str, Any]
#: The namespace of what a cluster itself needs.
KUBE_SYSTEM = "kube-system"
#: The API group of MetalLB's resources.
METALLB = "metallb.io"


@dataclass(frozen=True)
class Resource:
    """One kind of object of the API. ``group`` empty: the core group."""

    group: str
    version: str
    plural: str
    namespaced: bool

    def path(self, namespace: str | None = None, name: str | None = None, *, subresource: str = "") -> str:
        """Without a namespace, a namespaced resource's path means all namespaces. ValueError for a namespace of what has none,
        and for the name of one object without the namespace that it is in."""
        if (namespace and not self.namespaced) or (name and self.namespaced and not namespace):
            raise ValueError(f"{self.plural}: a namespace {'is missing' if self.namespaced else 'has no meaning'}")
        parts = ["/api" if not self.group else f"/apis/{self.group}", self.version]
        if namespace:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        if name:
            parts.append(quote(name, safe=""))
        if subresource:
            parts.append(subresource)
        return "/".join(parts)


NAMESPACES = Resource("", "v1", "namespaces", namespaced=False)
NODES = Resource("", "v1", "nodes", namespaced=False)
PODS = Resource("", "v1", "pods", namespaced=True)
SERVICES = Resource("", "v1", "services", namespaced=True)
CONFIG_MAPS = Resource("", "v1", "configmaps", namespaced=True)
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", namespaced=True)
SECRETS = Resource("", "v1", "secrets", namespaced=True)
EVENTS = Resource("", "v1", "events", namespaced=True)
CLAIMS = Resource("", "v1", "persistentvolumeclaims", namespaced=True)
VOLUMES = Resource("", "v1", "persistentvolumes", namespaced=False)
DEPLOYMENTS = Resource("apps", "v1", "deployments", namespaced=True)
DAEMON_SETS = Resource("apps", "v1", "daemonsets", namespaced=True)
DISRUPTION_BUDGETS = Resource("policy", "v1", "poddisruptionbudgets", namespaced=True)
NETWORK_POLICIES = Resource("networking.k8s.io", "v1", "networkpolicies", namespaced=True)
CLUSTER_NETWORK_POLICIES = Resource("policy.networking.k8s.io", "v1alpha2", "clusternetworkpolicies", namespaced=False)
DEFINITIONS = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", namespaced=False)
ENDPOINT_SLICES = Resource("discovery.k8s.io", "v1", "endpointslices", namespaced=True)
#: MetalLB's, which say which addresses nodes announce, and how.
ADDRESS_POOLS = Resource(METALLB, "v1beta1", "ipaddresspools", namespaced=True)
L2_ADVERTISEMENTS = Resource(METALLB, "v1beta1", "l2advertisements", namespaced=True)
SERVICE_L2_STATUSES = Resource(METALLB, "v1beta1", "servicel2statuses", namespaced=True)
SERVICE_BGP_STATUSES = Resource(METALLB, "v1beta1", "servicebgpstatuses", namespaced=True)
BGP_PEERS = Resource(METALLB, "v1beta2", "bgppeers", namespaced=True)
BGP_ADVERTISEMENTS = Resource(METALLB, "v1beta1", "bgpadvertisements", namespaced=True)
BFD_PROFILES = Resource(METALLB, "v1beta1", "bfdprofiles", namespaced=True)
COMMUNITIES = Resource(METALLB, "v1beta1", "communities", namespaced=True)
EGRESS_ADDRESSES = Resource("moyai.dev", "v1alpha1", "egressaddresses", namespaced=True)
LEASES = Resource("coordination.k8s.io", "v1", "leases", namespaced=True)
STORAGE_CLASSES = Resource("storage.k8s.io", "v1", "storageclasses", namespaced=False)
CLUSTER_ROLES = Resource("rbac.authorization.k8s.io", "v1", "clusterroles", namespaced=False)
ROLES = Resource("rbac.authorization.k8s.io", "v1", "roles", namespaced=True)
ROLE_BINDINGS = Resource("rbac.authorization.k8s.io", "v1", "rolebindings", namespaced=True)
CLUSTER_ROLE_BINDINGS = Resource("rbac.authorization.k8s.io", "v1", "clusterrolebindings", namespaced=False)
CSI_NODES = Resource("storage.k8s.io", "v1", "csinodes", namespaced=False)
CERTIFICATE_REQUESTS = Resource("certificates.k8s.io", "v1", "certificatesigningrequests", namespaced=False)
#: Which disk is, or is to be, at which node.
VOLUME_ATTACHMENTS = Resource("storage.k8s.io", "v1", "volumeattachments", namespaced=False)
