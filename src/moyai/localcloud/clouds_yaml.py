"""The user's clouds.yaml: our two entries are put in and taken out, all others stay as they are (values; comments are lost).

The file is written only when something changes, whole or not at all, mode 0600.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from moyai.core import yamltext
from moyai.core.errors import MoyaiError, UsageError
from moyai.core.files import write_private
from moyai.core.reading import read_mapping
from moyai.localcloud.layout import LocalCloudConfig
from moyai.localcloud.secrets import Secrets


def user_file(environ: Mapping[str, str] = os.environ) -> Path:
    """Where openstacksdk looks for it: OS_CLIENT_CONFIG_FILE, else the user's configuration folder."""
    named = environ.get("OS_CLIENT_CONFIG_FILE")
    base = environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME", "/root")) / ".config"
    return Path(named) if named else Path(base) / "openstack" / "clouds.yaml"


def entries(config: LocalCloudConfig, secrets: Secrets) -> dict[str, Any]:
    """``NAME``: the project ``demo`` and its user; ``NAME-admin``: the administrator."""

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

    return {config.name: entry("demo", secrets.demo), f"{config.name}-admin": entry("admin", secrets.admin)}


def put(file: Path, config: LocalCloudConfig, *, secrets: Secrets) -> None:
    """Write our entries. Raises MoyaiError when one of that name is there that leads elsewhere."""
    data = _load(file)
    clouds: dict[str, Any] = data.setdefault("clouds", {})
    wanted = entries(config, secrets)
    for name in wanted:
        if name in clouds and not _ours(clouds[name], config):
            raise MoyaiError(
                f"{file} has an entry {name!r} that is another cloud's", hint="rename it, or give this cloud another name"
            )
    if all(clouds.get(name) == entry for name, entry in wanted.items()):
        return
    clouds.update(wanted)
    _save(file, data)


def remove(file: Path, config: LocalCloudConfig) -> None:
    """Take our entries out, and the file with the last of them; entries that lead elsewhere are not ours."""
    if not file.exists():
        return
    data = _load(file)
    clouds: dict[str, Any] = data.get("clouds") or {}
    ours = [name for name in (config.name, f"{config.name}-admin") if name in clouds and _ours(clouds[name], config)]
    if not ours:
        return
    for name in ours:
        del clouds[name]
    if clouds or set(data) - {"clouds"}:
        _save(file, data)
    else:
        file.unlink()


def _ours(entry: Any, config: LocalCloudConfig) -> bool:
    auth: Any = cast("dict[str, Any]", entry).get("auth") if isinstance(entry, dict) else None
    return isinstance(auth, dict) and cast("dict[str, Any]", auth).get("auth_url") == config.auth_url


def _load(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    found = read_mapping(file, should="a clouds.yaml (it stays untouched)")
    if not isinstance(found.get("clouds") or {}, dict):
        raise UsageError(f"{file} is no clouds.yaml, it stays untouched", hint="expected a mapping 'clouds'")
    if found.get("clouds") is None:
        found.pop("clouds", None)
    return found


def _save(file: Path, data: Mapping[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    target = file.resolve()  # a link stays a link
    write_private(target, yamltext.dump(dict(data)))
