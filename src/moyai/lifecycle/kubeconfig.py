"""A cluster's kubeconfig, and its place in the user's own.

Always holds: entries of other clusters stay as they are; the user's file is written whole or not at all.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, cast

from moyai.core import yamltext
from moyai.core.errors import Terminal, UsageError
from moyai.core.files import write_private
from moyai.core.reading import read_mapping
from moyai.core.yamlread import read_one
from moyai.lifecycle.record import Record

_SECTIONS = ("clusters", "users", "contexts")


def kubeconfig_text(record: Record) -> str:
    """The administrator's kubeconfig. Terminal before there is one."""
    try:
        return (record.folder / "kubeconfig").read_text(encoding="utf-8")
    except FileNotFoundError:
        raise Terminal(f"cluster {record.name} has no kubeconfig yet", hint="`moyai up` goes on building it") from None


def merge_kubeconfig(text: str, file: Path) -> str:
    """Put the cluster into the user's kubeconfig, and make it the current one; returns the context's name.

    Entries of other names stay as they are; the file is written whole or not at all.
    """
    new = cast("dict[str, Any]", read_one(text))
    merged = _read(file) if file.exists() else {}
    merged = merged or {"apiVersion": "v1", "kind": "Config"}
    for section in _SECTIONS:
        mine: list[Any] = new[section]
        names = {str(entry["name"]) for entry in mine}
        merged[section] = [*_without(merged.get(section), names), *mine]
    merged["current-context"] = new["current-context"]
    try:
        write_private(file, yamltext.dump(merged))
    except OSError as error:
        raise UsageError(f"{file}: cannot be written ({error.strerror})") from None
    return str(new["current-context"])


def remove_from_kubeconfig(name: str, file: Path) -> bool:
    """Take a cluster that is gone out of the user's kubeconfig; returns whether it was there. An odd file is left alone."""
    try:
        config = _read(file)
    except UsageError:
        return False
    gone = {"clusters": name, "users": f"{name}-admin", "contexts": name}
    found = False
    for section, entry_name in gone.items():
        kept = _without(config.get(section), {entry_name})
        found |= len(kept) < len(config.get(section) or ())
        config[section] = kept
    if found:
        if config.get("current-context") == name:
            names = [cast("dict[str, Any]", entry).get("name") for entry in config["contexts"] if isinstance(entry, dict)]
            config["current-context"] = str(names[0]) if names else ""
        write_private(file, yamltext.dump(config))
    return found


def _read(file: Path) -> dict[str, Any]:
    """A kubeconfig. Raises UsageError for a file that is none."""
    config = read_mapping(file, should="a kubeconfig")
    for section in _SECTIONS:
        if not isinstance(config.get(section) or [], list):
            raise UsageError(f"{file}: {section} is no list, should be a kubeconfig")
    return config


def _without(entries: Any, names: Collection[str]) -> list[Any]:
    """The entries that have none of these names, whatever else they are."""
    kept: list[Any] = []
    for entry in cast("list[Any]", entries or []):
        name = cast("dict[str, Any]", entry).get("name") if isinstance(entry, dict) else None
        if name not in names:
            kept.append(entry)
    return kept
