"""The cloud's passwords and keys: drawn at random once per cloud, kept in one file that only root can read."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from moyai.core.files import write_private

#: The project that users work in, and its user.
PROJECT = "demo"
#: The OpenStack services that log in to Keystone themselves.
SERVICE_USERS = ("glance", "placement", "nova", "neutron", "cinder", "octavia")


@dataclass(frozen=True)
class CloudSecrets:
    """``services``: service user → password. ``octavia_key`` must have 32 characters. ``credential``: of the application
    credential that the project's user may log in with; empty in a cloud of before there was one."""

    admin: str
    demo: str
    services: dict[str, str]
    rabbitmq: str
    metadata: str
    octavia_key: str
    credential: str = ""


def generate() -> CloudSecrets:
    def draw() -> str:
        # hexadecimal: safe in URLs, INI files and YAML without quoting ('%' and '$' would not be)
        return secrets.token_hex(16)

    return CloudSecrets(
        admin=draw(),
        demo=draw(),
        services={user: draw() for user in SERVICE_USERS},
        rabbitmq=draw(),
        metadata=draw(),
        octavia_key=draw(),
        credential=draw(),
    )


def load(file: Path) -> CloudSecrets | None:
    try:
        data = json.loads(file.read_text())
    except FileNotFoundError:
        return None
    # a cloud that an earlier version of moyai created has keys that are no longer used
    return CloudSecrets(**{one.name: data[one.name] for one in fields(CloudSecrets) if one.name in data})


def save(file: Path, values: CloudSecrets) -> None:
    write_private(file, json.dumps(asdict(values), indent=1) + "\n")
