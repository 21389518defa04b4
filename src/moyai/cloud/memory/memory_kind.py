"""The cloud in memory as a kind of cloud, and section ``[Global]`` of its cloud.conf."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from moyai.cloud.config_file import LOGIN_SECTION, write_section
from moyai.cloud.credentials import DIRECT, Reach
from moyai.cloud.kind import VolumeNames, VolumeRules
from moyai.core.errors import Terminal

#: As Neutron has it by default (max_allowed_address_pair).
SOURCES_OF_PORT = 10
VOLUME_RULES = VolumeRules()
VOLUME_NAMES = VolumeNames("disks.memory.test", objects="csi-memory", container="memory-csi-plugin")


@dataclass(frozen=True)
class MemoryKeys:
    """The keys of section ``[Global]``. ``url`` is the account's ``login_url``."""

    url: str = ""
    region: str = ""
    credential_id: str = ""
    credential_secret: str = field(default="", repr=False)


@dataclass(frozen=True)
class MemoryLogin:
    """Implements ``cloud.kind.Login``."""

    keys: MemoryKeys
    reach: Reach = DIRECT

    @property
    def region(self) -> str:
        return self.keys.region

    @property
    def secrets(self) -> tuple[str, ...]:
        return (self.keys.credential_secret,)

    @property
    def files(self) -> Mapping[str, str]:
        return {"authorities.pem": self.reach.authorities} if self.reach.authorities else {}

    @property
    def environment(self) -> Mapping[str, str]:
        return self.reach.proxies

    @property
    def missing(self) -> str:
        return "" if self.keys.url else "url"

    def lines(self) -> list[str]:
        return write_section(f"[{LOGIN_SECTION}]", self.keys)


@dataclass(frozen=True)
class MemoryKind:
    """Implements ``cloud.kind.CloudKind``."""

    name: str = "memory"
    volume_names: VolumeNames = VOLUME_NAMES
    sources_of_port: int = SOURCES_OF_PORT
    needs_tags: bool = False
    guest_folders: tuple[str, ...] = ()
    user_data_limit: int = 65535
    volume_rules: VolumeRules = VOLUME_RULES
    starts_by_script: bool = False
    takes_rsa_keys: bool = False

    def volume_type(self, parameters: Mapping[str, str]) -> str:
        return parameters.get("type", "")

    def cloud_name(self, uid: str, name: str) -> str:
        return name

    def issued_login(self, *, cloud: str, region: str, url: str, credential_id: str, secret: str, reach: Reach) -> MemoryLogin:
        if not url:
            raise Terminal(f"cloud {cloud} does not say where the cluster logs in")
        return MemoryLogin(MemoryKeys(url, region, credential_id, secret), reach)
