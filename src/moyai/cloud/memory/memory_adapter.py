"""The adapter of the cloud in memory: ``cloud.adapter.Adapter`` over some clouds that a test has made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from moyai.cloud.adapter import UnknownCloud
from moyai.cloud.config_file import LOGIN_SECTION, parse_section
from moyai.cloud.kind import Login
from moyai.cloud.memory.memory_cloud import MemoryCloud
from moyai.cloud.memory.memory_kind import MemoryKeys, MemoryKind, MemoryLogin
from moyai.cloud.model import Instance
from moyai.core.errors import UsageError


@dataclass(frozen=True)
class MemoryGuest:
    """Implements ``cloud.own_machine.Guest``."""

    found: Instance | None

    def instance(self) -> Instance | None:
        return self.found

    def disk_links(self, volume_id: str, device: str = "") -> tuple[str, ...]:
        return (f"/dev/disk/by-id/memory-{volume_id}",)


@dataclass(frozen=True)
class MemoryAdapter(MemoryKind):
    """Implements ``cloud.adapter.Adapter``. ``clouds``: by the user's names. ``machine``: which machine this process is on."""

    clouds: Mapping[str, MemoryCloud] = field(default_factory=dict[str, MemoryCloud])
    machine: Instance | None = None
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
        return MemoryLogin(parse_section(LOGIN_SECTION, MemoryKeys, raw=section))

    def log_in(self, login: Login) -> MemoryCloud:
        if not isinstance(login, MemoryLogin):
            raise TypeError(f"not a login of a cloud in memory: {type(login).__name__}")
        found = next((cloud for cloud in self.clouds.values() if cloud.account.login == login.keys.url), None)
        if found is None:
            raise UsageError(f"there is no cloud in memory at {login.keys.url}")
        return found.log_in(login.keys.credential_id, login.keys.credential_secret)

    def guest(self) -> MemoryGuest:
        return MemoryGuest(self.machine)
