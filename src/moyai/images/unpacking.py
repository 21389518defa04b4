"""How an image archive is opened: uncompressed if need be, and never without limits.

An archive may be made to fill the disk, the memory or the time of its reader. So: what it unpacks to has a limit and leaves
free space on the disk; a tar has so many entries and no entry without an end; nothing is read in one piece that is large.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import os
import tarfile
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import IO, cast

from moyai.core.errors import UsageError

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
CHUNK = 1 << 20
#: Bytes that an archive may unpack to, unless the caller says otherwise.
MOST_UNPACKED = 32 << 30
#: Bytes that stay free on the disk that an archive is unpacked on.
_STAYS_FREE = 1 << 30
#: Image archives have a few entries for each layer.
_MOST_MEMBERS = 50_000
#: The largest piece that is read at once. tarfile reads an extended header as a whole, however large it says that it is.
_LARGEST_READ = 16 << 20

#: First bytes → how to open a compressed archive.
_COMPRESSED: Mapping[bytes, Callable[[Path], IO[bytes]]] = {
    GZIP: lambda path: cast(IO[bytes], gzip.GzipFile(path)),
    b"BZh": lambda path: cast(IO[bytes], bz2.BZ2File(path)),
    b"\xfd7zXZ": lambda path: cast(IO[bytes], lzma.LZMAFile(path)),  # noqa: SIM115 (the caller has the with)
}


@contextlib.contextmanager
def plain(path: Path, most_unpacked: int) -> Generator[IO[bytes]]:
    """The tar itself, uncompressed into a temporary file if need be (a layer is read twice, so it must be seekable).

    Raises UsageError for what is no file, is compressed in a way that cannot be read, or unpacks to too much.
    """
    if not path.is_file():
        raise UsageError(f"{path} is no file")
    with path.open("rb") as file:
        head = file.read(6)
        if head.startswith(ZSTD):
            raise UsageError(f"{path} is compressed with zstd", hint=f"`zstd -d {path.name}` first")
        opener = next((function for magic, function in _COMPRESSED.items() if head.startswith(magic)), None)
        if opener is None:
            file.seek(0)
            yield cast("IO[bytes]", _InPieces(file, path))
            return
    # without a name: it goes with this process, however that ends
    with tempfile.TemporaryFile(dir=path.parent if _writable(path.parent) else None) as whole:
        with opener(path) as packed:
            unpacked = limited(packed, path, most=most_unpacked)
            while chunk := unpacked.read(CHUNK):
                system = os.fstatvfs(whole.fileno())
                if system.f_bavail * system.f_frsize < _STAYS_FREE + len(chunk):
                    raise UsageError(
                        f"{path} cannot be unpacked: less than {_STAYS_FREE >> 30} GiB would stay free on the disk",
                        hint="free some, or move the archive to a larger disk",
                    )
                whole.write(chunk)
        whole.seek(0)
        yield cast("IO[bytes]", _InPieces(whole, path))


def members(tar: tarfile.TarFile, path: Path) -> Iterator[tarfile.TarInfo]:
    """The entries of a tar. Raises UsageError for too many, and for those that lead back or have no content of their own."""
    last = -1
    for number, member in enumerate(tar):
        if number >= _MOST_MEMBERS:
            raise UsageError(f"{path} is no image archive that can be used", hint=f"more than {_MOST_MEMBERS} entries")
        # a negative size leads back to an earlier entry, for ever
        if member.size < 0 or member.offset <= last:
            raise UsageError(f"{path} is no image archive that can be used", hint="an entry of a negative size")
        if member.issparse():
            raise UsageError(f"{path} is no image archive that can be used", hint="an entry with holes (a sparse file)")
        last = member.offset
        yield member


def limited(file: IO[bytes], path: Path, *, most: int) -> IO[bytes]:
    """The same content, read in pieces; UsageError once it is longer than ``most`` bytes."""
    return cast("IO[bytes]", _Limited(file, path, most=most))


class _Limited:
    def __init__(self, file: IO[bytes], path: Path, *, most: int) -> None:
        self._file, self._path, self._most, self._read = file, path, most, 0

    def read(self, size: int = -1, /) -> bytes:
        piece = self._file.read(size if 0 <= size <= CHUNK else CHUNK)
        self._read += len(piece)
        if self._read > self._most:
            raise UsageError(
                f"{self._path} unpacks to more than {self._most / (1 << 30):g} GiB",
                hint="`--max-unpacked GIB` allows more",
            )
        return piece


class _InPieces:
    """A file for tarfile, which raises UsageError instead of reading a large piece at once."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self._file, self._path = file, path

    def read(self, size: int = -1, /) -> bytes:
        if not 0 <= size <= _LARGEST_READ:
            raise UsageError(
                f"{self._path} is no image archive that can be used", hint=f"a header of more than {_LARGEST_READ >> 20} MiB"
            )
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def _writable(folder: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
