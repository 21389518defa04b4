"""A folder as an ext4 file system, always with the same bytes for the same folder.

mke2fs makes an empty one with an identity that is told it, and debugfs puts one file after the other into it, in the order of
their names. mke2fs could copy a folder by itself, but takes over the order of the host's directories and the time of its
changes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from moyai.core.errors import Terminal
from moyai.images.disk.disk_tools import DiskTools
from moyai.images.node_tree import walk

#: GRUB reads the file system; it does not know these.
_FEATURES = "^metadata_csum_seed,^orphan_file"
_JOURNAL_MB = 64
#: Metadata for each byte of content, and what is left free for the first minutes, before the root has grown.
_SPARE, _FREE = 1.06, 256 << 20
_BLOCK = 4096


@dataclass(frozen=True)
class PlacedFileSystem:
    """``offset``: where it begins in the image; ``size``: its length; both in bytes. ``uuid`` is its identity, and the seed of
    its hashes. ``date``: the latest date of a file, in seconds of Unix time."""

    offset: int
    size: int
    uuid: str
    label: str
    date: int


def size_for(tree: Path) -> int:
    """Bytes that a file system with the content of this folder needs."""
    used = sum((info.st_size + _BLOCK - 1) // _BLOCK * _BLOCK + 512 for _, info in walk(tree))
    return int(used * _SPARE) + _FREE + (_JOURNAL_MB << 20)


def write_ext4(tools: DiskTools, tree: Path, *, image: Path, system: PlacedFileSystem) -> None:
    """Write the folder into an image that exists. Raises Terminal for a file that the file system did not take."""
    options = f"offset={system.offset},hash_seed={system.uuid},lazy_itable_init=0,lazy_journal_init=0,root_owner=0:0"
    words = ["-q", "-F", "-t", "ext4", "-b", str(_BLOCK), "-m", "0", "-J", f"size={_JOURNAL_MB}", "-O", _FEATURES]
    words += ["-U", system.uuid, "-L", system.label, "-E", options]
    tools.run("mke2fs", *words, image, f"{system.size >> 10}k", date=system.date)
    script = image.with_name(f"{image.name}.script")
    try:
        script.write_bytes(b"\n".join(os.fsencode(line) for line in commands(tree, system.date)) + b"\n")
        said = tools.run("debugfs", "-w", "-f", script, f"{image}?offset={system.offset}", date=system.date)
    finally:
        script.unlink(missing_ok=True)
    # debugfs goes on after a command that failed, and ends with 0
    wrong = [line for line in said.stderr.splitlines() if line and not line.startswith("debugfs 1")]
    if wrong:
        raise Terminal(f"the disk's file system cannot be written: {wrong[0]}", hint="is the disk full?")


def commands(tree: Path, date: int) -> Iterator[str]:
    """debugfs's commands that write the folder's content, with owners, modes, dates, attributes and hard links."""
    entries = walk(tree)
    links: dict[tuple[int, int], list[str]] = {}
    for name, info in entries:
        if stat.S_ISREG(info.st_mode):
            links.setdefault((info.st_dev, info.st_ino), []).append(name)
    at = ""
    for name, info in entries:
        path, kind = tree / name, stat.S_IFMT(info.st_mode)
        parent, _, base = name.rpartition("/")
        if parent != at:
            yield f"cd {_quoted('/' + parent)}"
            at = parent
        same = links.get((info.st_dev, info.st_ino), [name])
        if kind == stat.S_IFREG and same[0] != name:
            yield f"ln {_quoted('/' + same[0])} {_quoted(base)}"
            continue
        if kind == stat.S_IFDIR:
            if name != ".":
                yield f"mkdir {_quoted(base)}"
        elif kind == stat.S_IFREG:
            yield f"write {_quoted(str(path))} {_quoted(base)}"
        elif kind == stat.S_IFLNK:
            yield f"symlink {_quoted(base)} {_quoted(str(path.readlink()))}"
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            of = "c" if kind == stat.S_IFCHR else "b"
            yield f"mknod {_quoted(base)} {of} {os.major(info.st_rdev)} {os.minor(info.st_rdev)}"
        elif kind == stat.S_IFIFO:
            yield f"mknod {_quoted(base)} p"
        else:
            continue
        yield from _described(path, info, name=base, date=date, links=len(same))


def _described(path: Path, info: os.stat_result, *, name: str, date: int, links: int) -> Iterator[str]:
    quoted = _quoted(name)
    if not stat.S_ISLNK(info.st_mode):
        yield f"sif {quoted} mode 0{info.st_mode:o}"
    for field, number in (("uid", info.st_uid), ("gid", info.st_gid)):
        if number:
            yield f"sif {quoted} {field} {number}"
    if links > 1:
        yield f"sif {quoted} links_count {links}"
    if stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode):
        for attribute in sorted(os.listxattr(path, follow_symlinks=False)):
            value = os.getxattr(path, attribute, follow_symlinks=False)
            yield f"ea_set {quoted} {attribute} " + "".join(f"\\{byte:03o}" for byte in value)
    yield f"sif {quoted} mtime @{min(int(info.st_mtime), date)}"


def _quoted(name: str) -> str:
    if "\n" in name:
        raise Terminal(f"a file of the disk image has a line break in its name: {name!r}")
    doubled = name.replace('"', '""')
    return f'"{doubled}"'
