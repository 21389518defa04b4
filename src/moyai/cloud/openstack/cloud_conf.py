"""cloud.conf, the file with which the parts inside a cluster reach the cloud: its form, its section ``[Global]``, the login.

It is the format of OpenStack's own cloud provider. Each part reads the sections it knows, into frozen dataclasses whose fields
are the keys (``-`` for ``_``). Unknown sections and keys are left alone, so that an existing file keeps working; a wrong value
of a known key is a UsageError that names section, key and what would be right.
"""

from __future__ import annotations

import configparser
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from moyai.core.errors import UsageError
from moyai.core.truth import truth

if TYPE_CHECKING:
    from moyai.cloud.openstack.login import ApplicationCredential, UserPassword
    from moyai.cloud.openstack.session import CloudSession

T = TypeVar("T")

_ALIASES = {
    "tenant": "tenant_name",
    "project_name": "tenant_name",
    "project_id": "tenant_id",
    "project_domain_id": "tenant_domain_id",
    "project_domain_name": "tenant_domain_name",
}
_DURATION = re.compile(r"(?:(\d+)m)?(?:(\d+)s)?")


@dataclass(frozen=True)
class GlobalConfig:
    """The login: an application credential, or a user with password and project. Either may be empty, not both.

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


def read_text(path: Path) -> str:
    """The file's text; UsageError where it cannot be read."""
    try:
        return path.read_text()
    except OSError as error:
        raise UsageError(f"cloud config {path} cannot be read ({error.strerror})") from error


def read_sections(text: str) -> dict[str, dict[str, str | None]]:
    """Section → key → value as written. Raises UsageError for what is no such file."""
    parser = configparser.ConfigParser(
        interpolation=None, strict=False, allow_no_value=True, inline_comment_prefixes=None, comment_prefixes=("#", ";")
    )
    try:
        parser.read_string(text)
    except configparser.Error as error:
        raise UsageError(f"cloud config cannot be read: {' '.join(str(error).split())}") from None
    return {section: dict(parser[section]) for section in parser.sections()}


def parse_section(section: str, kind: type[T], *, raw: Mapping[str, str | None]) -> T:
    """A section's values as the frozen dataclass ``kind``; each field's default says of which type it is."""
    known = {item.name: item.default for item in fields(kind)}  # pyright: ignore[reportArgumentType]
    values: dict[str, Any] = {}
    for key, given in raw.items():
        name = key.replace("-", "_")
        name = _ALIASES.get(name, name)
        if name in known:
            values[name] = _value(f"[{section}] {key}", given, known[name])
    return kind(**values)


def write_section(title: str, part: object) -> list[str]:
    """The lines of a section: what differs from the defaults; none where nothing does."""
    lines = [title]
    for item in fields(part):  # pyright: ignore[reportArgumentType]
        value = getattr(part, item.name)
        if value == item.default:
            continue
        if isinstance(value, tuple):
            text = ",".join(str(one) for one in value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        elif isinstance(value, bool):
            text = str(value).lower()
        elif isinstance(value, int):
            text = str(value)
        else:
            text = '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
        lines.append(f"{item.name.replace('_', '-')} = {text}")
    return [*lines, ""] if len(lines) > 1 else []


def log_in(config: GlobalConfig) -> CloudSession:
    """A session at the cloud; nothing is sent before the first call. UsageError for a configuration that lacks something."""
    from moyai.cloud.openstack.login import open_session

    if config.ca_file and not Path(config.ca_file).is_file():
        raise UsageError(f"cloud config: ca-file {config.ca_file} is not there")
    return open_session(credential=_credential(config))


def _credential(config: GlobalConfig) -> ApplicationCredential | UserPassword:
    from moyai.cloud.openstack.login import ApplicationCredential, Domain, UserPassword

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


def _value(where: str, given: str | None, default: object) -> object:
    text = "true" if given is None else _unquote(given.strip())
    if isinstance(default, bool):
        said = truth(text)
        if said is None:
            raise UsageError(f"cloud config: {where} = {text!r} is neither true nor false")
        return said
    if isinstance(default, int):
        match = _DURATION.fullmatch(text)
        if text.isdigit():
            return int(text)
        if match and text:
            return int(match[1] or 0) * 60 + int(match[2] or 0)
        raise UsageError(f"cloud config: {where} = {text!r} is no whole number of seconds", hint="write 5s or 1m30s")
    if isinstance(default, tuple):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return text


def _unquote(text: str) -> str:
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    return text
