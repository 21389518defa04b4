"""A cluster's kubeconfig, and its place in the user's own.

Always holds: entries of other clusters stay as they are; the user's file is written whole or not at all.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, cast

import yaml

from moyai.core import yamltext
from moyai.core.errors import Terminal, UsageError
from moyai.core.files import write_private
from moyai.lifecycle.record import Record


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
    new = cast("dict[str, Any]", yaml.safe_load(text))
    try:
        old: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        old = None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{file} cannot be read", hint=" ".join(str(error).split())[:200]) from None
    if old is None:
        old = {"apiVersion": "v1", "kind": "Config"}
    if not isinstance(old, dict):
        raise UsageError(f"{file} is no kubeconfig")
    merged = cast("dict[str, Any]", old)
    for section in ("clusters", "users", "contexts"):
        mine: list[Any] = new[section]
        names = {str(entry["name"]) for entry in mine}
        merged[section] = [*_without(merged.get(section), names), *mine]
    merged["current-context"] = new["current-context"]
    write_private(file, yamltext.dump(merged))
    return str(new["current-context"])


def remove_from_kubeconfig(name: str, file: Path) -> bool:
    """Take a cluster that is gone out of the user's kubeconfig; returns whether it was there. An odd file is left alone."""
    try:
        content: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return False
    if not isinstance(content, dict):
        return False
    config = cast("dict[str, Any]", content)
    gone = {"clusters": name, "users": f"{name}-admin", "contexts": name}
    found = False
    for section, entry_name in gone.items():
        kept = _without(config.get(section), {entry_name})
        found |= len(kept) < len(config.get(section) or ())
        config[section] = kept
    if found:
        if config.get("current-context") == name:
            config["current-context"] = config["contexts"][0]["name"] if config["contexts"] else ""
        write_private(file, yamltext.dump(config))
    return found


def _without(entries: Any, names: Collection[str]) -> list[Any]:
    """The entries that have none of these names, whatever else they are."""
    kept: list[Any] = []
    for entry in cast("list[Any]", entries or []):
        name = cast("dict[str, Any]", entry).get("name") if isinstance(entry, dict) else None
        if name not in names:
            kept.append(entry)
    return kept
