"""The cloud in memory as a kind of cloud, and section ``[Global]`` of its cloud.conf."""

from __future__ import annotations

from dataclasses import dataclass, field

from moyai.cloud.config_file import LOGIN_SECTION, write_section
from moyai.cloud.kind import VolumeNames
from moyai.core.errors import Terminal

VOLUME_NAMES = VolumeNames("disks.memory.test", objects="csi-memory", container="memory-csi-plugin")


@dataclass(frozen=True)
class MemoryLogin:
    """Implements ``cloud.kind.Login``. The fields are the keys of section ``[Global]``; ``url`` is the account's
    ``login_url``."""

    url: str = ""
    region: str = ""
    credential_id: str = ""
    credential_secret: str = field(default="", repr=False)

    @property
    def secrets(self) -> tuple[str, ...]:
        return (self.credential_secret,)

    @property
    def missing(self) -> str:
        return "" if self.url else "url"

    def lines(self) -> list[str]:
        return write_section(f"[{LOGIN_SECTION}]", self)


@dataclass(frozen=True)
class MemoryKind:
    """Implements ``cloud.kind.CloudKind``."""

    name: str = "memory"
    volume_names: VolumeNames = VOLUME_NAMES
    guest_folders: tuple[str, ...] = ()
    user_data_limit: int = 65535

    def issued_login(self, *, cloud: str, region: str, url: str, credential_id: str, secret: str) -> MemoryLogin:
        if not url:
            raise Terminal(f"cloud {cloud} does not say where the cluster logs in")
        return MemoryLogin(url, region, credential_id=credential_id, credential_secret=secret)
