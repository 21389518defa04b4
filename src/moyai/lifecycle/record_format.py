"""The record's form on disk, and how records of older versions of moyai are read.

Format 2 names each object by kind and name. Format 1 named it by one string. A record of format 1 is read as it is and written
in format 2 at its next change. Nothing else takes such a string apart. What a spec on record lacks of the
section ``security`` has the value that all clusters had before there was that field.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from moyai.core.keys import Key, Kind
from moyai.plan import keys
from moyai.plan.observed import NodeAllocation
from moyai.spec.security import BEFORE

VERSION = 2
#: Keys of format 1 that stood for one object of a cluster.
_SINGLE: Mapping[str, Key] = {
    "network": keys.NETWORK,
    "subnet": keys.SUBNET,
    "router": keys.ROUTER,
    "floating-ip": keys.FLOATING_IP,
    "key-pair": keys.KEY_PAIR,
    "credential": keys.CONTROLLERS_CREDENTIAL,
    "volumes-credential": keys.VOLUMES_CREDENTIAL,
    "credential secret": keys.secret(keys.CONTROLLERS_CREDENTIAL),
    "volumes-credential secret": keys.secret(keys.VOLUMES_CREDENTIAL),
}
#: First words of the keys of format 1 that were followed by a name.
_NAMED: Mapping[str, Kind] = {"port": Kind.PORT, "server": Kind.SERVER, "group": Kind.SECURITY_GROUP}
#: Names under which secrets stand in secrets.json, the same in both formats.
SECRET_NAMES: Mapping[Key, str] = {keys.CONTROLLERS_CREDENTIAL: "credential", keys.VOLUMES_CREDENTIAL: "volumes-credential"}

#: The name of the key that Secrets are stored with.
ENCRYPTION_KEY = "encryption-key"


def current(data: Mapping[str, Any]) -> dict[str, Any] | None:
    """The record in today's format; None for what no version of moyai wrote."""
    if data.get("version") == VERSION:
        rows = cast("list[dict[str, str]]", data.get("objects") or [])
        return _with_security(data) if {row.get("kind") for row in rows} <= set(Kind) else None
    if data.get("version") != 1:
        return None
    old = cast("dict[str, dict[str, str]]", data.get("objects") or {})
    objects = [write_object(key, entry) for text, entry in old.items() if (key := _old_key(text)) is not None]
    return _with_security({**data, "version": VERSION, "objects": objects})


def _with_security(data: Mapping[str, Any]) -> dict[str, Any]:
    spec = data.get("spec")
    inner = cast("dict[str, Any]", spec).get("spec") if isinstance(spec, dict) else None
    if not isinstance(spec, dict) or not isinstance(inner, dict):
        return dict(data)
    known = cast("dict[str, Any]", inner.get("security") or {})
    security = {**BEFORE.model_dump(mode="json", by_alias=True), **known}
    return {**data, "spec": {**spec, "spec": {**inner, "security": security}}}


def read_objects(rows: list[dict[str, str]]) -> dict[Key, dict[str, str]]:
    """Key → what is known of the object (``begun``, ``id``, ``name``)."""
    return {
        Key(Kind(row["kind"]), row.get("of", "")): {k: v for k, v in row.items() if k not in ("kind", "of")} for row in rows
    }


def write_object(key: Key, entry: Mapping[str, str]) -> dict[str, str]:
    return {"kind": str(key.kind), **({"of": key.name} if key.name else {}), **entry}


def read_allocations(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, NodeAllocation]:
    """Node → its allocation. On disk they are called ``seats``, and a node's index is called ``slot``."""
    return {name: NodeAllocation(row["slot"], row["zone"]) for name, row in rows.items()}


def write_allocations(allocations: Mapping[str, NodeAllocation]) -> dict[str, dict[str, Any]]:
    return {name: {"slot": one.index, "zone": one.zone} for name, one in allocations.items()}


def _old_key(text: str) -> Key | None:
    if text in _SINGLE:
        return _SINGLE[text]
    first, _, name = text.partition(" ")
    return Key(_NAMED[first], name) if first in _NAMED else None
