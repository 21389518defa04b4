"""Files below a folder whose content somebody else made: the root of a running machine, an unpacked image.

What always holds: no link in such a folder leads out of it. Every path is resolved by the kernel in one step (openat2(2),
Linux 5.6), so nobody can put a link into it between a check and its use. Below the folder that ``folder`` opened, entries
are made, replaced and removed by their name alone (``dir_fd``), and a link of that name is never followed.

Loaded also in OpenStack's own environment: standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
from collections.abc import Generator
from pathlib import Path

_OPENAT2 = 437  # the same on every architecture that Debian 12 has
_NO_XDEV, _NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH, _IN_ROOT = 0x01, 0x02, 0x04, 0x08, 0x10
_libc = ctypes.CDLL(None, use_errno=True)


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def _openat2(descriptor: int, path: str, *, flags: int, resolve: int) -> int:
    how = _How(flags | os.O_CLOEXEC, 0, resolve)
    size = ctypes.c_size_t(ctypes.sizeof(how))
    name = ctypes.c_char_p(os.fsencode(path))
    opened = _libc.syscall(ctypes.c_long(_OPENAT2), ctypes.c_int(descriptor), name, ctypes.byref(how), size)
    if opened < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return opened


@contextlib.contextmanager
def _opened(root: Path) -> Generator[int]:
    descriptor = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def folder(root: Path, path: str, *, mounts: bool = False) -> Generator[int]:
    """A descriptor (for ``dir_fd``) of the folder ``path`` below ``root``; ``mounts``: it may lie on another mount.

    Raises OSError: ELOOP where a part of the path is a link, EXDEV where it is on another mount, ENOENT, ENOTDIR.
    """
    resolve = _BENEATH | _NO_SYMLINKS | _NO_MAGICLINKS | (0 if mounts else _NO_XDEV)
    with _opened(root) as top:
        descriptor = _openat2(top, path.strip("/") or ".", flags=os.O_PATH | os.O_DIRECTORY, resolve=resolve)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def status(root: Path, path: str) -> os.stat_result | None:
    """What ``path`` is for a process whose root is ``root``: links lead to their targets below it. None: nothing is there."""
    try:
        with _opened(root) as top:
            descriptor = _openat2(top, path.strip("/") or ".", flags=os.O_PATH, resolve=_IN_ROOT | _NO_MAGICLINKS)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return None
        raise
    try:
        return os.fstat(descriptor)
    finally:
        os.close(descriptor)


def exists(root: Path, path: str) -> bool:
    """Whether an entry ``path`` is there, of whatever kind, also a link that leads nowhere."""
    parent, _, name = path.strip("/").rpartition("/")
    try:
        with _opened(root) as top:
            above = _openat2(top, parent or ".", flags=os.O_PATH | os.O_DIRECTORY, resolve=_IN_ROOT | _NO_MAGICLINKS)
    except OSError:
        return False
    try:
        os.stat(name, dir_fd=above, follow_symlinks=False)
    except OSError:
        return False
    finally:
        os.close(above)
    return True


def make_folder(name: str, descriptor: int, *, mode: int = 0o755, owner: tuple[int, int] = (0, 0)) -> None:
    """Make a folder in an open one. An entry of another kind is replaced; a folder stays as it is."""
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISDIR(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode):
            return
        os.unlink(name, dir_fd=descriptor)
    os.mkdir(name, 0o700, dir_fd=descriptor)
    made = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
    try:
        os.fchown(made, *owner)
        os.fchmod(made, mode)
    finally:
        os.close(made)


def write(root: Path, path: str, *, data: bytes, mode: int = 0o644) -> None:
    """Write a file below ``root``. An entry of that name, of whatever kind, is replaced in one step, never written to.

    Raises OSError as ``folder`` does.
    """
    parent, _, name = path.strip("/").rpartition("/")
    temporary = f".{name}.moyai"
    with folder(root, parent) as descriptor:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=descriptor)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(temporary, flags, 0o600, dir_fd=descriptor), "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
        os.rename(temporary, name, src_dir_fd=descriptor, dst_dir_fd=descriptor)


def make_device(name: str, descriptor: int, *, kind: int, number: int, mode: int = 0o660) -> None:
    """Make a device node (``kind``: S_IFBLK or S_IFCHR) in an open folder, in place of what has that name."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=descriptor)
    os.mknod(name, kind | 0o600, number, dir_fd=descriptor)
    made = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=descriptor)
    try:
        found = os.fstat(made)
        if stat.S_IFMT(found.st_mode) == kind and found.st_rdev == number:
            # by the descriptor: the name may stand for something else by now
            Path(f"/proc/self/fd/{made}").chmod(mode)
    finally:
        os.close(made)
