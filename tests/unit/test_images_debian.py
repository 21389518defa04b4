"""The host's own sources are read as apt lists them; a fresh root is made fit to be many machines."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from moyai.core.errors import Terminal
from moyai.images import debian, rootfs

TARGETS = """Packages|http://mirror.test/debian/|bookworm|main|/etc/apt/sources.list.d/debian.sources:1
DEP-11|http://mirror.test/debian/|bookworm|main|/etc/apt/sources.list.d/debian.sources:1
Packages|http://mirror.test/debian/|bookworm|non-free|/etc/apt/sources.list.d/debian.sources:1
Packages|http://mirror.test/debian/|bookworm-updates|main|/etc/apt/sources.list.d/debian.sources:1
Packages|http://safe.test/security/|bookworm-security|main|/etc/apt/sources.list.d/debian.sources:7
Packages|http://else.test/|bookworm|stable|/etc/apt/sources.list.d/else.list:1
Packages|http://else.test/|nodistro|main|/etc/apt/sources.list.d/else.list:1
Packages|http://own.test/debian/|bookworm|main|/etc/apt/sources.list.d/own.list:2
"""

FILES = {
    "/etc/apt/sources.list.d/debian.sources": "Types: deb\nURIs: http://mirror.test/debian\nSuites: bookworm bookworm-updates\n"
    "Components: main\nSigned-By: /keys/debian.gpg\n\nTypes: deb\nURIs: http://safe.test/security\nSigned-By: /keys/safe.gpg\n",
    "/etc/apt/sources.list.d/own.list": "# ours\ndeb [arch=amd64 signed-by=/keys/own.gpg] http://own.test/debian bookworm main",
}


def test_sources_are_debians_own_suites_with_their_keys() -> None:
    assert debian.source_lines(TARGETS, "bookworm", read=FILES.__getitem__) == (
        "deb [signed-by=/keys/debian.gpg] http://mirror.test/debian/ bookworm main",
        "deb [signed-by=/keys/debian.gpg] http://mirror.test/debian/ bookworm-updates main",
        "deb [signed-by=/keys/safe.gpg] http://safe.test/security/ bookworm-security main",
        "deb [signed-by=/keys/own.gpg] http://own.test/debian/ bookworm main",
    )


def test_another_release_has_no_sources_here() -> None:
    assert debian.source_lines(TARGETS, "trixie", read=FILES.__getitem__) == ()


def test_a_host_that_is_no_debian_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.freedesktop_os_release", lambda: {"ID": "alpine", "VERSION_CODENAME": ""})
    with pytest.raises(Terminal, match="only be made on Debian"):
        debian.codename()


def _root(root: Path) -> Path:
    for name, text in {
        "etc/hostname": "the-host\n",
        "etc/resolv.conf": "nameserver 192.0.2.1\n",
        "etc/machine-id": "0123\n",
        "etc/ssh/ssh_host_ed25519_key": "secret",
        "etc/ssh/sshd_config": "x",
        "etc/passwd-": "old",
        "var/log/dpkg.log": "x",
        "var/lib/apt/lists/mirror_Packages": "x",
        "etc/systemd/system/timers.target.wants/apt-daily.timer": "x",
        "usr/lib/tool": "x",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_nothing_of_the_host_stays_in_the_root(tmp_path: Path) -> None:
    root = _root(tmp_path)
    rootfs.strip(root)
    files = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file() and not path.is_symlink()}
    assert files == {
        "etc/resolv.conf", "etc/machine-id", "etc/ssh/sshd_config", "usr/lib/tool",
        "etc/systemd/system/timers.target.wants/apt-daily.timer",
    }  # fmt: skip
    assert (root / "etc/machine-id").read_text() == ""
    assert (root / "etc/resolv.conf").read_text() == ""
    assert (root / "etc/systemd/system/sys-kernel-debug.mount").readlink() == Path("/dev/null")


def test_a_linked_root_is_not_written_through(tmp_path: Path) -> None:
    root = _root(tmp_path / "root")
    other = tmp_path / "elsewhere"
    os.link(root / "etc/machine-id", other)
    rootfs.strip(root)
    assert other.read_text() == "0123\n"


def test_what_was_made_now_gets_the_packages_latest_date(tmp_path: Path) -> None:
    began = time.time() - 10
    for name, date in {"old": 1000, "packaged": 2000}.items():
        (tmp_path / name).write_text(name)
        os.utime(tmp_path / name, (date, date))
    (tmp_path / "made").write_text("made")
    (tmp_path / "link").symlink_to("made")
    rootfs.clamp(tmp_path, began)
    dates = {path.name: path.lstat().st_mtime for path in tmp_path.iterdir()}
    assert dates == {"old": 1000, "packaged": 2000, "made": 2000, "link": 2000}


def test_units_that_would_touch_the_hosts_kernel_are_masked() -> None:
    for unit in ("systemd-sysctl.service", "systemd-modules-load.service", "sys-kernel-config.mount", "systemd-udevd.service"):
        assert unit in rootfs.MASKED
    assert len(set(rootfs.MASKED)) == len(rootfs.MASKED)
    assert len(set(rootfs.PACKAGES)) == len(rootfs.PACKAGES)
