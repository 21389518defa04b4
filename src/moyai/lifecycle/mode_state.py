"""Where a change of the pod network's mode stands, on disk beside the record, from its begin to its end."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, cast

from moyai.core.errors import Terminal, UsageError
from moyai.core.files import write_private
from moyai.lifecycle.record import Record

_FILE = "mode-change.json"


@dataclass(frozen=True)
class ModeChange:
    """``stage``: the one that was begun between the mode on record and the next, empty before the first."""

    target: str
    stage: str = ""


def mode_change(record: Record) -> ModeChange | None:
    """The change that is under way. Terminal where its file is damaged."""
    file = record.folder / _FILE
    try:
        found = cast("dict[str, Any]", json.loads(file.read_text(encoding="utf-8")))
        return ModeChange(str(found["target"]), str(found["stage"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Terminal(f"{file} cannot be read: {error}", hint="put it back from a backup") from None


def set_mode_change(record: Record, change: ModeChange | None) -> None:
    """None: it has come to its end."""
    file = record.folder / _FILE
    if change is None:
        file.unlink(missing_ok=True)
    else:
        write_private(file, json.dumps({"target": change.target, "stage": change.stage}))
    record.publish()


def refuse_while_moving(record: Record) -> None:
    """Raises UsageError while the mode of the cluster's pod network changes."""
    if begun := mode_change(record):
        raise UsageError(
            f"the pod network of cluster {record.name} is on its way to mode {begun.target}",
            hint=f"`moyai net migrate --to {begun.target}` goes on",
        )
