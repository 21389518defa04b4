"""The mounts of this process's mount namespace: seen in /proc/self/mountinfo, made and undone with mount(8) and umount(8)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from moyai.linux.process import run

_SECONDS = 60.0
_ESCAPED = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Mount:
    """``root``: which part of the file system is mounted at ``point`` (``/``: all of it). ``device``: ``(major, minor)``.

    ``read_only`` is this mount's own; ``broken`` says that the file system is read-only below mounts that are not.
    """

    point: str
    root: str
    device: tuple[int, int]
    fs_type: str
    source: str
    read_only: bool
    broken: bool = False


def parse(text: str) -> list[Mount]:
    """The lines of mountinfo, in the order of mounting: of several at one point, the last one is seen."""
    found: list[Mount] = []
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        words, rest = left.split(), right.split(" ")
        if len(words) < 6 or len(rest) < 2:
            continue
        major, _, minor = words[2].partition(":")
        options, super_options = words[5].split(","), rest[2].split(",") if len(rest) > 2 else []
        read_only = "ro" in options
        found.append(
            Mount(
                point=_plain(words[4]),
                root=_plain(words[3]),
                device=(int(major), int(minor)),
                fs_type=rest[0],
                source=_plain(rest[1]),
                read_only=read_only,
                broken=not read_only and "ro" in super_options,
            )
        )
    return found


def mounts() -> list[Mount]:
    return parse(Path("/proc/self/mountinfo").read_text(errors="surrogateescape"))


def at(path: str, among: Iterable[Mount] | None = None) -> Mount | None:
    """What is mounted at a path (the last of several); symbolic links in the path are followed, but for its last part."""
    real = os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path.rstrip("/")))  # noqa: PTH118, PTH120, PTH119
    found = [one for one in (mounts() if among is None else among) if one.point == real]
    return found[-1] if found else None


def mount(device: str, target: str, *, fs_type: str, options: Sequence[str] = ()) -> None:
    """Raises ProcessError in mount's own words."""
    run(["mount", "-t", fs_type, *(["-o", ",".join(options)] if options else []), device, target], timeout=_SECONDS)


def bind(source: str, target: str, *, read_only: bool = False) -> None:
    """Show ``source`` (a folder or a file) at ``target`` too. Done again on a target that has it, only ``read_only`` counts."""
    if at(target) is None:
        run(["mount", "--bind", source, target], timeout=_SECONDS)
    if read_only:
        run(["mount", "-o", "remount,bind,ro", target], timeout=_SECONDS)


def unmount(target: str) -> None:
    """Undo every mount at ``target``; nothing mounted there is success."""
    while at(target) is not None:
        run(["umount", target], timeout=_SECONDS)


def _plain(text: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), text)
