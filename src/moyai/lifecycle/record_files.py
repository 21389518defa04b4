"""The files of a record that another machine needs to go on with the cluster, as one piece of bytes.

Always holds: equal files give equal bytes; what is unpacked has only names that lie below a record's folder, and text of a
bounded size; ``record.json`` is replaced last, so that a kill leaves the older record with some younger keys beside it.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from moyai.core.errors import Terminal
from moyai.core.files import write_private

#: What says which copy in the cluster a record agrees with; see ``lifecycle.copy_choice``.
COPY_STATE = "cluster-copy.json"
RECORD, SECRETS = "record.json", "secrets.json"
_SECRETS_DAMAGED = "put it back from a backup; without one, `moyai down` still removes the cluster"
#: In the folder of a record while its cluster is being restored.
RESTORING = "restore"
#: What stays where it is: made again from the rest, or of one machine alone.
LEFT_OUT = frozenset({"kubeconfig", "known_hosts", "backups.json", RESTORING, COPY_STATE})
#: A request to pause is for a run on this machine.
_HERE = frozenset({*LEFT_OUT, "pause"})
#: Of an entry: a path without a step upwards.
FILE_NAME = re.compile(r"(?!.*\.\.)[A-Za-z0-9_-][A-Za-z0-9_.-]*(/[A-Za-z0-9_-][A-Za-z0-9_.-]*)*")
_FORMAT = 1
#: Bytes of all files at most: hundreds of nodes have a tenth.
_LARGEST = 1 << 24
#: Ignores what a lone half of a character would be: keys and JSON are text.
_ERRORS = "surrogateescape"


class UnreadableCopy(Exception):
    """No copy of a record, or one of a later version. Its text: why, as the end of a sentence."""


def belongs(name: str) -> bool:
    """Whether a file of this name goes along. ``name``: as from the record's folder."""
    return name.partition("/")[0] not in LEFT_OUT


def shared(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Those that are not of one machine alone."""
    return {name: data for name, data in files.items() if name.partition("/")[0] not in _HERE}


def read(folder: Path) -> dict[str, bytes]:
    """Name → content, as from the folder."""
    found: dict[str, bytes] = {}
    for one in sorted(folder.rglob("*")):
        name = one.relative_to(folder).as_posix()
        if name.partition("/")[0] not in _HERE and not one.name.startswith(".") and one.is_file():
            found[name] = one.read_bytes()
    return found


def replace(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make the record's files these ones; what stays on one machine is not touched."""
    for name in sorted(read(folder).keys() - files.keys()):
        (folder / name).unlink(missing_ok=True)
    for name in sorted(files, key=lambda one: (one == RECORD, one)):
        target = folder / name
        if not target.exists() or target.read_bytes() != files[name]:
            write_private(target, files[name])


def remove(folder: Path) -> None:
    """All of a record's folder, and the record last, so that a killed removal is seen. Terminal when anything stays."""
    last = folder / RECORD
    try:
        for one in folder.iterdir():
            if one.is_dir() and not one.is_symlink():
                shutil.rmtree(one)
            elif one != last:
                one.unlink()
        last.unlink(missing_ok=True)
        folder.rmdir()
    except FileNotFoundError:
        return
    except OSError as error:
        text = f"the cluster is gone, but its keys in {folder} cannot be removed: {error}"
        raise Terminal(text, hint="remove the folder by hand") from None


def read_secrets(folder: Path) -> dict[str, str]:
    """All secrets kept beside the record, in one read. Terminal where they are damaged."""
    file = folder / SECRETS
    try:
        found: Any = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or {type(value) for value in cast("dict[str, Any]", found).values()} - {str}:
            raise ValueError("expected an object of strings")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise Terminal(f"{file} cannot be read: {' '.join(str(error).split())[:200]}", hint=_SECRETS_DAMAGED) from None
    return cast("dict[str, str]", found)


def plain(files: Mapping[str, bytes]) -> bytes:
    """The files as text, in one order."""
    texts = {name: data.decode("utf-8", _ERRORS) for name, data in sorted(files.items())}
    return json.dumps({"format": _FORMAT, "files": texts}).encode()


def identity(files: Mapping[str, bytes]) -> str:
    """What two sets of files have in common only if they are equal."""
    return hashlib.sha256(plain(files)).hexdigest()


def pack(files: Mapping[str, bytes]) -> bytes:
    """Compressed: a node takes some 100 bytes, and the API takes a MiB."""
    return zlib.compress(plain(files), 9)


def unpack(data: bytes) -> dict[str, bytes]:
    """Raises UnreadableCopy."""
    reader = zlib.decompressobj()
    try:
        text = reader.decompress(data, _LARGEST)
        if not reader.eof:
            raise UnreadableCopy("it is cut off, or too large")
        found: Any = json.loads(text)
        if found["format"] != _FORMAT:
            raise UnreadableCopy(f"its format is {repr(found['format'])[:60]}, this moyai knows {_FORMAT}")
        files = cast("dict[str, Any]", found["files"])
        if RECORD not in files or not all(FILE_NAME.fullmatch(name) and belongs(name) for name in files):
            raise UnreadableCopy("its files are not those of a record")
        return {name: str(content).encode("utf-8", _ERRORS) for name, content in files.items()}
    except (zlib.error, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UnreadableCopy("it is damaged") from None


def serial(files: Mapping[str, bytes]) -> int:
    """How often the record of these files was written; 0 where it does not say so."""
    try:
        found: Any = json.loads(files[RECORD]).get("serial", 0)
    except (KeyError, ValueError, AttributeError, RecursionError):
        return 0
    return found if isinstance(found, int) else 0
