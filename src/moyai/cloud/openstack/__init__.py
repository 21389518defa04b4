"""The OpenStack adapter. The only place that imports openstacksdk and keystoneauth, and only once a session is opened."""

from moyai.cloud.openstack.login import ApplicationCredential, Way
from moyai.cloud.openstack.openstack_adapter import ADAPTER
from moyai.cloud.openstack.openstack_cloud import OpenStackCloud, connect

__all__ = ["ADAPTER", "ApplicationCredential", "OpenStackCloud", "Way", "connect"]
