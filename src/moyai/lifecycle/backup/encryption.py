"""A backup is encrypted with age: for the owners of keys, or with a passphrase.

With a passphrase, age's own library takes a whole text into memory only. The file therefore begins with a key of its own, which
the passphrase opens (an armored age file), and goes on with the content, which is for this key. Either part is age's and can be
opened by its program. Always holds: the content goes through in pieces, and no piece reaches anybody before age has
authenticated it; nobody learns from an error more than that the key is another, or that the file is not whole.
Source: https://age-encryption.org/v1.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

import pyrage

from moyai.core.errors import UsageError

if TYPE_CHECKING:
    from pyrage import _Identity, _Recipient  # pyright: ignore[reportPrivateUsage]

_ARMOR, _ARMOR_END = b"-----BEGIN AGE ENCRYPTED FILE-----", b"-----END AGE ENCRYPTED FILE-----\n"
#: Bytes of the part that a passphrase opens, at most.
_SHORT = 4096


class CannotOpen(Exception):
    """Its text: why, as the end of a sentence."""


@dataclass(frozen=True)
class Recipients:
    """Who can open a backup: the owners of these keys, or whoever knows the passphrase; exactly one of both is given."""

    keys: tuple[str, ...] = ()
    passphrase: str = field(default="", repr=False)


@dataclass(frozen=True)
class Opener:
    """What opens a backup. ``identities``: texts of age's key files, or SSH private keys."""

    identities: tuple[bytes, ...] = field(default=(), repr=False)
    passphrase: str = field(default="", repr=False)


class Pieces(io.RawIOBase):
    """An iterator as a stream to read from. ``failed``: the error with which the iterator ended, if it did."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, memoryview(b"")
        self.failed: BaseException | None = None

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        """At most ``size`` bytes; nothing at the end."""
        while not self._rest:
            try:
                self._rest = memoryview(next(self._pieces))
            except StopIteration:
                return b""
            except BaseException as error:
                self.failed = error
                raise
        taken = self._rest if size < 0 else self._rest[:size]
        self._rest = self._rest[len(taken) :]
        return bytes(taken)


def parse_recipients(keys: Sequence[str], passphrase: str) -> Recipients:
    """UsageError for what is no key of age or SSH, and for both or nothing."""
    if bool(keys) == bool(passphrase):
        raise UsageError("a backup is encrypted: for keys, or with a passphrase", hint="--recipient or --passphrase-file")
    for key in keys:
        _recipient(key)
    return Recipients(tuple(keys), passphrase)


def encrypt(pieces: Iterator[bytes], out: BinaryIO, *, recipients: Recipients) -> None:
    """Raises what ``pieces`` or ``out`` raise."""
    keys = [_recipient(key) for key in recipients.keys]
    if recipients.passphrase:
        own = pyrage.x25519.Identity.generate()
        out.write(pyrage.passphrase.encrypt(str(own).encode(), recipients.passphrase, armored=True))
        keys = [own.to_public()]
    source, watched = Pieces(pieces), _Watched(out)
    try:
        pyrage.encrypt_io(source, watched, keys)  # pyright: ignore[reportArgumentType]
    except pyrage.EncryptError:
        # age's library knows of others' errors as texts only
        failed = source.failed or watched.failed
        if failed is None:
            raise
        raise failed from None


def decrypt(source: BinaryIO, out: BinaryIO, *, opener: Opener) -> None:
    """What is in the file, to ``out``. Raises CannotOpen, and what ``out`` raises. What came before an error does not count.

    ``source``: at the file's beginning, and seekable.
    """
    head = source.read(_SHORT)
    if head.startswith(_ARMOR):
        end = head.find(_ARMOR_END)
        if end < 0:
            raise CannotOpen("it is not whole")
        source.seek(end + len(_ARMOR_END))
        identities = [_by_passphrase(head[: end + len(_ARMOR_END)], opener)]
    elif head.startswith(b"age-encryption.org/"):
        source.seek(0)
        identities = [one for text in opener.identities for one in _identities(text)]
        if not identities:
            raise CannotOpen("it is for the owners of keys: --identity names a file with one")
    else:
        raise CannotOpen("it is no backup of moyai's")
    watched = _Watched(out)
    try:
        pyrage.decrypt_io(source, watched, identities)  # pyright: ignore[reportArgumentType]
    except (pyrage.DecryptError, OSError) as error:
        if watched.failed is not None:
            raise watched.failed from None
        if "matching keys" in str(error):
            raise CannotOpen("the key is another") from None
        raise CannotOpen("it is cut off or was changed") from None


class _Watched(io.RawIOBase):
    """Keeps the error with which ``out`` refused a piece, as it was."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self.failed: BaseException | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: object, /) -> int:
        try:
            return self._out.write(data)  # type: ignore[arg-type]
        except BaseException as error:
            self.failed = error
            raise


def _recipient(key: str) -> _Recipient:
    try:
        return pyrage.ssh.Recipient.from_str(key) if key.startswith("ssh-") else pyrage.x25519.Recipient.from_str(key)
    except pyrage.RecipientError:
        shown = key if len(key) < 40 else f"{key[:36]}…"
        raise UsageError(f"{shown!r} is no public key", hint="should be one of age (age1…) or of SSH (ssh-ed25519 …)") from None


def _identities(text: bytes) -> Iterator[_Identity]:
    """Of age's key file, whose comments begin with #, or an SSH private key. UsageError for anything else."""
    try:
        if b"PRIVATE KEY-----" in text:
            yield pyrage.ssh.Identity.from_buffer(text)
            return
        for line in text.decode("ascii").splitlines():
            if line.strip() and not line.startswith("#"):
                yield pyrage.x25519.Identity.from_str(line.strip())
    except (pyrage.IdentityError, UnicodeDecodeError):
        raise UsageError("the identity is no private key of age or SSH", hint="`age-keygen -o key.txt` makes one") from None


def _by_passphrase(text: bytes, opener: Opener) -> _Identity:
    if not opener.passphrase:
        raise CannotOpen("it is encrypted with a passphrase: --passphrase-file names a file with it")
    try:
        return pyrage.x25519.Identity.from_str(pyrage.passphrase.decrypt(text, opener.passphrase).decode("ascii"))
    except (pyrage.DecryptError, pyrage.IdentityError, UnicodeDecodeError):
        raise CannotOpen("the passphrase is another, or it was changed") from None
