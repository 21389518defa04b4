"""OpenStack as a kind of cloud. Names are those of OpenStack's own cloud provider and of Cinder CSI."""

from __future__ import annotations

from collections.abc import Mapping

from moyai.cloud.credentials import Reach
from moyai.cloud.kind import VolumeNames, VolumeRules
from moyai.cloud.openstack.cloud_conf import IssuedLogin, issued_login
from moyai.core.errors import Terminal


class OpenStackKind:
    """Implements ``cloud.kind.CloudKind``."""

    name = "openstack"
    volume_names = VolumeNames("cinder.csi.openstack.org", objects="csi-cinder", container="cinder-csi-plugin")
    #: Neutron's default (max_allowed_address_pair).
    sources_of_port = 10
    #: Neutron's objects have no other place for their owner.
    needs_tags = True
    guest_folders = ("/run/cloud-init",)
    #: Nova's.
    user_data_limit = 65535
    volume_rules = VolumeRules()
    starts_by_script = False
    takes_rsa_keys = False

    def volume_type(self, parameters: Mapping[str, str]) -> str:
        return parameters.get("type", "")

    def cloud_name(self, uid: str, name: str) -> str:
        return name

    def issued_login(self, *, cloud: str, region: str, url: str, credential_id: str, secret: str, reach: Reach) -> IssuedLogin:
        if not url:
            hint = "its service catalog needs an identity endpoint"
            raise Terminal(f"cloud {cloud} does not say where the cluster logs in", hint=hint)
        return issued_login(url=url, region=region, credential_id=credential_id, secret=secret, reach=reach)
