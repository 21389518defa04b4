"""One account at one OpenStack: all its APIs behind ``cloud.protocols.Cloud``, logged in at the first call."""

from __future__ import annotations

from moyai.cloud.openstack.cinder import CinderVolumes
from moyai.cloud.openstack.glance import GlanceImages
from moyai.cloud.openstack.keystone import KeystoneIdentity
from moyai.cloud.openstack.login import ApplicationCredential, open_session
from moyai.cloud.openstack.neutron.networks import DEFAULT_MAX_ROUTES, NeutronNetwork
from moyai.cloud.openstack.nova import NovaCompute
from moyai.cloud.openstack.octavia import OctaviaLoadBalancers
from moyai.cloud.openstack.session import CloudSession


class OpenStackCloud:
    """Implements ``cloud.protocols.Cloud``; ``name`` is what the user calls the cloud. Safe from several threads."""

    def __init__(self, session: CloudSession, *, max_routes: int = DEFAULT_MAX_ROUTES) -> None:
        self.name = session.name
        self.session = session
        self.compute = NovaCompute(session)
        self.network = NeutronNetwork(session, max_routes=max_routes)
        self.images = GlanceImages(session)
        self.volumes = CinderVolumes(session)
        self.identity = KeystoneIdentity(session)
        self.load_balancers = OctaviaLoadBalancers(session)


def connect(
    cloud: str | None = None,
    *,
    credential: ApplicationCredential | None = None,
    max_routes: int = DEFAULT_MAX_ROUTES,
) -> OpenStackCloud:
    """The cloud of the entry ``cloud`` in clouds.yaml (None: ``OS_CLOUD``, or the only entry), or of an application credential.

    Nothing is sent before the first call. ``max_routes``: the cloud's limit of extra routes a router, which no API tells.
    Raises UsageError for an entry that is not there or not complete.
    """
    return OpenStackCloud(open_session(cloud, credential=credential), max_routes=max_routes)
