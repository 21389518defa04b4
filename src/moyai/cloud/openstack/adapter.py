"""OpenStack as a kind of cloud (``cloud.adapter.Adapter``), and one account at one OpenStack: all its APIs behind
``cloud.capabilities.Cloud``, logged in at the first call.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moyai.cloud.adapter import VolumeNames
from moyai.cloud.capabilities import Capability
from moyai.cloud.credentials import Reach
from moyai.cloud.openstack.cinder import CinderDisks
from moyai.cloud.openstack.cloud_conf import MEANINGS, GlobalConfig, IssuedLogin, issued_login, read_login
from moyai.cloud.openstack.glance import GlanceImages
from moyai.cloud.openstack.guest import OpenStackGuest
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
from moyai.cloud.openstack.quotas import OpenStackQuotas
from moyai.cloud.openstack.session import CloudSession
from moyai.core.errors import Terminal

#: The service of the catalog that a capability needs; those that are not named stand on Keystone, Nova and Neutron.
_SERVICES = {Capability.DISKS: "block-storage", Capability.LOAD_BALANCERS: "load-balancer"}


class OpenStackCloud:
    """Implements ``cloud.capabilities.Cloud``; ``name`` is what the user calls the cloud. Safe from several threads."""

    def __init__(self, session: CloudSession) -> None:
        self.adapter = ADAPTER
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
        self.quotas = OpenStackQuotas(session, self.machines)

    def capabilities(self) -> frozenset[Capability]:
        """What the service catalog or the configuration names; the catalog comes with the token: no further call is made."""
        absent = {capability for capability, service in _SERVICES.items() if not self.session.offers(service)}
        return frozenset(set(Capability) - absent)


def connect(
    cloud: str | None = None, *, credential: ApplicationCredential | None = None, way: Way = PLAIN_WAY
) -> OpenStackCloud:
    """The cloud of the entry ``cloud`` in clouds.yaml (None: ``OS_CLOUD``, or the only entry), or of an application credential,
    reached by ``way``.

    Nothing is sent before the first call. Raises UsageError for an entry that is not there or not complete.
    """
    return OpenStackCloud(open_session(cloud, credential=credential, way=way))


class OpenStackAdapter:
    """Implements ``cloud.adapter.Adapter``. Names are those of OpenStack's own cloud provider and of Cinder CSI."""

    name = "openstack"
    volume_names = VolumeNames("cinder.csi.openstack.org", objects="csi-cinder", container="cinder-csi-plugin")
    guest_folders = ("/run/cloud-init",)
    #: Nova's.
    user_data_limit = 65535
    login_type: type[Any] = GlobalConfig
    login_purpose = "The login is an application credential, or a user, a password and a project."
    login_meanings: Mapping[str, str] = MEANINGS

    def load(self) -> None:
        # keystoneauth takes its time to import
        import keystoneauth1.identity.v3  # pyright: ignore[reportUnusedImport]
        import keystoneauth1.session  # noqa: F401  # pyright: ignore[reportUnusedImport]

    def connect(self, name: str | None) -> OpenStackCloud:
        return connect(name)

    def read_login(self, section: Mapping[str, str | None]) -> GlobalConfig:
        return read_login(section)

    def issued_login(self, *, cloud: str, region: str, url: str, credential_id: str, secret: str, reach: Reach) -> IssuedLogin:
        if not url:
            hint = "its service catalog needs an identity endpoint"
            raise Terminal(f"cloud {cloud} does not say where the cluster logs in", hint=hint)
        return issued_login(url=url, region=region, credential_id=credential_id, secret=secret, reach=reach)

    def guest(self) -> OpenStackGuest:
        return OpenStackGuest()


ADAPTER = OpenStackAdapter()
