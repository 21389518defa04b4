"""One account at one OpenStack: all its APIs behind ``cloud.capabilities.Cloud``, logged in at the first call."""

from __future__ import annotations

from typing import cast

from moyai.cloud.capabilities import AbsentPart, Capability
from moyai.cloud.entrances import Entrances
from moyai.cloud.openstack.cinder import CinderDisks
from moyai.cloud.openstack.glance import GlanceImages
from moyai.cloud.openstack.keystone import KeystoneAccount, KeystoneCredentials
from moyai.cloud.openstack.login import PLAIN_WAY, ApplicationCredential, Way, open_session
from moyai.cloud.openstack.neutron.addresses import NeutronAddresses
from moyai.cloud.openstack.neutron.firewall import NeutronFirewall
from moyai.cloud.openstack.neutron.networks import NeutronNetworks
from moyai.cloud.openstack.neutron.parts import NeutronTags
from moyai.cloud.openstack.neutron.routers import NeutronRouters
from moyai.cloud.openstack.neutron.routes import NeutronPodRouting
from moyai.cloud.openstack.nova import NovaMachines
from moyai.cloud.openstack.octavia import OctaviaLoadBalancers
from moyai.cloud.openstack.openstack_kind import OpenStackKind
from moyai.cloud.openstack.quotas import OpenStackQuotas
from moyai.cloud.openstack.session import CloudSession
from moyai.cloud.openstack.survey import OpenStackSurvey


class OpenStackCloud:
    """Implements ``cloud.capabilities.Cloud``; ``name`` is what the user calls the cloud. Safe from several threads."""

    def __init__(self, session: CloudSession) -> None:
        self.kind = OpenStackKind()
        self.name = session.name
        self.session = session
        self.machines = NovaMachines(session)
        self.networks = NeutronNetworks(session)
        self.routers = NeutronRouters(session)
        self.firewall = NeutronFirewall(session)
        self.addresses = NeutronAddresses(session)
        self.pod_routing = NeutronPodRouting(session)
        self.tags = NeutronTags(session)
        self.images = GlanceImages(session)
        self.disks = CinderDisks(session)
        self.load_balancers = OctaviaLoadBalancers(session)
        self.credentials = KeystoneCredentials(session)
        self.account = KeystoneAccount(session)
        # floating IPs and Octavia's load balancers do more
        self.entrances = cast("Entrances", AbsentPart(session.name, Capability.ENTRANCES))
        self.quotas = OpenStackQuotas(session, self.machines)
        self.survey = OpenStackSurvey(session, lambda: self.credentials.credentials(name_prefix=""))

    def capabilities(self) -> frozenset[Capability]:
        return self.session.capabilities()


def connect(
    cloud: str | None = None, *, credential: ApplicationCredential | None = None, way: Way = PLAIN_WAY
) -> OpenStackCloud:
    """The cloud of the entry ``cloud`` in clouds.yaml (None: ``OS_CLOUD``, or the only entry), or of an application credential,
    reached by ``way``.

    Nothing is sent before the first call. Raises UsageError for an entry that is not there or not complete.
    """
    return OpenStackCloud(open_session(cloud, credential=credential, way=way))
