"""Which of two copies of a record goes on: that of a machine, or that in the cluster. Pure, but for the small file in which a
machine keeps what it knows of the cluster's copy.

A record counts its writes (its serial). Always holds: the copy with more writes wins, unless both were written since they last
agreed; then the cluster's goes on, with the objects that only the machine has begun. A cluster's copy older than one that
this machine has seen there came back by a restore of etcd, and loses.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, cast

from moyai.core.files import write_private
from moyai.lifecycle import record_files
from moyai.lifecycle.record_files import COPY_STATE, RECORD


class Goes(StrEnum):
    """Which copy goes on."""

    SAME = "same"
    HERE = "here"
    CLUSTER = "cluster"
    BOTH = "both"


@dataclass(frozen=True)
class CopyState:
    """``seat``: the name of this machine's copy, drawn once. ``serial``, ``identity``: of the copy that the machine and the
    cluster last agreed on; -1 and empty before that."""

    seat: str
    serial: int = -1
    identity: str = ""


@dataclass(frozen=True)
class CopyFacts:
    """A copy: its writes, what it is, and the seat that wrote it."""

    serial: int
    identity: str
    seat: str


def choose(here: CopyFacts, there: CopyFacts, *, agreed: CopyState, restores: bool = False) -> Goes:
    """``restores``: whether the cluster is being restored from a backup, whose record is the machine's."""
    if here.identity == there.identity:
        return Goes.SAME
    untouched = there.identity == agreed.identity or there.seat == here.seat
    if restores or there.serial < agreed.serial:
        return Goes.HERE
    if untouched:
        # the same seat with more writes than the machine has: its folder came back from a copy
        return Goes.CLUSTER if there.serial > here.serial else Goes.HERE
    return Goes.CLUSTER if here.identity == agreed.identity else Goes.BOTH


def united(here: Mapping[str, bytes], there: Mapping[str, bytes]) -> dict[str, bytes]:
    """The cluster's files, with the objects that only the machine's record has: they may be in the cloud."""
    mine, others = _parsed(here), _parsed(there)
    known = {(row.get("kind"), row.get("of", "")) for row in others.get("objects", [])}
    more = [row for row in mine.get("objects", []) if (row.get("kind"), row.get("of", "")) not in known]
    objects = [*others.get("objects", []), *more]
    serial = max(record_files.serial(here), record_files.serial(there)) + 1
    record = {**others, "objects": objects, "serial": serial}
    return {**there, RECORD: json.dumps(record, indent=1).encode()}


def load_state(folder: Path) -> CopyState:
    """Of the record in this folder; a new seat where there is none. Nothing is written."""
    try:
        found = cast("dict[str, Any]", json.loads((folder / COPY_STATE).read_text(encoding="utf-8")))
        return CopyState(str(found["seat"]), int(found["serial"]), str(found["identity"]))
    except (OSError, ValueError, KeyError, TypeError):
        return CopyState(secrets.token_hex(8))


def keep_state(folder: Path, state: CopyState) -> None:
    write_private(folder / COPY_STATE, json.dumps({"seat": state.seat, "serial": state.serial, "identity": state.identity}))


def _parsed(files: Mapping[str, bytes]) -> dict[str, Any]:
    return cast("dict[str, Any]", json.loads(files[RECORD]))
