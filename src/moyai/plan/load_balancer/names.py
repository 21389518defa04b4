"""Names and descriptions in the cloud by which a load balancer's parts are recognised as a Service's own."""

from __future__ import annotations

from moyai.core.ids import SERVICE_TAG_PREFIX, ClusterIdentity, cluster_tag
from moyai.kube.objects import Service


def load_balancer_name(cluster: ClusterIdentity, service: Service) -> str:
    """As openstack-cloud-controller-manager calls it."""
    return f"{SERVICE_TAG_PREFIX}{cluster.name}_{service.namespace}_{service.name}"[:255]


def service_address_description(cluster: ClusterIdentity, service_key: str) -> str:
    """With the UID first, so that it is never cut off: the description alone identifies the cluster."""
    return f"{cluster_tag(cluster.uid)} floating IP of service {service_key} of cluster {cluster.name}"[:255]
