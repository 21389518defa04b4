"""Section ``[Global]`` of cloud.conf, as OpenStack's own cloud provider has it, and the login that it describes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from moyai.cloud.config_file import LOGIN_SECTION, parse_section, write_section
from moyai.cloud.openstack.login import ApplicationCredential, Domain, UserPassword, open_session
from moyai.cloud.openstack.session import CloudSession
from moyai.core.errors import UsageError

_ALIASES = {
    "tenant": "tenant_name",
    "project_name": "tenant_name",
    "project_id": "tenant_id",
    "project_domain_id": "tenant_domain_id",
    "project_domain_name": "tenant_domain_name",
}
#: Key → meaning, for the reference.
MEANINGS: Mapping[str, str] = {
    "auth_url": "URL of Keystone. Required.",
    "region": "Region; empty: the only one in the catalog.",
    "application_credential_id": "Id of the application credential. It has priority over a user.",
    "application_credential_secret": "Secret of the application credential.",
    "user_id": "Id of the user.",
    "username": "Name of the user; needs no `user-id`.",
    "password": "Password of the user.",
    "tenant_name": "Name of the project; also `project-name`.",
    "tenant_id": "Id of the project; also `project-id`.",
    "user_domain_id": "Domain of the user, by id.",
    "user_domain_name": "Domain of the user, by name; without any domain: the domain `default`.",
    "tenant_domain_id": "Domain of the project, by id; also `project-domain-id`.",
    "tenant_domain_name": "Domain of the project, by name; empty: `domain-*`, then the user's domain.",
    "domain_id": "Domain of user and project where these have none of their own, by id.",
    "domain_name": "Domain of user and project where these have none of their own, by name.",
    "ca_file": "File with the authorities for TLS; empty: the system's.",
    "tls_insecure": "Whether certificates of the cloud are not verified.",
}


@dataclass(frozen=True)
class GlobalConfig:
    """Implements ``cloud.kind.Login``: an application credential, or a user with password and project. Either may be empty,
    not both.

    ``domain_*`` stands for the domains of user and project that are not named themselves.
    """

    auth_url: str = ""
    region: str = ""
    application_credential_id: str = ""
    application_credential_secret: str = field(default="", repr=False)
    user_id: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    tenant_name: str = ""
    tenant_id: str = ""
    user_domain_id: str = ""
    user_domain_name: str = ""
    tenant_domain_id: str = ""
    tenant_domain_name: str = ""
    domain_id: str = ""
    domain_name: str = ""
    ca_file: str = ""
    tls_insecure: bool = False

    @property
    def secrets(self) -> tuple[str, ...]:
        return (self.application_credential_secret, self.password)

    @property
    def missing(self) -> str:
        return "" if self.auth_url else "auth-url"

    def lines(self) -> list[str]:
        return write_section(f"[{LOGIN_SECTION}]", self)


def read_login(section: Mapping[str, str | None]) -> GlobalConfig:
    """``section``: key → value as written. Raises UsageError for a wrong value."""
    return parse_section(LOGIN_SECTION, GlobalConfig, raw=section, aliases=_ALIASES)


def log_in(config: GlobalConfig) -> CloudSession:
    """A session at the cloud; nothing is sent before the first call. UsageError for a configuration that lacks something."""
    if config.ca_file and not Path(config.ca_file).is_file():
        raise UsageError(f"cloud config: ca-file {config.ca_file} is not there")
    return open_session(credential=_credential(config))


def _credential(config: GlobalConfig) -> ApplicationCredential | UserPassword:
    if config.application_credential_id and config.application_credential_secret:
        return ApplicationCredential(
            auth_url=config.auth_url,
            id=config.application_credential_id,
            secret=config.application_credential_secret,
            region=config.region,
            ca_file=config.ca_file,
            insecure=config.tls_insecure,
        )
    if not ((config.user_id or config.username) and config.password):
        raise UsageError(
            "cloud config has no login",
            hint="set application-credential-id and application-credential-secret in section [Global], "
            "or username, password and tenant-name",
        )
    if not (config.tenant_id or config.tenant_name):
        raise UsageError("cloud config names a user but no project", hint="set tenant-name or tenant-id in section [Global]")
    both = Domain(config.domain_id, config.domain_name)
    user_domain = Domain(config.user_domain_id, config.user_domain_name) or both
    return UserPassword(
        auth_url=config.auth_url,
        user_id=config.user_id,
        username=config.username,
        password=config.password,
        user_domain=user_domain,
        project_id=config.tenant_id,
        project_name=config.tenant_name,
        project_domain=Domain(config.tenant_domain_id, config.tenant_domain_name) or both or user_domain,
        region=config.region,
        ca_file=config.ca_file,
        insecure=config.tls_insecure,
    )
