"""cloud.conf: the cloud controller manager's configuration file, in the format of openstack-cloud-controller-manager.

Sections ``[Global]`` (how to reach the cloud), ``[LoadBalancer]`` (defaults for Services), ``[Route]``, and ``[Moyai]``, which
upstream ignores. Unknown keys are left alone, so that an existing file keeps working; a wrong value of a known key is a
UsageError.
"""

from __future__ import annotations

import configparser
import re
from dataclasses import dataclass, field, fields

from moyai.core.errors import UsageError

#: The controllers that there are, in the order of the start.
CONTROLLERS = ("node", "node-lifecycle", "route", "service")


@dataclass(frozen=True)
class GlobalConfig:
    auth_url: str = ""
    region: str = ""
    application_credential_id: str = ""
    application_credential_secret: str = field(default="", repr=False)
    username: str = ""
    password: str = field(default="", repr=False)
    tenant_name: str = ""
    tenant_id: str = ""
    user_domain_name: str = ""
    domain_name: str = ""
    ca_file: str = ""
    tls_insecure: bool = False


@dataclass(frozen=True)
class LoadBalancerConfig:
    """Defaults for every Service; annotations of a Service go first. Delays and time-outs of the monitor in seconds."""

    enabled: bool = True
    floating_network_id: str = ""
    floating_subnet_id: str = ""
    floating_subnet: str = ""
    subnet_id: str = ""
    network_id: str = ""
    member_subnet_id: str = ""
    lb_provider: str = ""
    lb_method: str = "ROUND_ROBIN"
    flavor_id: str = ""
    availability_zone: str = ""
    create_monitor: bool = True
    monitor_delay: int = 5
    monitor_timeout: int = 3
    monitor_max_retries: int = 1
    monitor_max_retries_down: int = 3
    internal_lb: bool = False
    manage_security_groups: bool = True
    max_shared_lb: int = 2


@dataclass(frozen=True)
class RouteConfig:
    router_id: str = ""


@dataclass(frozen=True)
class MoyaiConfig:
    """``cluster_uid`` marks what belongs to the cluster. ``node_security_group_ids``: groups that get NodePort rules."""

    cluster_uid: str = ""
    node_security_group_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class LoadBalancerClass:
    """A named set of network choices: section ``[LoadBalancerClass "NAME"]``, chosen by the annotation ``class``."""

    floating_network_id: str = ""
    floating_subnet_id: str = ""
    subnet_id: str = ""
    network_id: str = ""
    member_subnet_id: str = ""


@dataclass(frozen=True)
class CloudConfig:
    cloud: GlobalConfig
    load_balancer: LoadBalancerConfig = LoadBalancerConfig()
    route: RouteConfig = RouteConfig()
    moyai: MoyaiConfig = MoyaiConfig()
    classes: dict[str, LoadBalancerClass] = field(default_factory=dict[str, LoadBalancerClass])


_SECTIONS = {"Global": "cloud", "LoadBalancer": "load_balancer", "Route": "route", "Moyai": "moyai"}
_TYPES: dict[str, type] = {
    "cloud": GlobalConfig,
    "load_balancer": LoadBalancerConfig,
    "route": RouteConfig,
    "moyai": MoyaiConfig,
}
_ALIASES = {"tenant": "tenant_name", "project_name": "tenant_name", "project_id": "tenant_id"}
_TRUE, _FALSE = frozenset({"true", "yes", "on", "1"}), frozenset({"false", "no", "off", "0"})
_DURATION = re.compile(r"(?:(\d+)m)?(?:(\d+)s)?")


def read_cloud_config(text: str) -> CloudConfig:
    """Parse the file's text. Raises UsageError that names section, key and what would be right."""
    parser = configparser.ConfigParser(
        interpolation=None, strict=False, allow_no_value=True, inline_comment_prefixes=None, comment_prefixes=("#", ";")
    )
    try:
        parser.read_string(text)
    except configparser.Error as error:
        raise UsageError(f"cloud config cannot be read: {' '.join(str(error).split())}") from None
    values: dict[str, dict[str, object]] = {name: {} for name in _TYPES}
    classes: dict[str, LoadBalancerClass] = {}
    for section in parser.sections():
        kind, _, argument = section.partition(" ")
        if kind == "LoadBalancerClass":
            given = _parse(section, LoadBalancerClass, dict(parser[section]))
            classes[argument.strip().strip('"')] = LoadBalancerClass(**given)  # pyright: ignore[reportArgumentType]
        elif section in _SECTIONS:
            name = _SECTIONS[section]
            values[name] = _parse(section, _TYPES[name], dict(parser[section]))
    parts = {name: kind(**values[name]) for name, kind in _TYPES.items()}
    config = CloudConfig(**parts, classes=classes)  # pyright: ignore[reportArgumentType]
    if not config.cloud.auth_url:
        raise UsageError("cloud config has no auth-url", hint="give it in section [Global]")
    return config


def write_cloud_config(config: CloudConfig) -> str:
    """The file's text: what differs from the defaults."""
    lines: list[str] = []
    for section, name in _SECTIONS.items():
        lines += _section(f"[{section}]", getattr(config, name))
    for name, chosen in config.classes.items():
        lines += _section(f'[LoadBalancerClass "{name}"]', chosen)
    return "\n".join(lines) + "\n"


def _section(title: str, part: object) -> list[str]:
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


def _parse(section: str, kind: type, raw: dict[str, str | None]) -> dict[str, object]:
    known = {item.name: item.default for item in fields(kind)}  # pyright: ignore[reportUnknownArgumentType]
    values: dict[str, object] = {}
    for key, given in raw.items():
        name = key.replace("-", "_")
        name = _ALIASES.get(name, name)
        if name in known:
            values[name] = _value(f"[{section}] {key}", given, known[name])
    return values


def _value(where: str, given: str | None, default: object) -> object:
    text = "true" if given is None else _unquote(given.strip())
    if isinstance(default, bool):
        if text.lower() in _TRUE:
            return True
        if text.lower() in _FALSE:
            return False
        raise UsageError(f"cloud config: {where} = {text!r} is neither true nor false")
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
