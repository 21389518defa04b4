"""Section ``[Global]`` of cloud.conf, as OpenStack's own cloud provider has it, and the login that it describes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from moyai.cloud.config_file import LOGIN_SECTION, parse_section, write_section
from moyai.cloud.credentials import Reach
from moyai.cloud.kind import LOGIN_FOLDER
from moyai.cloud.openstack.login import ApplicationCredential, Domain, UserPassword, Way, open_session
from moyai.cloud.openstack.session import CloudSession
from moyai.core.errors import UsageError

#: Files beside cloud.conf: the authorities, and a client's certificate with its key.
_AUTHORITIES, _CERTIFICATE = "ca.pem", "client.pem"
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
    "cert_file": "File with a client's certificate, for a cloud that asks for one.",
    "key_file": "File with the key of that certificate; empty: it is in `cert-file`.",
    "tls_insecure": "Whether certificates of the cloud are not verified.",
    "os_endpoint_type": "Which addresses of the catalog are used: `public`, `internal` or `admin`; empty: `public`. "
    "Several, separated by commas, are tried in this order.",
    "endpoint_override": "Addresses that go before the catalog's: `SERVICE=URL`, for example "
    "`network=https://network.example.org/v2.0`. OpenStack's cloud provider does not know this key.",
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
    cert_file: str = ""
    key_file: str = ""
    tls_insecure: bool = False
    os_endpoint_type: str = ""
    endpoint_override: tuple[str, ...] = ()

    @property
    def files(self) -> Mapping[str, str]:
        """They stand where the section says; nothing is known of their content."""
        return {}

    @property
    def environment(self) -> Mapping[str, str]:
        return {}

    @property
    def secrets(self) -> tuple[str, ...]:
        return (self.application_credential_secret, self.password)

    @property
    def missing(self) -> str:
        return "" if self.auth_url else "auth-url"

    def lines(self) -> list[str]:
        return write_section(f"[{LOGIN_SECTION}]", self)


@dataclass(frozen=True)
class IssuedLogin:
    """Implements ``cloud.kind.Login``: section ``[Global]`` of a part inside a cluster, and what it needs beside it."""

    config: GlobalConfig
    files: Mapping[str, str] = field(repr=False)
    environment: Mapping[str, str] = field(repr=False)

    @property
    def region(self) -> str:
        return self.config.region

    @property
    def secrets(self) -> tuple[str, ...]:
        return (*self.config.secrets, *self.files.values(), *self.environment.values())

    @property
    def missing(self) -> str:
        return self.config.missing

    def lines(self) -> list[str]:
        return self.config.lines()


def issued_login(*, url: str, region: str, credential_id: str, secret: str, reach: Reach) -> IssuedLogin:
    """The login of a part: by a credential, on the way that ``reach`` says."""
    files = {name: text for name, text in ((_AUTHORITIES, reach.authorities), (_CERTIFICATE, reach.certificate)) if text}
    config = GlobalConfig(
        auth_url=url,
        region=region,
        application_credential_id=credential_id,
        application_credential_secret=secret,
        ca_file=f"{LOGIN_FOLDER}/{_AUTHORITIES}" if reach.authorities else "",
        # upstream reads a key only where it is named: one file holds both
        cert_file=f"{LOGIN_FOLDER}/{_CERTIFICATE}" if reach.certificate else "",
        key_file=f"{LOGIN_FOLDER}/{_CERTIFICATE}" if reach.certificate else "",
        tls_insecure=reach.insecure,
        os_endpoint_type=reach.interface,
        endpoint_override=tuple(f"{service}={address}" for service, address in sorted(reach.endpoints.items())),
    )
    return IssuedLogin(config, files, reach.proxies)


def read_login(section: Mapping[str, str | None]) -> GlobalConfig:
    """``section``: key → value as written. Raises UsageError for a wrong value."""
    return parse_section(LOGIN_SECTION, GlobalConfig, raw=section, aliases=_ALIASES)


def log_in(config: GlobalConfig) -> CloudSession:
    """A session at the cloud; nothing is sent before the first call. UsageError for a configuration that lacks something."""
    for key, path in (("ca-file", config.ca_file), ("cert-file", config.cert_file), ("key-file", config.key_file)):
        if path and not Path(path).is_file():
            raise UsageError(f"cloud config: {key} {path} is not there")
    way = Way(
        region=config.region,
        interface=tuple(word.strip() for word in config.os_endpoint_type.split(",") if word.strip()) or ("public",),
        ca_file=config.ca_file,
        cert_file=config.cert_file,
        key_file=config.key_file,
        insecure=config.tls_insecure,
        endpoints=dict(map(_endpoint, config.endpoint_override)),
    )
    return open_session(credential=_credential(config), way=way)


def _endpoint(text: str) -> tuple[str, str]:
    service, _, address = text.partition("=")
    if not (service.strip() and address.strip().startswith(("http://", "https://"))):
        raise UsageError(f"cloud config: [Global] endpoint-override = {text!r}", hint="write SERVICE=URL")
    return service.strip(), address.strip()


def _credential(config: GlobalConfig) -> ApplicationCredential | UserPassword:
    if config.application_credential_id and config.application_credential_secret:
        return ApplicationCredential(
            auth_url=config.auth_url,
            id=config.application_credential_id,
            secret=config.application_credential_secret,
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
    )
