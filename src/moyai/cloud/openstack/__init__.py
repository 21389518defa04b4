"""The OpenStack adapter. The only place that imports openstacksdk and keystoneauth, and only once a session is opened."""

from moyai.cloud.openstack.adapter import ADAPTER, OpenStackCloud, connect
from moyai.cloud.openstack.login import ApplicationCredential, Way

__all__ = ["ADAPTER", "ApplicationCredential", "OpenStackCloud", "Way", "connect"]
