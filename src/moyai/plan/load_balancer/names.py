"""Names, tags and descriptions in the cloud by which a load balancer's parts are recognised as a Service's own.

Only this module takes them apart again. A load balancer of an interrupted controller has no tag yet, and a floating IP has no
tag for its Service, so its description alone names its owner when the Service is gone.
"""

from __future__ import annotations

from moyai.core.ids import SERVICE_TAG_PREFIX, ClusterIdentity, cluster_tag
from moyai.kube.objects import Service

#: Tag key: the UID of a Service that uses the load balancer. Names repeat from cluster to cluster, UIDs do not.
_SERVICE_UID_KEY = "moyai.service"


def load_balancer_name(cluster: ClusterIdentity, service: Service) -> str:
    """As openstack-cloud-controller-manager calls it."""
    return f"{SERVICE_TAG_PREFIX}{cluster.name}_{service.namespace}_{service.name}"[:255]


def names_service(text: str) -> bool:
    """Whether a name or a tag is a Service's, of whatever cluster."""
    return text.startswith(SERVICE_TAG_PREFIX)


def names_service_of(cluster: str, text: str) -> bool:
    """Whether a name or a tag is of a Service of the cluster that is called ``cluster``."""
    return text.startswith(f"{SERVICE_TAG_PREFIX}{cluster}_")


def service_of_name(text: str) -> str:
    """``namespace/name`` of the Service in a name or a tag, whatever its cluster was called then; empty for any other text."""
    # neither a namespace nor a Service may have an underscore in its name; a cluster may
    parts = text.rsplit("_", 2) if names_service(text) else []
    return f"{parts[1]}/{parts[2]}" if len(parts) == 3 and parts[1] and parts[2] else ""


def service_uid_tag(service: Service) -> str:
    return f"{_SERVICE_UID_KEY}={service.uid}"


def is_service_uid_tag(tag: str) -> bool:
    """Whether ``service_uid_tag`` made it, for whatever Service."""
    return tag.startswith(f"{_SERVICE_UID_KEY}=")


def service_address_mark(cluster: ClusterIdentity, service_key: str) -> str:
    """How ``service_address_description`` begins, whatever the cluster was called then."""
    return f"{cluster_tag(cluster.uid)} floating IP of service {service_key} of cluster "


def service_address_description(cluster: ClusterIdentity, service_key: str) -> str:
    """With the UID first, so that it is never cut off: the description alone identifies the cluster."""
    return f"{service_address_mark(cluster, service_key)}{cluster.name}"[:255]


def service_of_address(cluster: ClusterIdentity, description: str) -> str | None:
    """The key of the Service that ``service_address_description`` was given, None for any other description."""
    head, _, tail = service_address_mark(cluster, "/").partition("/")
    if not description.startswith(head):
        return None
    return description.removeprefix(head).partition(tail)[0]
