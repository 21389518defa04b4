"""Names, tags and descriptions in the cloud by which a load balancer's parts are recognised as a Service's own."""

from __future__ import annotations

from moyai.core.ids import SERVICE_TAG_PREFIX, ClusterIdentity, cluster_tag
from moyai.kube.objects import Service

#: Tag key: the UID of a Service that uses the load balancer. Names repeat from cluster to cluster, UIDs do not.
SERVICE_UID_KEY = "moyai.service"


def load_balancer_name(cluster: ClusterIdentity, service: Service) -> str:
    """As openstack-cloud-controller-manager calls it."""
    return f"{SERVICE_TAG_PREFIX}{cluster.name}_{service.namespace}_{service.name}"[:255]


def named_after(name: str, cluster: ClusterIdentity) -> bool:
    """Whether a load balancer has its name from the cluster as it is called now."""
    namespace, _, service = service_key_of(name).partition("/")
    return name == f"{SERVICE_TAG_PREFIX}{cluster.name}_{namespace}_{service}"[:255]


def service_uid_tag(service: Service) -> str:
    return f"{SERVICE_UID_KEY}={service.uid}"


def service_key_of(name: str) -> str:
    """``namespace/name`` of the Service that a load balancer's name or tag was made for, whatever its cluster was called then;
    empty where the text is no such name."""
    if not name.startswith(SERVICE_TAG_PREFIX):
        return ""
    # neither a namespace nor a Service may have an underscore in its name; a cluster may
    parts = name.rsplit("_", 2)
    return f"{parts[1]}/{parts[2]}" if len(parts) == 3 and parts[1] and parts[2] else ""


def service_address_mark(cluster: ClusterIdentity, service_key: str) -> str:
    """How the description of a floating IP begins that was made for the Service, whatever the cluster was called then."""
    return f"{cluster_tag(cluster.uid)} floating IP of service {service_key} of cluster "


def service_address_description(cluster: ClusterIdentity, service_key: str) -> str:
    """With the UID first, so that it is never cut off: the description alone identifies the cluster."""
    return f"{service_address_mark(cluster, service_key)}{cluster.name}"[:255]
