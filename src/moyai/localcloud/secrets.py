"""The cloud's passwords and keys: drawn at random once per cloud, kept in one file that only root can read."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

#: The OpenStack services that log in to Keystone themselves.
SERVICE_USERS = ("glance", "placement", "nova", "neutron", "cinder", "octavia")


@dataclass(frozen=True)
class Secrets:
    """``services``: service user → password. ``octavia_key`` must have 32 characters."""

    admin: str
    demo: str
    services: dict[str, str]
    rabbitmq: str
    erlang_cookie: str
    metadata: str
    octavia_key: str


def generate() -> Secrets:
    def draw() -> str:
        # hexadecimal: safe in URLs, INI files and YAML without quoting ('%' and '$' would not be)
        return secrets.token_hex(16)

    return Secrets(
        admin=draw(),
        demo=draw(),
        services={user: draw() for user in SERVICE_USERS},
        rabbitmq=draw(),
        erlang_cookie=draw(),
        metadata=draw(),
        octavia_key=draw(),
    )


def load(file: Path) -> Secrets | None:
    try:
        return Secrets(**json.loads(file.read_text()))
    except FileNotFoundError:
        return None


def save(file: Path, values: Secrets) -> None:
    write_private(file, json.dumps(asdict(values), indent=1) + "\n")


def write_private(file: Path, text: str, mode: int = 0o600) -> None:
    """Write a file whole or not at all; nobody but root can read it, at no moment."""
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    fresh.replace(file)
