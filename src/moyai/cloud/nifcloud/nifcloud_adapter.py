"""The adapter of NIFCLOUD: which names of the user's are its clouds, and how one logs in.

A cloud is called ``nifcloud`` (the region is the environment's), ``nifcloud:jp-east-1``, or
``nifcloud:region=jp-east-1,zone=…``, as the spec's mapping reads when it is written as one text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from moyai.cloud.adapter import UnknownCloud
from moyai.cloud.config_file import LOGIN_SECTION, parse_section
from moyai.cloud.kind import GUEST_FOLDER, Login
from moyai.cloud.model import Instance
from moyai.cloud.nifcloud.access_keys import AccessKey, find_access_key
from moyai.cloud.nifcloud.nifcloud_cloud import NifcloudCloud
from moyai.cloud.nifcloud.nifcloud_kind import MEANINGS, NifcloudKeys, NifcloudKind, NifcloudLogin
from moyai.cloud.nifcloud.nifcloud_limits import ACCOUNTING, Terms
from moyai.cloud.nifcloud.regions import REGIONS, endpoint
from moyai.cloud.nifcloud.sdk import ApiPlace, Sdk
from moyai.core.errors import UsageError
from moyai.core.paths import home_folder

_NAME = "nifcloud"
_SLOT = re.compile(r"SCSI \(0:(\d+)\)")
#: Where machines of VMware have their first SCSI adapter on the PCI bus: paravirtual ones, then others.
_SCSI_ADAPTERS = ("0000:03:00.0", "0000:0b:00.0", "0000:13:00.0", "0000:00:10.0")
_KEYS = ("region", "zone", "zones", "accounting", "endpointURL", "ca")


@dataclass(frozen=True)
class NifcloudGuest:
    """Implements ``cloud.own_machine.Guest``. A machine of NIFCLOUD has no metadata service: `up` tells it which one it is,
    with the start that it sends. ``folder``: where that is written."""

    folder: str = GUEST_FOLDER

    def instance(self) -> Instance | None:
        try:
            server, _, zone = (Path(self.folder) / "instance").read_text(encoding="ascii").strip().partition(" ")
        except (OSError, ValueError):
            return None
        return Instance(server, zone) if server else None

    def disk_links(self, volume_id: str, device: str = "") -> tuple[str, ...]:
        """A disk shows by its place on the SCSI bus, which its name does not tell: none without ``device`` (``SCSI (0:N)``)."""
        found = _SLOT.fullmatch(device)
        return tuple(f"/dev/disk/by-path/pci-{adapter}-scsi-0:0:{found[1]}:0" for adapter in _SCSI_ADAPTERS) if found else ()


class NifcloudAdapter(NifcloudKind):
    """Implements ``cloud.adapter.Adapter``."""

    login_type: type[Any] = NifcloudKeys
    login_purpose = "The login is an access key of the account."
    login_meanings: Mapping[str, str] = MEANINGS

    def load(self) -> None:
        # botocore takes a second to import
        import nifcloud.session  # noqa: F401  # pyright: ignore[reportMissingTypeStubs, reportUnusedImport]

    def connect(self, name: str | None) -> NifcloudCloud:
        options = read_name(name)
        region = options.get("region") or os.environ.get("NIFCLOUD_DEFAULT_REGION", "")
        if not region:
            hint = f"write nifcloud:REGION or set NIFCLOUD_DEFAULT_REGION; there are: {', '.join(REGIONS)}"
            raise UsageError("the cloud nifcloud has no region", hint=hint)
        place = ApiPlace(region, options.get("endpointURL", ""), options.get("ca", ""))
        if not place.endpoint_url:
            endpoint(region)
        key = find_access_key(os.environ, home_folder())
        terms = _placed(_terms(options.get("zone", ""), options.get("accounting", "")), options.get("zones", ""))
        return NifcloudCloud(Sdk(place, key), place, name=name or _NAME, terms=terms, key=key)

    def read_login(self, section: Mapping[str, str | None]) -> NifcloudLogin:
        return NifcloudLogin(parse_section(LOGIN_SECTION, NifcloudKeys, raw=section))

    def log_in(self, login: Login) -> NifcloudCloud:
        if not isinstance(login, NifcloudLogin):
            raise TypeError(f"not a login of NIFCLOUD: {type(login).__name__}")
        if login.missing:
            raise UsageError(f"cloud config: [{LOGIN_SECTION}] {login.missing} is missing")
        keys = login.keys
        place = ApiPlace(keys.region, keys.endpoint_url, keys.ca_file)
        if not place.endpoint_url:
            endpoint(keys.region)
        key = AccessKey(keys.access_key_id, keys.secret_access_key)
        terms = _terms(keys.zone, keys.accounting)
        return NifcloudCloud(Sdk(place, key), place, name=f"{_NAME}:{keys.region}", terms=terms, key=key)

    def guest(self) -> NifcloudGuest:
        return NifcloudGuest()


def _terms(zone: str, accounting: str) -> Terms:
    if accounting and accounting not in ACCOUNTING:
        raise UsageError(f"NIFCLOUD has no accounting {accounting!r}", hint=f"there are: {', '.join(ACCOUNTING)}")
    return Terms(zone, ACCOUNTING[accounting]) if accounting else Terms(zone)


def _placed(terms: Terms, zones: str) -> Terms:
    """``zones``: joined by ``+``, the first one that of ``zone``, unless this names another one of them."""
    named = [one for one in zones.split("+") if one]
    first = terms.zone or (named[0] if named else "")
    if named and first not in named:
        raise UsageError(f"zone: {first!r}, should be one of zones: {', '.join(named)}")
    others = tuple(dict.fromkeys(one for one in named if one != first))
    return replace(terms, zone=first, others=others, whole_region=False)


def read_name(name: str | None) -> dict[str, str]:
    """What a user's name of a cloud says. Raises UnknownCloud for a name of another kind, UsageError for a faulty one."""
    kind, colon, rest = (name or "").partition(":")
    if kind != _NAME:
        raise UnknownCloud(f"{name!r} is no cloud of NIFCLOUD")
    if not colon:
        return {}
    if "=" not in rest:
        return {"region": rest}
    options: dict[str, str] = {}
    for one in rest.split(","):
        key, equals, value = one.partition("=")
        if key not in _KEYS or not equals or not value:
            raise UsageError(f"cloud {name!r}: {one!r} is no setting of NIFCLOUD", hint=f"there are: {', '.join(_KEYS)}")
        options[key] = value
    return options


ADAPTER = NifcloudAdapter()
