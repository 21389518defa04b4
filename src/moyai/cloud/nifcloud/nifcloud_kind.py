"""NIFCLOUD as a kind of cloud, and section ``[Global]`` of its cloud.conf. The names are those of the cloud's own controller
manager and CSI driver."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from moyai.cloud.config_file import LOGIN_SECTION, write_section
from moyai.cloud.credentials import Reach
from moyai.cloud.kind import GUEST_FOLDER, LOGIN_FOLDER, VolumeNames, VolumeRules
from moyai.cloud.nifcloud.disk_types import disk_type
from moyai.cloud.nifcloud.marks import Mark, wire_name
from moyai.cloud.nifcloud.nifcloud_limits import DISK_STEP_GB, SERVER_DISKS, USER_DATA_BYTES

_AUTHORITIES = "ca.pem"
MEANINGS: Mapping[str, str] = {
    "region": "Region, such as `jp-east-1`. Required.",
    "access_key_id": "Id of the account's access key.",
    "secret_access_key": "Its secret.",
    "zone": "Zone of what is made without one; empty: the account's default.",
    "accounting": "How servers, disks, private LANs and load balancers are charged: `hourly` or `monthly`; empty: `hourly`.",
    "endpoint_url": "Address of the computing API; empty: the region's own.",
    "ca_file": "File with the authorities for TLS; empty: the system's.",
}


@dataclass(frozen=True)
class NifcloudKeys:
    """The keys of section ``[Global]``."""

    region: str = ""
    access_key_id: str = ""
    secret_access_key: str = field(default="", repr=False)
    zone: str = ""
    accounting: str = ""
    endpoint_url: str = ""
    ca_file: str = ""


@dataclass(frozen=True)
class NifcloudLogin:
    """Implements ``cloud.kind.Login``. ``authorities``: what the file that ``ca_file`` names holds, where the login brings
    it."""

    keys: NifcloudKeys
    authorities: str = ""
    environment: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)

    @property
    def region(self) -> str:
        return self.keys.region

    @property
    def secrets(self) -> tuple[str, ...]:
        return (self.keys.secret_access_key, *self.environment.values())

    @property
    def files(self) -> Mapping[str, str]:
        return {_AUTHORITIES: self.authorities} if self.authorities else {}

    @property
    def missing(self) -> str:
        names = ("region", "access_key_id", "secret_access_key")
        return next((name.replace("_", "-") for name in names if not getattr(self.keys, name)), "")

    def lines(self) -> list[str]:
        return write_section(f"[{LOGIN_SECTION}]", self.keys)


class NifcloudKind:
    """Implements ``cloud.kind.CloudKind``."""

    name = "nifcloud"
    volume_names = VolumeNames(
        "additional-storage.csi.nifcloud.com", objects="csi-nifcloud", container="nifcloud-additional-storage-csi-driver"
    )
    sources_of_port = 0
    #: Descriptions have the owner.
    needs_tags = False
    #: `up` writes there which server this is, with the start that it sends.
    guest_folders: tuple[str, ...] = (GUEST_FOLDER,)
    user_data_limit = USER_DATA_BYTES
    volume_rules = VolumeRules(step_gb=DISK_STEP_GB, per_machine=SERVER_DISKS, snapshots=False, on_bus=True)
    #: Images run a script, and no cloud-init reads user data.
    starts_by_script = True
    takes_rsa_keys = True

    def volume_type(self, parameters: Mapping[str, str]) -> str:
        return disk_type(parameters)

    def cloud_name(self, uid: str, name: str) -> str:
        mark = Mark(uid, name)
        # refuses what the description cannot hold
        _ = mark.text
        return wire_name(mark)

    def issued_login(
        self, *, cloud: str, region: str, url: str, credential_id: str, secret: str, reach: Reach
    ) -> NifcloudLogin:
        """``url``: the API's, which may be the region's own."""
        keys = NifcloudKeys(region, credential_id, secret, endpoint_url=url)
        if reach.authorities:
            keys = NifcloudKeys(region, credential_id, secret, endpoint_url=url, ca_file=f"{LOGIN_FOLDER}/{_AUTHORITIES}")
        return NifcloudLogin(keys, reach.authorities, reach.proxies)
