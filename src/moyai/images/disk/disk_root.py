"""The Debian of a machine with a disk of its own: what a node needs of Debian, and a kernel, devices, a network, a clock.

The kernel is the one that Debian makes for hypervisors; its initial RAM disk has the drivers of all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from moyai.core.errors import Terminal
from moyai.images import rootfs
from moyai.images.cache import Cache, key_of, remove
from moyai.images.debian import bootstrap, codename, host_sources
from moyai.linux.process import ProcessError, run

#: Raised when the way in which the root is made changes.
_FORMAT = 1
#: The program by which a hypervisor asks a machine to quieten its disks before a snapshot.
GUEST_AGENT = "qemu-guest-agent"
#: zstd packs the initial RAM disk; growpart (cloud-guest-utils) enlarges the root's partition.
PACKAGES = (
    "linux-image-cloud-amd64", "initramfs-tools", "zstd", "udev", "systemd-resolved", "systemd-timesyncd", "cloud-guest-utils",
    "fdisk", GUEST_AGENT,
)  # fmt: skip
#: A machine of its own trims its disk and mounts remote file systems.
_NOT_MASKED = ("fstrim.timer", "remote-fs.target")
MASKED = tuple(name for name in rootfs.HOUSE_KEEPING if name not in _NOT_MASKED)
_ENABLED = ("systemd-networkd.service", "systemd-resolved.service", "systemd-timesyncd.service")
_RESOLVED = "/run/systemd/resolve/resolv.conf"
_PATH = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


def disk_root(cache: Cache, on_line: Callable[[str], None]) -> Path:
    """The folder of the machine's Debian. Made once, in about a minute; only then the package mirror is needed."""
    key = key_of("disk-root", _FORMAT, codename(), rootfs.PACKAGES, PACKAGES, MASKED, _ENABLED)

    def make(target: Path) -> None:
        began = time.time()
        bootstrap(host_sources(), (*rootfs.PACKAGES, *PACKAGES), target=target, on_line=on_line)
        rootfs.clamp(target, began)
        on_line("initial RAM disk")
        date = str(date_of(target))
        try:
            run(["chroot", target, "update-initramfs", "-u", "-k", "all"], env={**_PATH, "SOURCE_DATE_EPOCH": date})
            run(["chroot", target, "systemctl", "enable", *_ENABLED], env=_PATH)
        except ProcessError as error:
            raise Terminal(f"the machine's Debian cannot be completed: {error}", hint="is the disk full?") from error
        rootfs.strip(target, masked=MASKED)
        # the addresses of the resolvers themselves, so that pods can use them as well
        remove(target / "etc/resolv.conf")
        (target / "etc/resolv.conf").symlink_to(_RESOLVED)
        rootfs.clamp(target, began)

    return cache.get("disk-root", key, make=make, say=on_line)


def date_of(root: Path) -> int:
    """The date of the newest packaged file, which everything made later bears as well; seconds of Unix time."""
    return int((root / "etc/machine-id").stat().st_mtime)
