"""How JSON of the API is read, and what every object has.

Always holds: a field that is missing, null or of another type than expected reads as empty, never as an exception: the API
leaves out what has no value, and custom objects hold anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import cast

from moyai.kube.resources import Json


@dataclass(frozen=True)
class Reference:
    """Which object an event is about."""

    kind: str
    name: str
    uid: str
    namespace: str = ""


@dataclass(frozen=True, order=True)
class NamespacedName:
    """Which object of a kind, in Kubernetes' own words. ``str`` is for messages, and the key in a cache."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


def stamp(moment: datetime) -> str:
    """As the API writes a moment (of UTC), in whole seconds."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def object_key(found: Json) -> str:
    """``namespace/name``, or ``name`` for what has no namespace."""
    meta = part(found, "metadata")
    namespace = text(meta, "namespace")
    return f"{namespace}/{meta['name']}" if namespace else str(meta["name"])


def reference(found: Json, kind: str) -> Reference:
    """Of an object of this kind; lists do not say it of each."""
    meta = part(found, "metadata")
    return Reference(kind, text(meta, "name"), text(meta, "uid"), text(meta, "namespace"))


def condition(found: Json, kind: str) -> bool | None:
    """An object's status condition, None where there is none of this kind. ``Unknown`` counts as no: nobody has heard of the
    object for a while."""
    status = next((text(one, "status") for one in rows(part(found, "status"), "conditions") if one.get("type") == kind), None)
    return None if status is None else status == "True"


def since(found: Json, kind: str) -> datetime | None:
    """When a status condition became what it is, by the clock of the cluster; None where nothing says it."""
    conditions = rows(part(found, "status"), "conditions")
    said = next((text(one, "lastTransitionTime") for one in conditions if one.get("type") == kind), "")
    try:
        moment = datetime.fromisoformat(said)
    except ValueError:
        return None
    return moment if moment.tzinfo else None


def deleting(found: Json) -> bool:
    return bool(part(found, "metadata").get("deletionTimestamp"))


def part(found: Mapping[str, object], *keys: str) -> Json:
    """The object at the end of this path, empty where there is none."""
    value: object = found
    for key in keys:
        value = cast("Json", value).get(key) if isinstance(value, dict) else None
    return cast("Json", value) if isinstance(value, dict) else {}


def rows(found: Mapping[str, object], key: str) -> list[Json]:
    """The objects of a list."""
    value = found.get(key)
    return (
        [cast("Json", one) for one in cast("list[object]", value) if isinstance(one, dict)] if isinstance(value, list) else []
    )


def text(found: Mapping[str, object], key: str) -> str:
    value = found.get(key)
    return "" if value is None else str(value)


def texts(found: Mapping[str, object], key: str) -> tuple[str, ...]:
    value = found.get(key)
    return tuple(str(one) for one in cast("list[object]", value)) if isinstance(value, list) else ()


def number(found: Mapping[str, object], key: str, *, default: int = 0) -> int:
    value = found.get(key)
    return value if isinstance(value, int) else default


def text_map(found: Mapping[str, object], *keys: str) -> dict[str, str]:
    return {str(key): str(value) for key, value in part(found, *keys).items()}
