"""A cluster's kubeconfig, and its entries in the user's own.

Always holds: entries of other clusters stay as they are, also those of a cluster that only has the same name; the user's file
is written whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, cast

from moyai.bootstrap import pki
from moyai.core import yamltext
from moyai.core.clock import Clock
from moyai.core.errors import Terminal, UsageError
from moyai.core.files import write_private
from moyai.core.reading import read_text
from moyai.core.user_files import editing
from moyai.core.yamlread import YamlError, read_one
from moyai.lifecycle.record_files import RECORD
from moyai.plan.rules import API_PORT

_SECTIONS = ("clusters", "users", "contexts")
_LIMIT = 1 << 20
_AGAIN = "`moyai up` writes it again"


def own_text(file: Path) -> str:
    """A cluster's own kubeconfig. Raises Terminal for one that is damaged."""
    try:
        text = read_text(file, limit=_LIMIT, should="a kubeconfig")
        found = _parsed(text, file)
    except UsageError as error:
        raise Terminal(str(error), hint=_AGAIN) from None
    if found is None:
        raise Terminal(f"{file} is empty", hint=_AGAIN)
    return text


def write_own(folder: Path, name: str, *, clock: Clock) -> None:
    """A new kubeconfig for the administrator, from the authorities in the record's folder; none for a cluster without an
    address."""
    address = str(json.loads((folder / RECORD).read_bytes()).get("apiAddress", ""))
    if address:
        authorities = pki.ensure(folder / "pki", clock)
        server = f"https://{address}:{API_PORT}"
        write_private(folder / "kubeconfig", pki.admin_kubeconfig(authorities, name=name, server=server, clock=clock))


def merge_kubeconfig(text: str, file: Path, *, overwrite: bool = False) -> str:
    """Put the cluster into the user's kubeconfig, and make it the current one; returns the context's name.

    Raises UsageError, and changes nothing, for a file that is no kubeconfig and, without ``overwrite``, for entries of the same
    names that lead to another cluster; Terminal for a text that is damaged.
    """
    new = cast("dict[str, Any]", read_one(text))
    if not all(_names(new.get(section)) for section in _SECTIONS) or not new.get("current-context"):
        raise Terminal("the cluster's kubeconfig is damaged: it names no cluster, user or context", hint=_AGAIN)
    with editing(file) as opened:
        merged = _parsed(opened.read(), file) or {"apiVersion": "v1", "kind": "Config"}
        if not overwrite:
            _refuse_others(merged, new, file=file)
        for section in _SECTIONS:
            mine: list[Any] = new[section]
            names = {str(entry["name"]) for entry in mine}
            merged[section] = [*_without(merged.get(section), names), *mine]
        merged["current-context"] = new["current-context"]
        opened.write(yamltext.dump(merged))
    return str(new["current-context"])


def remove_from_kubeconfig(text: str, file: Path) -> bool:
    """Take the entries of a cluster that is gone out of the user's kubeconfig; returns whether any was there.

    ``text``: the kubeconfig that the cluster had. Entries of the same names that lead to another cluster stay, and so does a
    file that is no kubeconfig.
    """
    try:
        gone = _parsed(text, file)
        with editing(file) as opened:
            config = _parsed(opened.read(), file)
            if gone is None or config is None or not _same_cluster(config, gone):
                return False
            for section in _SECTIONS:
                config[section] = _without(config.get(section), _names(gone.get(section)))
            if config.get("current-context") == gone.get("current-context"):
                config["current-context"] = ""
            opened.write(yamltext.dump(config))
            return True
    except UsageError:
        return False


def _parsed(text: str | None, file: Path) -> dict[str, Any] | None:
    """The kubeconfig in the text, None for an empty file or none. Raises UsageError for anything else."""
    try:
        content: Any = read_one(text or "")
    except YamlError as error:
        raise UsageError(f"{file}{error.where}: {error.problem}") from None
    if content is None:
        return None
    if not isinstance(content, dict):
        raise UsageError(f"{file} is no kubeconfig", hint="expected a mapping with clusters, users and contexts")
    config = cast("dict[str, Any]", content)
    for section in _SECTIONS:
        if not isinstance(config.get(section) or [], list):
            raise UsageError(f"{file} is no kubeconfig", hint=f"{section} should be a list")
    return config


def _refuse_others(config: Mapping[str, Any], new: Mapping[str, Any], *, file: Path) -> None:
    taken = [name for section in _SECTIONS for name in _names(new[section]) if name in _names(config.get(section))]
    if taken and not _same_cluster(config, new):
        raise UsageError(
            f"{file} has entries named {taken[0]!r} of another cluster",
            hint="--overwrite-existing replaces them; --file names another kubeconfig",
        )


def _same_cluster(config: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether the entries of these names lead to the same cluster: one that its own authority vouches for."""
    names = _names(other.get("clusters"))
    return bool(names) and all(_authority(config, name) == _authority(other, name) for name in names)


def _authority(config: Mapping[str, Any], name: str) -> Any:
    for entry in cast("list[Any]", config.get("clusters") or []):
        if isinstance(entry, dict) and cast("dict[str, Any]", entry).get("name") == name:
            cluster: Any = cast("dict[str, Any]", entry).get("cluster")
            return cast("dict[str, Any]", cluster).get("certificate-authority-data") if isinstance(cluster, dict) else None
    return None


def _names(entries: Any) -> list[str]:
    found = [cast("dict[str, Any]", entry) for entry in cast("list[Any]", entries or []) if isinstance(entry, dict)]
    return [str(entry["name"]) for entry in found if "name" in entry]


def _without(entries: Any, names: Collection[str]) -> list[Any]:
    """The entries that have none of these names, whatever else they are."""
    kept: list[Any] = []
    for entry in cast("list[Any]", entries or []):
        name = cast("dict[str, Any]", entry).get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or name not in names:
            kept.append(entry)
    return kept
