"""The adapter of OpenStack: it finds clouds in clouds.yaml, and logs the parts inside a cluster in with ``[Global]``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moyai.cloud.kind import Login
from moyai.cloud.openstack.cloud_conf import MEANINGS, GlobalConfig, IssuedLogin, log_in, read_login
from moyai.cloud.openstack.guest import OpenStackGuest
from moyai.cloud.openstack.openstack_cloud import OpenStackCloud, connect
from moyai.cloud.openstack.openstack_kind import OpenStackKind


class OpenStackAdapter(OpenStackKind):
    """Implements ``cloud.adapter.Adapter``."""

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

    def log_in(self, login: Login) -> OpenStackCloud:
        config = login.config if isinstance(login, IssuedLogin) else login
        if not isinstance(config, GlobalConfig):
            raise TypeError(f"not a login of OpenStack: {type(login).__name__}")
        return OpenStackCloud(log_in(config))

    def guest(self) -> OpenStackGuest:
        return OpenStackGuest()


ADAPTER = OpenStackAdapter()
