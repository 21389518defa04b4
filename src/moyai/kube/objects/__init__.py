"""Kubernetes objects as moyai knows them: frozen, small, and parsed at one place each.

``parse_*`` take the API's JSON. Always holds: what nobody looks at is not kept; a controller's cache of facts takes a tenth of
the memory that one of objects takes.
"""

from moyai.kube.objects.announce import (
    AddressPool,
    AddressRange,
    Allocation,
    L2Advertisement,
    parse_address_pool,
    parse_l2_advertisement,
    parse_range,
)
from moyai.kube.objects.endpoints import Endpoints, parse_endpoints
from moyai.kube.objects.event import ObjectEvent, parse_event
from moyai.kube.objects.meta import NamespacedName, Reference, condition, object_key, reference, stamp
from moyai.kube.objects.node import UNINITIALIZED, Lease, Node, NodeAddress, Taint, network_available, parse_lease, parse_node
from moyai.kube.objects.pod import Container, Pod, parse_pod
from moyai.kube.objects.policy import (
    Alike,
    NetworkPolicy,
    PolicyNamespace,
    PolicyPod,
    parse_policy,
    parse_policy_namespace,
    parse_policy_pod,
)
from moyai.kube.objects.service import Ingress, Service, ServicePort, parse_service
from moyai.kube.objects.storage import (
    Claim,
    CsiNode,
    PersistentVolume,
    StorageClass,
    VolumeAttachment,
    parse_attachment,
    parse_claim,
    parse_csi_node,
    parse_storage_class,
    parse_volume,
)
from moyai.kube.objects.workload import (
    DaemonSet,
    Deployment,
    apart,
    api_host,
    api_variables,
    first_image,
    parse_daemon_set,
    parse_deployment,
    secret_variables,
)

__all__ = [
    "UNINITIALIZED",
    "AddressPool",
    "AddressRange",
    "Alike",
    "Allocation",
    "Claim",
    "Container",
    "CsiNode",
    "DaemonSet",
    "Deployment",
    "Endpoints",
    "Ingress",
    "L2Advertisement",
    "Lease",
    "NamespacedName",
    "NetworkPolicy",
    "Node",
    "NodeAddress",
    "ObjectEvent",
    "PersistentVolume",
    "Pod",
    "PolicyNamespace",
    "PolicyPod",
    "Reference",
    "Service",
    "ServicePort",
    "StorageClass",
    "Taint",
    "VolumeAttachment",
    "apart",
    "api_host",
    "api_variables",
    "condition",
    "first_image",
    "network_available",
    "object_key",
    "parse_address_pool",
    "parse_attachment",
    "parse_claim",
    "parse_csi_node",
    "parse_daemon_set",
    "parse_deployment",
    "parse_endpoints",
    "parse_event",
    "parse_l2_advertisement",
    "parse_lease",
    "parse_node",
    "parse_pod",
    "parse_policy",
    "parse_policy_namespace",
    "parse_policy_pod",
    "parse_range",
    "parse_service",
    "parse_storage_class",
    "parse_volume",
    "reference",
    "secret_variables",
    "stamp",
]
