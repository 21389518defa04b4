"""Profiles of a local cloud: what makes it like the clouds of companies, as data.

A profile is configuration of the real services (policies, options, a catalog without a service) and networks that the
administrator made. Always holds: a file that is no profile is refused in one line, with its place in the file; of profiles that
are chosen together each is laid on top of those before. Files: ``data/profiles``. The standard library alone reads them, since
the first process of a cloud knows its profile.
"""

from __future__ import annotations

import ipaddress
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any, Literal, cast, get_args

from moyai.core.errors import UsageError
from moyai.core.ids import is_dns_label

FOLDER = Path(__file__).parent / "data" / "profiles"
#: Services that have policies and options in a profile, by the names of their configuration files.
SERVICES = ("cinder", "glance", "keystone", "neutron", "nova", "octavia")
#: Those that a cloud may be without.
DISPENSABLE = ("octavia",)
_MAX_SIZE = 64 << 10
Login = Literal["password", "application-credential"]
NetworkKind = Literal["external", "provider"]
#: Rule → check string, or option → value.
Settings = Mapping[str, str]


@dataclass(frozen=True)
class ProfileNetwork:
    """A flat network beside ``public``. ``external``: one more for routers and floating IPs. ``provider``: shared with all
    projects, with DHCP; its machines are reached at their own addresses. The cloud gives away the lower half of ``cidr``."""

    name: str
    cidr: str
    kind: NetworkKind

    @property
    def network(self) -> ipaddress.IPv4Network:
        return ipaddress.IPv4Network(self.cidr)

    @property
    def pool(self) -> tuple[str, str]:
        """The first and the last address that the cloud gives away."""
        return str(self.network[10]), str(self.network[self.network.num_addresses // 2 - 1])


@dataclass(frozen=True)
class CloudProfile:
    """``policies``: service → its policy file. ``options``: service → section → option → value. ``without``: services that the
    cloud does not have. ``login``: what the entry of the project's user in clouds.yaml logs in with."""

    policies: Mapping[str, Settings] = field(default_factory=dict[str, Settings])
    options: Mapping[str, Mapping[str, Settings]] = field(default_factory=dict[str, Mapping[str, Settings]])
    without: tuple[str, ...] = ()
    networks: tuple[ProfileNetwork, ...] = ()
    login: Login = "password"

    def on_top(self, other: CloudProfile) -> CloudProfile:
        """This one, and ``other`` on top of it."""
        policies = {name: {**self.policies.get(name, {}), **other.policies.get(name, {})} for name in SERVICES}
        options = {
            name: {
                section: {**self.options.get(name, {}).get(section, {}), **other.options.get(name, {}).get(section, {})}
                for section in sorted({*self.options.get(name, {}), *other.options.get(name, {})})
            }
            for name in SERVICES
        }
        return CloudProfile(
            policies={name: rules for name, rules in policies.items() if rules},
            options={name: sections for name, sections in options.items() if sections},
            without=tuple(sorted({*self.without, *other.without})),
            networks=tuple({one.name: one for one in (*self.networks, *other.networks)}.values()),
            login=other.login if other.login != "password" else self.login,
        )


def known() -> tuple[str, ...]:
    """Names of the profiles that moyai has."""
    return tuple(sorted(file.stem for file in FOLDER.glob("*.toml")))


def load(names: Iterable[str]) -> CloudProfile:
    """The profiles with these names, or in these files, on top of each other. Raises UsageError."""
    return reduce(CloudProfile.on_top, map(_load, names), CloudProfile())


def _load(name: str) -> CloudProfile:
    if name in known():
        return parse((FOLDER / f"{name}.toml").read_text(), source=name)
    file = Path(name)
    if file.suffix != ".toml":
        raise UsageError(f"--like {name}: no such profile", hint=f"one of {', '.join(known())}, or a file NAME.toml")
    try:
        with file.open("rb") as opened:
            text = opened.read(_MAX_SIZE).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{name}: {error}, should be a profile of a local cloud") from None
    return parse(text, source=name)


def parse(text: str, *, source: str) -> CloudProfile:
    """The profile in a TOML text. Raises UsageError."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{source}: {error}, should be TOML") from None
    return from_data(data, source=source)


def from_data(data: Mapping[str, Any], *, source: str) -> CloudProfile:
    """The profile in plain data, as ``dataclasses.asdict`` writes them. Raises UsageError."""
    fields: dict[str, Callable[[_FileValue], Any]] = {
        "summary": lambda place: place.text(),
        "policies": lambda place: {name: inner.settings() for name, inner in place.items(SERVICES)},
        "options": lambda place: {
            name: {section: one.settings() for section, one in inner.items(None)} for name, inner in place.items(SERVICES)
        },
        "without": lambda place: tuple(one.text(DISPENSABLE) for one in place.entries()),
        "networks": lambda place: tuple(_network(one) for one in place.entries()),
        "login": lambda place: place.text(get_args(Login)),
    }
    top = _FileValue(source, data)
    found = {name: fields[name](inner) for name, inner in top.items(tuple(fields))}
    found.pop("summary", None)
    return CloudProfile(**found)


def _network(place: _FileValue) -> ProfileNetwork:
    parts = dict(place.items(("name", "cidr", "kind")))
    for name in ("name", "cidr", "kind"):
        if name not in parts:
            raise place.wrong(f"a mapping with {name}")
    name, cidr, kind = parts["name"].text(), parts["cidr"].text(), parts["kind"].text(get_args(NetworkKind))
    if not is_dns_label(name, max_length=24) or name == "public":
        raise parts["name"].wrong("lower-case letters, digits and '-', 24 at most, a letter first, not public")
    try:
        network = ipaddress.IPv4Network(cidr)
    except ValueError:
        raise parts["cidr"].wrong("an IPv4 network such as 192.0.2.0/24") from None
    if not 16 <= network.prefixlen <= 26:
        raise parts["cidr"].wrong("a network of /16 to /26")
    return ProfileNetwork(name, str(network), cast("NetworkKind", kind))


@dataclass(frozen=True)
class _FileValue:
    """A value of the file, and where it stands."""

    where: str
    value: Any

    def wrong(self, should: str) -> UsageError:
        return UsageError(f"{self.where}: {str(self.value)[:60]!r}, should be {should}")

    def items(self, names: tuple[str, ...] | None) -> list[tuple[str, _FileValue]]:
        """The entries of a mapping; ``names``: those that there are, None for any."""
        found = cast("Mapping[str, Any]", self.value)
        if not isinstance(found, dict):
            raise self.wrong("a mapping")
        for name in found:
            if names is not None and name not in names:
                raise UsageError(f"{self.where}: {name}: unknown field, should be one of {', '.join(names)}")
        return [(name, _FileValue(f"{self.where}: {name}", value)) for name, value in found.items()]

    def entries(self) -> list[_FileValue]:
        if type(self.value) not in (list, tuple):
            raise self.wrong("a list")
        listed = cast("list[Any]", self.value)
        return [_FileValue(f"{self.where}[{number}]", one) for number, one in enumerate(listed)]

    def text(self, among: tuple[str, ...] = ()) -> str:
        if not isinstance(self.value, str) or "\n" in self.value:
            raise self.wrong("a text of one line")
        if among and self.value not in among:
            raise self.wrong(" or ".join(among))
        return self.value

    def settings(self) -> dict[str, str]:
        return {name: inner.text() for name, inner in self.items(None)}
