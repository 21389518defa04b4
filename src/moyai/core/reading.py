"""Text that a user names: a file, a pipe, a terminal, a device. Read with limits, whatever it turns out to be.

Always holds: no more than the limit is kept in memory, however much there is (``/dev/zero``, ``/proc``: their length is not
known beforehand); a pipe that nobody writes to is not waited for without end.
"""

from __future__ import annotations

import os
import select
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from moyai.core import yamlread
from moyai.core.errors import UsageError

#: Stands for standard input, as for other programs.
STANDARD_INPUT = Path("-")
_CHUNK = 1 << 16


@dataclass(frozen=True)
class Patience:
    """Seconds. ``opened``: until somebody writes to a pipe. ``silence``: until the next piece of what is being written: a
    program that fetches things may take minutes. At a terminal nothing hurries."""

    opened: float = 10.0
    silence: float = 300.0


def read_text(file: Path, *, limit: int, should: str, patience: Patience | None = None) -> str:
    """The UTF-8 text of ``file``, ``-`` for standard input. ``limit``: bytes. ``should``: what the file ought to be.

    Raises UsageError for what cannot be read, is too large, or does not arrive.
    """
    name = "standard input" if file == STANDARD_INPUT else str(file)
    try:
        # a pipe is opened whether somebody writes to it or not
        handle = os.dup(0) if file == STANDARD_INPUT else os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            data = _read(handle, name, limit=limit, patience=patience or Patience())
        finally:
            os.close(handle)
    except OSError as error:
        raise UsageError(f"{name}: cannot be read ({error.strerror})") from None
    except ValueError:
        # Path with a NUL character
        raise UsageError(f"{name}: no file can have this name") from None
    if len(data) > limit:
        most = f"{limit >> 20} MiB" if limit >= 1 << 20 else f"{limit >> 10} KiB"
        raise UsageError(f"{name}: larger than {most}, should be {should}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{name}: not UTF-8 text, should be {should}") from None


def _read(handle: int, name: str, *, limit: int, patience: Patience) -> bytes:
    """All that there is, or one byte more than ``limit``."""
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    silence = None if os.isatty(handle) else patience.silence * 1000
    # only a pipe that was opened by its name can be without a writer
    unwritten = stat.S_ISFIFO(os.fstat(handle).st_mode) and not os.get_blocking(handle)
    data = bytearray()
    while len(data) <= limit:
        if unwritten and not poll.poll(patience.opened * 1000):
            try:
                data += os.read(handle, 1)
            except BlockingIOError:
                # somebody has it open, and is silent so far
                pass
            else:
                if not data:
                    raise UsageError(f"{name}: nobody writes to this pipe ({patience.opened:.0f} s)")
        unwritten = False
        if not poll.poll(silence):
            raise UsageError(f"{name}: nothing arrived within {patience.silence:.0f} s")
        try:
            piece = os.read(handle, min(_CHUNK, limit + 1 - len(data)))
        except BlockingIOError:
            continue
        if not piece:
            break
        data += piece
    return bytes(data)


def read_yaml(file: Path, *, should: str, limit: int = 16 << 20) -> list[Any]:
    """The YAML documents in ``file``, without empty ones. Raises UsageError; see ``read_text``."""
    try:
        return [one for one in yamlread.read(read_text(file, limit=limit, should=should)) if one is not None]
    except yamlread.YamlError as error:
        raise UsageError(f"{file}{error.where}: {error.problem}, should be {should}") from None


def read_mapping(file: Path, *, should: str) -> dict[str, Any]:
    """The mapping that the YAML file holds, empty where it holds nothing. Raises UsageError; see ``read_text``."""
    documents = read_yaml(file, should=should)
    if len(documents) > 1 or not all(isinstance(one, dict) for one in documents):
        raise UsageError(f"{file}: not one mapping, should be {should}")
    return cast("dict[str, Any]", documents[0]) if documents else {}
