"""A backup's content and its encryption: what was written is read again, and nothing else is."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pyrage
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moyai.core.errors import UsageError
from moyai.lifecycle.backup import backup_archive as archive
from moyai.lifecycle.backup.backup_archive import BackupEntry, BackupEntryFacts, BackupManifest, Damaged, Reader
from moyai.lifecycle.backup.encryption import CannotOpen, Opener, Recipients, decrypt, encrypt, parse_recipients

PLAIN = BackupManifest("2026-11-29T12:00:00+00:00", "1", "quickstart", "uid", "moyai", "1.37.1", "3.7.3", 7)
FILES = {"record.json": b"{}", "pki/etcd/ca.key": b"k" * 1000, "empty": b"", "etcd.snapshot": bytes(range(256)) * 40}
KEY = pyrage.x25519.Identity.generate()
OPENER = Opener((str(KEY).encode(),))


def manifest(entries: tuple[BackupEntryFacts, ...]) -> BackupManifest:
    return replace(PLAIN, entries=entries)


def packed(files: dict[str, bytes] = FILES) -> bytes:
    return b"".join(archive.write((BackupEntry.of(name, content) for name, content in files.items()), manifest))


def unpacked(data: bytes, piece: int = 100) -> tuple[BackupManifest, dict[str, bytes]]:
    reader = Reader()
    for at in range(0, len(data), piece):
        reader.write(data[at : at + piece])
    found = reader.finish()
    return found, {name: bytes(content) for name, content in reader.files.items()}


def sealed(recipients: Recipients, content: bytes | None = None) -> bytes:
    out = io.BytesIO()
    encrypt(iter([packed() if content is None else content]), out, recipients=recipients)
    return out.getvalue()


def opened(data: bytes, opener: Opener = OPENER) -> bytes:
    out = io.BytesIO()
    decrypt(io.BytesIO(data), out, opener=opener)
    return out.getvalue()


# ---- the archive


@pytest.mark.exhaustive
@given(
    files=st.dictionaries(st.from_regex(r"[a-z]{1,8}(/[a-z]{1,8})?", fullmatch=True), st.binary(max_size=1200), max_size=5),
    piece=st.integers(1, 2000),
)
def test_what_is_written_is_read_in_pieces_of_any_size(files: dict[str, bytes], piece: int) -> None:
    # a name is a file's or a folder's
    files = {name: content for name, content in files.items() if not any(one.startswith(f"{name}/") for one in files)}
    found, content = unpacked(packed(files), piece)
    assert content == files
    assert found.entries == tuple(
        BackupEntryFacts(name, len(one), hashlib.sha256(one).hexdigest()) for name, one in files.items()
    )


def test_tar_reads_it_as_well() -> None:
    with tarfile.open(fileobj=io.BytesIO(packed())) as found:
        assert found.getnames() == [*FILES, "manifest.json"]


@pytest.mark.parametrize("size", [8**11 - 1, 8**11, 1 << 40])
def test_an_entry_may_be_larger_than_ustar_has_digits_for(size: int) -> None:
    head = next(archive.write([BackupEntry("etcd.snapshot", size, ())], manifest))
    assert tarfile.TarInfo.frombuf(head, "ascii", "strict").size == size


def test_an_entry_goes_where_it_is_wanted() -> None:
    out = io.BytesIO()
    reader = Reader(lambda name: out if name == "etcd.snapshot" else None)
    reader.write(packed())
    assert reader.finish().revision == 7
    assert out.getvalue() == FILES["etcd.snapshot"]
    assert "etcd.snapshot" not in reader.files


def test_an_entry_that_is_not_as_long_as_it_says_is_not_written() -> None:
    with pytest.raises(ValueError, match="a has 3 bytes instead of 4"):
        list(archive.write([BackupEntry("a", 4, (b"abc",))], manifest))


def hostile(name: str, *, content: bytes = b"x", kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = len(content), kind
    return info.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "it ends early"),
        (packed()[:-1024], "it ends early"),
        (packed()[:5000], "it ends early"),
        (b"x" * 512, "it is no archive"),
        (bytes(1024), "it has no manifest"),
        (hostile("../x"), "its entry '../x' does not belong there"),
        (hostile("/etc/passwd"), "its entry '/etc/passwd' does not belong there"),
        (hostile("a/../../b"), "does not belong there"),
        (hostile("x", kind=tarfile.SYMTYPE), "does not belong there"),
        (hostile("a") + hostile("a"), "does not belong there"),
        (hostile("manifest.json") + hostile("a"), "does not belong there"),
        (hostile("manifest.json") + bytes(1024), "its manifest cannot be read"),
        (hostile("manifest.json", content=b'{"format": 2}') + bytes(1024), "its format is 2, this moyai knows 1"),
        (hostile("a") + packed(), "its entries are not those that its manifest names"),
        (packed().replace(b"kkkk", b"kkkj", 1), "its entries are not those that its manifest names"),
    ],
)
def test_what_is_not_whole_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(Damaged, match=re.escape(why)):
        unpacked(data)


def test_only_what_is_small_is_kept_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "SMALL", 999)
    with pytest.raises(Damaged, match=r"its entry 'pki/etcd/ca\.key' is too large"):
        unpacked(packed())


# ---- the encryption


def test_a_backup_is_for_the_owners_of_keys() -> None:
    other = pyrage.x25519.Identity.generate()
    data = sealed(Recipients((str(KEY.to_public()), str(other.to_public()))))
    assert opened(data) == opened(data, Opener((str(other).encode(),))) == packed()
    assert pyrage.decrypt(data, [KEY]) == packed(), "age alone opens it as well"
    commented = b"# created: today\n# public key: age1\n\n" + str(KEY).encode() + b"\n"
    assert opened(data, Opener((commented,))) == packed()


@pytest.mark.exhaustive
def test_a_backup_with_a_passphrase_is_two_files_of_age_one_behind_the_other() -> None:
    data = sealed(parse_recipients((), "horse battery"))
    assert opened(data, Opener(passphrase="horse battery")) == packed()
    head, mark, rest = data.partition(b"-----END AGE ENCRYPTED FILE-----\n")
    inner = pyrage.x25519.Identity.from_str(pyrage.passphrase.decrypt(head + mark, "horse battery").decode())
    assert pyrage.decrypt(rest, [inner]) == packed()
    for opener, why in (
        (Opener(passphrase="other"), "the passphrase is another, or it was changed"),
        (OPENER, "it is encrypted with a passphrase"),
    ):
        with pytest.raises(CannotOpen, match=why):
            opened(data, opener)


def test_another_key_opens_nothing() -> None:
    data = sealed(Recipients((str(KEY.to_public()),)))
    for opener, why in (
        (Opener((str(pyrage.x25519.Identity.generate()).encode(),)), "the key is another"),
        (Opener(passphrase="x"), "it is for the owners of keys: --identity names a file with one"),
    ):
        with pytest.raises(CannotOpen, match=why):
            opened(data, opener)


@given(at=st.integers(0, 10**6), bit=st.integers(0, 7), cut=st.booleans())
def test_a_file_that_is_cut_off_or_changed_anywhere_is_refused(at: int, bit: int, cut: bool) -> None:
    data = bytearray(WHOLE)
    at %= len(data)
    if cut:
        del data[at:]
    else:
        data[at] ^= 1 << bit
    with pytest.raises(CannotOpen):
        opened(bytes(data))


#: Longer than one of age's pieces.
WHOLE = sealed(Recipients((str(KEY.to_public()),)), b"y" * 150_000)


@pytest.mark.parametrize("text", [b"", b"hello", b"PK\3\4", b"-----BEGIN AGE ENCRYPTED FILE-----\nYQ"])
def test_what_is_no_backup_is_refused(text: bytes) -> None:
    with pytest.raises(CannotOpen):
        opened(text, Opener(passphrase="x"))


@pytest.mark.parametrize("keys", [("age1foo",), ("ssh-ed25519 AAAA",), ("x" * 100,), ("",)])
def test_what_is_no_public_key_is_refused(keys: Sequence[str]) -> None:
    with pytest.raises(UsageError, match="is no public key: should be one of age"):
        parse_recipients(keys, "")


@pytest.mark.parametrize(("keys", "passphrase"), [((), ""), ((str(KEY.to_public()),), "x")])
def test_a_backup_is_encrypted_in_one_way(keys: Sequence[str], passphrase: str) -> None:
    with pytest.raises(UsageError, match="a backup is encrypted: for keys, or with a passphrase"):
        parse_recipients(keys, passphrase)


def test_what_is_no_private_key_is_refused() -> None:
    data = sealed(Recipients((str(KEY.to_public()),)))
    for text in (b"hello", b"\xff", b"-----BEGIN OPENSSH PRIVATE KEY-----\nx"):
        with pytest.raises(UsageError, match="the identity is no private key of age or SSH"):
            opened(data, Opener((text,)))


def test_errors_of_both_ends_come_through_as_they_are() -> None:
    class Full(io.RawIOBase):
        def write(self, data: object, /) -> int:
            raise OSError(28, "No space left on device")

    def ends() -> Iterator[bytes]:
        yield b"x" * 100_000
        raise KeyError("etcd")

    recipients = Recipients((str(KEY.to_public()),))
    with pytest.raises(KeyError, match="etcd"):
        encrypt(ends(), io.BytesIO(), recipients=recipients)
    with pytest.raises(OSError, match="No space left"):
        encrypt(iter([b"x" * 100_000]), Full(), recipients=recipients)  # pyright: ignore[reportArgumentType]
    with pytest.raises(OSError, match="No space left"):
        decrypt(io.BytesIO(WHOLE), Full(), opener=OPENER)  # pyright: ignore[reportArgumentType]
