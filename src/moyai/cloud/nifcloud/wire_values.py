"""Typed reading of the API's answers: the SDK's have no types. What is absent or empty reads as the type's zero."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast

from moyai.cloud.model import LONG_AGO

_NOTHING: Mapping[str, Any] = {}


def text(data: Mapping[str, Any], key: str) -> str:
    found = data.get(key)
    return "" if found is None else str(found)


def whole(data: Mapping[str, Any], key: str) -> int | None:
    """A whole number, also where the API sends it as text; None where it sends none."""
    found = data.get(key)
    try:
        return None if found is None or isinstance(found, bool) else int(found)
    except (TypeError, ValueError):
        return None


def truth_of(data: Mapping[str, Any], key: str) -> bool:
    found = data.get(key)
    return found is True or str(found).lower() == "true"


def part(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found: object = data.get(key)
    return cast("Mapping[str, Any]", found) if isinstance(found, Mapping) else _NOTHING


def rows(data: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """The structures of a list."""
    found: object = data.get(key)
    listed = cast("list[object]", found) if isinstance(found, list) else []
    return [cast("Mapping[str, Any]", one) for one in listed if isinstance(one, Mapping)]


def words(data: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """The texts of a list."""
    found: object = data.get(key)
    listed = cast("list[object]", found) if isinstance(found, list) else []
    return tuple(str(one) for one in listed if one)


def moment(data: Mapping[str, Any], key: str) -> datetime:
    found = data.get(key)
    if not isinstance(found, datetime):
        return LONG_AGO
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
