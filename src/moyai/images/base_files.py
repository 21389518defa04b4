"""What every image of ours holds beside its program: users, certificates, names; and how Debian's packages become a layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from moyai.images.oci import Entry, folder, from_folder

_PASSWD = "root:x:0:0:root:/root:/sbin/nologin\n{extra}nobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\n"
_GROUP = "root:x:0:\n{extra}nogroup:x:65534:\n"
_NONROOT = ("nonroot", 65532)

#: Of Debian's packages, what no program needs to run.
_LEFT_OUT = (
    "usr/share/man", "usr/share/info", "usr/share/locale", "usr/share/lintian", "usr/share/bug", "usr/share/doc-base",
    "usr/share/perl5", "usr/share/perl", "usr/share/debconf", "usr/share/bash-completion", "usr/share/zsh",
    "var/cache", "var/lib/apt", "var/lib/dpkg", "var/log", "etc/apt", "etc/dpkg", "dev", "proc", "sys", "run", "tmp",
    # made by mmdebstrap as copies of the host's
    "etc/hostname", "etc/resolv.conf", "etc/fstab",
    "etc/init.d", "etc/logrotate.d", "etc/cron.d", "etc/default", "usr/lib/systemd", "lib/systemd",
)  # fmt: skip


def users(extra: Sequence[tuple[str, int]] = (), *, groups_of_root: Mapping[str, int] | None = None) -> list[Entry]:
    """Users and groups: root, ``nonroot`` (65532), nobody, and ``extra`` of the same name and number in both.
    ``groups_of_root``: name → number of more groups, which root is a member of."""
    everybody = (*extra, _NONROOT)
    passwd = "".join(f"{name}:x:{number}:{number}:{name}:/nonexistent:/sbin/nologin\n" for name, number in everybody)
    group = "".join(f"{name}:x:{number}:\n" for name, number in everybody)
    group += "".join(f"{name}:x:{number}:root\n" for name, number in (groups_of_root or {}).items())
    return [
        Entry("etc/passwd", content=_PASSWD.format(extra=passwd).encode()),
        Entry("etc/group", content=_GROUP.format(extra=group).encode()),
        Entry("etc/nsswitch.conf", content=b"passwd: files\ngroup: files\nhosts: files dns\n"),
        folder("root", 0o700),
        folder("run"),
        folder("tmp", 0o1777),
        folder("var/tmp", 0o1777),
    ]


def certificates(debian: Path) -> list[Entry]:
    """The certificate authorities that Debian trusts, out of a root file system with the package ca-certificates."""
    content = debian / "etc/ssl/certs/ca-certificates.crt"
    if content.exists():
        return [Entry("etc/ssl/certs/ca-certificates.crt", content=content.read_bytes())]
    # packages that were only unpacked: the bundle is what their set-up would have written
    parts = sorted((debian / "usr/share/ca-certificates/mozilla").glob("*.crt"))
    return [Entry("etc/ssl/certs/ca-certificates.crt", content=b"".join(part.read_bytes() for part in parts))]


def packages(debian: Path, *, without: Sequence[str] = ()) -> list[Entry]:
    """The files of unpacked Debian packages, without what no program needs to run and without ``without``."""
    out = {*_LEFT_OUT, *without}

    def skip(path: str) -> bool:
        parts = PurePosixPath(path).parts
        # /usr/share/doc holds the copyright notices, which stay; character sets other than Unicode do not
        return path in out or parts[-1] in ("gconv", "__pycache__", "changelog.Debian.gz", "ldconfig")

    return from_folder(debian, skip=skip)
