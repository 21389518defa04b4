"""A backup's content: a tar stream whose last entry, ``manifest.json``, says what the others are.

Pure: bytes in, bytes out, piece by piece; an entry of any size needs no more memory than a piece. Always holds: what is read
counts only when all of it has come, each entry has the hash that the manifest names, and no entry is missing or too many.
Source: POSIX.1-1988, ustar interchange format.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import BinaryIO

from pydantic import TypeAdapter, ValidationError

from moyai.lifecycle.record_files import FILE_NAME

#: Raised when a backup of this form can no longer be read by an earlier version of moyai.
FORMAT = 1
MANIFEST = "manifest.json"
#: Bytes of an entry that is kept in memory, and of all of them: keys, certificates and a record have a hundredth.
SMALL = 1 << 22
_KEPT = 1 << 24
_BLOCK = 512


class Damaged(Exception):
    """It is no whole backup. Its text: what is wrong, as the end of a sentence."""


@dataclass(frozen=True)
class BackupEntry:
    """``size``: in bytes; ``pieces`` have as many in all."""

    name: str
    size: int
    pieces: Iterable[bytes]

    @classmethod
    def of(cls, name: str, content: bytes) -> BackupEntry:
        return cls(name, len(content), (content,))


@dataclass(frozen=True)
class BackupEntryFacts:
    """``sha256``: hexadecimal."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class BackupManifest:
    """What a backup is of, and what is in it.

    ``made``: ISO 8601, UTC. ``moyai``, ``kubernetes``, ``etcd``: versions. ``revision``: etcd's, just before its snapshot was
    taken: all that was written up to it is in the backup.
    """

    made: str
    moyai: str
    cluster: str
    uid: str
    cloud: str
    kubernetes: str
    etcd: str
    revision: int
    entries: tuple[BackupEntryFacts, ...] = ()
    format: int = FORMAT


def write(
    entries: Iterable[BackupEntry], manifest: Callable[[tuple[BackupEntryFacts, ...]], BackupManifest]
) -> Iterator[bytes]:
    """The stream. ``manifest`` is asked when all entries have been read. ValueError for an entry that is not as long as it
    says."""
    facts: list[BackupEntryFacts] = []
    for entry in entries:
        digest, size = hashlib.sha256(), 0
        yield _head(entry.name, entry.size)
        for piece in entry.pieces:
            digest.update(piece)
            size += len(piece)
            yield piece
        if size != entry.size:
            raise ValueError(f"{entry.name} has {size} bytes instead of {entry.size}")
        yield _padding(size)
        facts.append(BackupEntryFacts(entry.name, size, digest.hexdigest()))
    text = json.dumps(asdict(manifest(tuple(facts))), indent=1).encode()
    yield _head(MANIFEST, len(text))
    yield text
    yield _padding(len(text))
    yield bytes(2 * _BLOCK)


class Reader(io.RawIOBase):
    """Takes the stream in pieces of any size; ``finish`` when all has come. Both raise Damaged.

    ``into``: where an entry of this name goes instead of into memory. ``belongs``: whether there may be one of this name.
    """

    def __init__(
        self, into: Callable[[str], BinaryIO | None] = lambda _: None, *, belongs: Callable[[str], bool] = lambda _: True
    ) -> None:
        self._into, self._belongs = into, belongs
        self._kept = 0
        self._head = bytearray()
        self._name = ""
        self._left = self._pad = 0
        self._digest = hashlib.sha256()
        self._target: BinaryIO | None = None
        self._ended = False
        self._facts: dict[str, BackupEntryFacts] = {}
        self._size = 0
        #: BackupEntry → content, of those that are kept.
        self.files: dict[str, bytearray] = {}

    def writable(self) -> bool:
        return True

    def write(self, data: object, /) -> int:
        view = memoryview(data)  # type: ignore[arg-type]
        size = at = len(view)
        at = 0
        while at < size and not self._ended:
            at += self._take(view[at:])
        return size

    def finish(self) -> BackupManifest:
        if not self._ended:
            raise Damaged("it ends early")
        manifest = _parse(bytes(self.files.pop(MANIFEST, b"")))
        self._facts.pop(MANIFEST)
        if {one.name: one for one in manifest.entries} != self._facts:
            raise Damaged("its entries are not those that its manifest names")
        return manifest

    def _take(self, view: memoryview) -> int:
        """Uses up some of the bytes; says how many."""
        if self._left:
            piece = view[: self._left]
            self._left -= len(piece)
            self._keep(piece)
            return len(piece)
        if self._pad:
            used = min(self._pad, len(view))
            self._pad -= used
            return used
        used = min(_BLOCK - len(self._head), len(view))
        self._head += view[:used]
        if len(self._head) == _BLOCK:
            self._begin(bytes(self._head))
            self._head.clear()
        return used

    def _begin(self, head: bytes) -> None:
        if not any(head):
            if MANIFEST not in self._facts:
                raise Damaged("it has no manifest")
            self._ended = True
            return
        try:
            info = tarfile.TarInfo.frombuf(head, "ascii", "strict")
        except (tarfile.HeaderError, UnicodeDecodeError):
            raise Damaged("it is no archive") from None
        if not info.isreg() or info.size < 0 or MANIFEST in self._facts or not self._may_be(info.name):
            raise Damaged(f"its entry {info.name!r} does not belong there")
        self._name, self._left, self._pad = info.name, info.size, -info.size % _BLOCK
        self._size, self._digest = info.size, hashlib.sha256()
        self._target = self._into(info.name)
        if self._target is None:
            if info.size > SMALL:
                raise Damaged(f"its entry {info.name!r} is too large")
            self._kept += _BLOCK + info.size
            if self._kept > _KEPT:
                raise Damaged("its entries are too large")
            self.files[info.name] = bytearray()
        if not info.size:
            self._end()

    def _may_be(self, name: str) -> bool:
        """No name is that of another entry, or of the folder of one."""
        if not FILE_NAME.fullmatch(name) or not self._belongs(name):
            return False
        folders = {str(one) for one in PurePosixPath(name).parents}
        return not any(one == name or one in folders or one.startswith(f"{name}/") for one in self._facts)

    def _keep(self, piece: memoryview) -> None:
        self._digest.update(piece)
        if self._target is None:
            self.files[self._name] += piece
        else:
            self._target.write(piece)
        if not self._left:
            self._end()

    def _end(self) -> None:
        self._facts[self._name] = BackupEntryFacts(self._name, self._size, self._digest.hexdigest())


def _head(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o600
    # ustar itself has eleven octal digits for a size; GNU's form of the number goes on after 8 GiB
    return info.tobuf(tarfile.GNU_FORMAT, "ascii", "strict")


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK)


def _parse(text: bytes) -> BackupManifest:
    try:
        form = json.loads(text)["format"]
        if form != FORMAT:
            raise Damaged(f"its format is {repr(form)[:60]}, this moyai knows {FORMAT}: a later version has written it")
        return TypeAdapter(BackupManifest).validate_json(text)
    except (ValidationError, ValueError, KeyError, TypeError, RecursionError):
        raise Damaged("its manifest cannot be read") from None
