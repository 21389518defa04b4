"""Which mount options the kernel refuses for a file system, in the kernel's own words.

mount(8) of Debian 12 answers a wrong option with a sentence about options, superblocks and helper programs, and names none of
them. The kernel knows the option: a file system context (fsopen(2), fsconfig(2), Linux 5.2) takes options one by one and keeps
a message for each refusal. What always holds: no file system is mounted or created here, and no device is opened.

A file system that has no context of its own takes every option at this point; then nothing is known, and nothing is said.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Generator, Iterable
from dataclasses import dataclass

_FSOPEN, _FSCONFIG = 430, 431  # the same on every architecture that Debian 12 has
_CLOEXEC, _SET_FLAG, _SET_STRING = 1, 0, 1
_libc = ctypes.CDLL(None, use_errno=True)
#: What mount(8) keeps for itself, or what belongs to a mount and not to its file system: the context does not know them.
_OF_MOUNT = frozenset(
    {
        *("defaults", "auto", "noauto", "user", "nouser", "users", "nousers", "owner", "noowner", "group", "nogroup"),
        *("_netdev", "nofail", "loop", "silent", "loud", "async", "iversion", "noiversion"),
        *("exec", "noexec", "suid", "nosuid", "dev", "nodev", "symfollow", "nosymfollow"),
        *("atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime", "strictatime", "nostrictatime"),
    }
)
_OF_MOUNT_WITH_VALUE = ("comment=", "x-", "X-", "loop=", "offset=", "sizelimit=", "uhelper=", "helper=")


@dataclass(frozen=True)
class RefusedOption:
    """``why``: the kernel's message, for example ``Unknown parameter 'notaime'``."""

    option: str
    why: str


def refused(kind: str, options: Iterable[str]) -> list[RefusedOption]:
    """The options (each may hold several, separated by commas) that a file system refuses. Raises OSError where this kernel has
    no contexts (ENOSYS), or no such file system (ENODEV)."""
    found: list[RefusedOption] = []
    with _context(kind) as context:
        for option in (one.strip() for text in options for one in text.split(",")):
            if option and option not in _OF_MOUNT and not option.startswith(_OF_MOUNT_WITH_VALUE):
                why = _set(context, option)
                if why:
                    found.append(RefusedOption(option, why))
    return found


def is_known(kind: str) -> bool:
    """Whether the kernel has the file system, or loads it when it is asked for."""
    try:
        with _context(kind):
            return True
    except OSError as error:
        return error.errno != errno.ENODEV


@contextlib.contextmanager
def _context(kind: str) -> Generator[int]:
    opened = int(_libc.syscall(ctypes.c_long(_FSOPEN), ctypes.c_char_p(kind.encode()), ctypes.c_uint(_CLOEXEC)))
    if opened < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), kind)
    try:
        yield opened
    finally:
        os.close(opened)


def _set(context: int, option: str) -> str:
    """Why the context does not take the option; empty when it does."""
    key, equals, value = option.partition("=")
    done = _libc.syscall(
        ctypes.c_long(_FSCONFIG),
        ctypes.c_int(context),
        ctypes.c_uint(_SET_STRING if equals else _SET_FLAG),
        ctypes.c_char_p(os.fsencode(key)),
        ctypes.c_char_p(os.fsencode(value) if equals else None),
        ctypes.c_int(0),
    )
    number = ctypes.get_errno() if done < 0 else 0
    said = _messages(context)
    return (said or os.strerror(number)) if number else ""


def _messages(context: int) -> str:
    """What the context has to say, each message ``e FILESYSTEM: TEXT``; reading takes it off the queue."""
    texts: list[str] = []
    with contextlib.suppress(OSError):  # ENODATA: no more
        while message := os.read(context, 4096):
            texts.append(message.decode(errors="replace").strip().partition(": ")[2])
    return "; ".join(filter(None, texts))
