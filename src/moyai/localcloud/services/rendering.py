"""What all services' modules share: the context they render from, INI text, common sections."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from moyai.localcloud.env import OpenStackEnv
from moyai.localcloud.layout import CloudPaths, LocalCloudConfig
from moyai.localcloud.secrets import CloudSecrets

#: One INI section: option → value; a tuple is joined by commas, a bool written as oslo.config reads it.
Section = Mapping[str, "str | int | float | bool | tuple[str, ...] | Path"]


@dataclass(frozen=True)
class NifcloudAccess:
    """The one access key of NIFCLOUD's API."""

    key: str
    secret: str = field(repr=False)


@dataclass(frozen=True)
class ServiceContext:
    """All that rendering needs. ``cgroup``: the cgroup root for machines, as ``moyai.linux.cgroups`` writes it.

    ``nifcloud``: None for a cloud that does not speak NIFCLOUD. ``own_python`` and ``own_code``: moyai's interpreter and the
    folder of its package, for a service that is moyai's own.
    """

    config: LocalCloudConfig
    paths: CloudPaths
    env: OpenStackEnv
    secrets: CloudSecrets
    cgroup: str
    registry: Path | None = None
    nameservers: tuple[str, ...] = ()
    nifcloud: NifcloudAccess | None = None
    own_python: str = ""
    own_code: str = ""

    def conf(self, name: str) -> str:
        return str(self.paths.conf / name)

    def database(self, name: str) -> str:
        """A database URL; the socket's folder is root's alone and the server listens on nothing else."""
        return f"mysql+pymysql://root@localhost/{name}?unix_socket={self.paths.mysql_socket}&charset=utf8"

    @property
    def transport_url(self) -> str:
        return f"rabbit://moyai:{self.secrets.rabbitmq}@{self.config.address}:5672/"


def ini(sections: Mapping[str, Section]) -> str:
    """INI text in the order given; empty sections are left out."""
    lines: list[str] = []
    for name, options in sections.items():
        if not options:
            continue
        lines.append(f"[{name}]")
        for option, value in options.items():
            if isinstance(value, tuple):
                text = ",".join(value)
            elif isinstance(value, bool):
                text = "true" if value else "false"
            else:
                text = str(value)
            # oslo.config expands $name: a literal dollar is written twice
            lines.append(f"{option} = {text.replace('$', '$$')}")
        lines.append("")
    return "\n".join(lines)


def service_ini(context: ServiceContext, service: str, *, sections: Mapping[str, Section]) -> str:
    """The configuration of a service, with what the cloud's profile says of it on top."""
    merged: dict[str, Section] = dict(sections)
    if service in context.config.profile.policies and "oslo_policy" not in merged:
        merged["oslo_policy"] = {"policy_file": context.conf(f"{service}-policy.yaml")}
    for name, options in context.config.profile.options.get(service, {}).items():
        merged[name] = {**merged.get(name, {}), **options}
    return ini(merged)


def policy_yaml(rules: Mapping[str, str]) -> str:
    """A policy file of a service."""
    return "".join(f"{json.dumps(rule)}: {json.dumps(check)}\n" for rule, check in rules.items())


#: User of a service → the service's type in the catalog.
_TYPES: Mapping[str, str] = {
    "glance": "image",
    "placement": "placement",
    "nova": "compute",
    "neutron": "network",
    "cinder": "block-storage",
    "octavia": "load-balancer",
}


def auth_token(context: ServiceContext, user: str) -> Section:
    """Every request needs a token that Keystone vouches for. The type is what access rules of application credentials name:
    without it a service refuses such a credential."""
    return {
        "service_type": _TYPES[user],
        "www_authenticate_uri": context.config.auth_url,
        **client(context, user),
        "service_token_roles": "service",
        "service_token_roles_required": True,
        "token_cache_time": 300,
    }


def client(context: ServiceContext, user: str) -> dict[str, str | int | float | bool | tuple[str, ...] | Path]:
    """How a service itself logs in."""
    return {
        "auth_url": context.config.auth_url,
        "auth_type": "password",
        "project_domain_id": "default",
        "user_domain_id": "default",
        "project_name": "service",
        "username": user,
        "password": context.secrets.services[user],
        "region_name": context.config.region,
    }


def database(context: ServiceContext, name: str) -> Section:
    return {"connection": context.database(name), "max_pool_size": 5, "max_overflow": 20}


def concurrency(context: ServiceContext) -> Section:
    return {"lock_path": context.paths.run / "lock"}


#: Nobody listens to notifications here; sending them costs a queue each.
NO_NOTIFICATIONS: Section = {"driver": "noop"}

#: RabbitMQ restarts empty after a crash. With these settings a client notices that within seconds, not after a minute.
RABBIT: Section = {"heartbeat_timeout_threshold": 20, "heartbeat_rate": 3, "kombu_reconnect_delay": 0.5}


def python_env(context: ServiceContext) -> dict[str, str]:
    """The environment of every OpenStack program."""
    return {
        "PATH": f"{context.env.root / 'bin'}:/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONPATH": str(context.paths.python),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "HOME": str(context.paths.state),
        # sockets of privileged helpers, unfinished uploads: gone with the cloud, not left in the host's /tmp
        "TMPDIR": str(context.paths.run / "tmp"),
        "LANG": "C.UTF-8",
        "VIRTUAL_ENV": str(context.env.root),
    }


def wsgi(context: ServiceContext, port: int, target: str, *arguments: str) -> tuple[str, ...]:
    """Serve a WSGI application (``module:factory``) on the management address."""
    launcher = ("-m", "moyai.localcloud.launch_wsgi")
    return (str(context.env.python), *launcher, context.config.address, str(port), target, *arguments)
