"""The configuration file of the parts inside a cluster, cloud.conf: sections, typed keys, how it is read and written.

It is the format of OpenStack's own cloud provider. Each part reads the sections it knows, into frozen dataclasses whose fields
are the keys (``-`` for ``_``). Unknown sections and keys are left alone, so that an existing file keeps working; a wrong value
of a known key is a UsageError that names section, key and what would be right. The section with the login is the adapter's:
``cloud.kind.Login``.
"""

from __future__ import annotations

import configparser
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from moyai.core.errors import UsageError
from moyai.core.truth import truth

T = TypeVar("T")

#: The section that an adapter reads: how to reach the cloud.
LOGIN_SECTION = "Global"

_NO_ALIASES: Mapping[str, str] = MappingProxyType({})
_DURATION = re.compile(r"(?:(\d+)m)?(?:(\d+)s)?")


def read_text(path: Path) -> str:
    """The file's text; UsageError where it cannot be read."""
    try:
        return path.read_text()
    except OSError as error:
        raise UsageError(f"cloud config {path} cannot be read ({error.strerror})") from error


def read_sections(text: str) -> dict[str, dict[str, str | None]]:
    """Section → key → value as written. Raises UsageError for what is no such file."""
    parser = configparser.ConfigParser(
        interpolation=None, strict=False, allow_no_value=True, inline_comment_prefixes=None, comment_prefixes=("#", ";")
    )
    try:
        parser.read_string(text)
    except configparser.Error as error:
        raise UsageError(f"cloud config cannot be read: {' '.join(str(error).split())}") from None
    return {section: dict(parser[section]) for section in parser.sections()}


def parse_section(section: str, kind: type[T], *, raw: Mapping[str, str | None], aliases: Mapping[str, str] = _NO_ALIASES) -> T:
    """A section's values as the frozen dataclass ``kind``; each field's default says of which type it is.

    ``aliases``: another name of a field → the field.
    """
    known = {item.name: item.default for item in fields(kind)}  # pyright: ignore[reportArgumentType]
    values: dict[str, Any] = {}
    for key, given in raw.items():
        name = key.replace("-", "_")
        name = aliases.get(name, name)
        if name in known:
            values[name] = _value(f"[{section}] {key}", given, default=known[name])
    return kind(**values)


def write_section(title: str, part: object) -> list[str]:
    """The lines of a section: what differs from the defaults; none where nothing does."""
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


def _value(where: str, given: str | None, *, default: object) -> object:
    text = "true" if given is None else _unquote(given.strip())
    if isinstance(default, bool):
        said = truth(text)
        if said is None:
            raise UsageError(f"cloud config: {where} = {text!r} is neither true nor false")
        return said
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
