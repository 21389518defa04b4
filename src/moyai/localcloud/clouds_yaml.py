"""The user's clouds.yaml: our two entries are put in and taken out, all others stay as they are (values; comments are lost).

The file is written only when something changes, whole or not at all, mode 0600.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from moyai.core import yamltext
from moyai.core.errors import UsageError
from moyai.core.paths import home_folder
from moyai.core.user_files import editing
from moyai.core.yamlread import YamlError, read_one
from moyai.localcloud.layout import LocalCloudConfig
from moyai.localcloud.secrets import PROJECT, CloudSecrets


def user_file(environ: Mapping[str, str] = os.environ) -> Path:
    """Where openstacksdk looks for it: OS_CLIENT_CONFIG_FILE, else the user's configuration folder."""
    named = environ.get("OS_CLIENT_CONFIG_FILE")
    base = environ.get("XDG_CONFIG_HOME") or home_folder(environ) / ".config"
    return Path(named) if named else Path(base) / "openstack" / "clouds.yaml"


def entries(config: LocalCloudConfig, secrets: CloudSecrets) -> dict[str, Any]:
    """``NAME``: the project ``demo`` and its user, by the login of the profile; ``NAME-admin``: the administrator."""

    def entry(user: str, password: str) -> dict[str, Any]:
        return {
            "auth": {
                "auth_url": config.auth_url,
                "username": user,
                "password": password,
                "project_name": user,
                "user_domain_id": "default",
                "project_domain_id": "default",
            },
            "region_name": config.region,
            "identity_api_version": 3,
        }

    own = entry(PROJECT, secrets.demo)
    if config.profile.login == "application-credential":
        own |= {
            "auth_type": "v3applicationcredential",
            "auth": {
                "auth_url": config.auth_url,
                "username": PROJECT,
                "user_domain_id": "default",
                "application_credential_name": PROJECT,
                "application_credential_secret": secrets.credential,
            },
        }
    return {config.name: own, f"{config.name}-admin": entry("admin", secrets.admin)}


def put(file: Path, config: LocalCloudConfig, *, secrets: CloudSecrets) -> None:
    """Write our entries. Raises UsageError when one of that name is there that leads elsewhere."""
    wanted = entries(config, secrets)
    with editing(file) as opened:
        data = _parsed(opened.read(), file)
        clouds: dict[str, Any] = data.setdefault("clouds", {})
        for name in wanted:
            if name in clouds and not _ours(clouds[name], config):
                raise UsageError(
                    f"{file} has an entry {name!r} that is another cloud's", hint="rename it, or give this cloud another name"
                )
        if any(clouds.get(name) != entry for name, entry in wanted.items()):
            clouds.update(wanted)
            opened.write(yamltext.dump(data))


def remove(file: Path, config: LocalCloudConfig) -> None:
    """Take our entries out, and the file with the last of them; entries that lead elsewhere are not ours."""
    if not file.exists():
        return
    with editing(file) as opened:
        data = _parsed(opened.read(), file)
        clouds: dict[str, Any] = data.get("clouds") or {}
        ours = [name for name in (config.name, f"{config.name}-admin") if name in clouds and _ours(clouds[name], config)]
        for name in ours:
            del clouds[name]
        if ours and (clouds or set(data) - {"clouds"}):
            opened.write(yamltext.dump(data))
        elif ours:
            opened.remove()


def _ours(entry: Any, config: LocalCloudConfig) -> bool:
    auth: Any = cast("dict[str, Any]", entry).get("auth") if isinstance(entry, dict) else None
    return isinstance(auth, dict) and cast("dict[str, Any]", auth).get("auth_url") == config.auth_url


def _parsed(text: str | None, file: Path) -> dict[str, Any]:
    try:
        data: Any = read_one(text or "")
    except YamlError as error:
        raise UsageError(f"{file}{error.where}: {error.problem}; the file stays untouched") from None
    if data is None:
        return {}
    if not isinstance(data, dict) or not isinstance(cast("dict[str, Any]", data).get("clouds") or {}, dict):
        raise UsageError(f"{file} is no clouds.yaml, it stays untouched", hint="expected a mapping 'clouds'")
    found = cast("dict[str, Any]", data)
    if found.get("clouds") is None:
        found.pop("clouds", None)
    return found
