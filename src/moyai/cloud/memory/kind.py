"""The cloud in memory as a kind of cloud: ``cloud.adapter.Adapter`` over some clouds that a test has made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from moyai.cloud.adapter import UnknownCloud, VolumeNames
from moyai.cloud.config_file import LOGIN_SECTION, parse_section, write_section
from moyai.cloud.credentials import DIRECT, Reach
from moyai.cloud.model import Instance
from moyai.core.errors import Terminal, UsageError

if TYPE_CHECKING:
    from moyai.cloud.memory.adapter import MemoryCloud

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
    """Implements ``cloud.adapter.Login``."""

    keys: MemoryKeys
    clouds: Mapping[str, MemoryCloud] = field(repr=False, compare=False)
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

    def connect(self) -> MemoryCloud:
        found = next((cloud for cloud in self.clouds.values() if cloud.account.login == self.keys.url), None)
        if found is None:
            raise UsageError(f"there is no cloud in memory at {self.keys.url}")
        return found.log_in(self.keys.credential_id, self.keys.credential_secret)


@dataclass(frozen=True)
class MemoryGuest:
    """Implements ``cloud.capabilities.Guest``."""

    found: Instance | None

    def instance(self) -> Instance | None:
        return self.found

    def disk_links(self, volume_id: str) -> tuple[str, ...]:
        return (f"/dev/disk/by-id/memory-{volume_id}",)


@dataclass(frozen=True)
class MemoryAdapter:
    """``clouds``: by the user's names. ``machine``: which machine this process is on."""

    clouds: Mapping[str, MemoryCloud]
    machine: Instance | None = None
    name: str = "memory"
    volume_names: VolumeNames = VOLUME_NAMES
    guest_folders: tuple[str, ...] = ()
    user_data_limit: int = 65535
    login_type: type[Any] = MemoryKeys
    login_purpose: str = "The login is a credential."
    login_meanings: Mapping[str, str] = field(
        default_factory=lambda: {
            "url": "What the account publishes. Required.",
            "region": "Region.",
            "credential_id": "Id of the credential.",
            "credential_secret": "Secret of the credential.",
        }
    )

    def load(self) -> None:
        """Nothing is slow to import."""

    def connect(self, name: str | None) -> MemoryCloud:
        if name is None or name not in self.clouds:
            raise UnknownCloud(f"no cloud in memory is called {name!r}", hint=f"in memory: {', '.join(self.clouds)}")
        return self.clouds[name]

    def read_login(self, section: Mapping[str, str | None]) -> MemoryLogin:
        return MemoryLogin(parse_section(LOGIN_SECTION, MemoryKeys, raw=section), self.clouds)

    def issued_login(self, *, cloud: str, region: str, url: str, credential_id: str, secret: str, reach: Reach) -> MemoryLogin:
        if not url:
            raise Terminal(f"cloud {cloud} does not say where the cluster logs in")
        return MemoryLogin(MemoryKeys(url, region, credential_id, secret), self.clouds, reach)

    def guest(self) -> MemoryGuest:
        return MemoryGuest(self.machine)
