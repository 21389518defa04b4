"""The node's Debian: its packages, and the files removed from them so that many machines can boot from it on one host.

Nothing of a certain host, cloud or cluster stays in it. Files are only added or unlinked here, never written in place:
a finished root shares its files (hard links) with the cache.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from moyai.images.cache import Cache, key_of, remove
from moyai.images.debian import bootstrap, codename, host_sources

#: Raised when the way in which the root is made changes.
_FORMAT = 1

#: What a node needs of Debian. cloud-init reads the config drive, socat and conntrack are kubelet's and kube-proxy's wishes;
#: keepalived holds the virtual address of an API with several control planes.
PACKAGES = (
    "systemd", "systemd-sysv", "dbus", "cloud-init", "sudo", "openssh-server", "ca-certificates", "curl", "openssl",
    "iproute2", "iptables", "nftables", "conntrack", "ethtool", "socat", "iputils-ping",
    "kmod", "mount", "e2fsprogs", "xfsprogs", "util-linux", "procps", "less", "libseccomp2", "keepalived",
)  # fmt: skip

#: House-keeping, which a machine does not need that is replaced, not kept.
HOUSE_KEEPING = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service",
    "fstrim.timer", "xfs_scrub_all.timer", "ldconfig.service", "systemd-journal-catalog-update.service",
    "systemd-update-done.service", "man-db.timer", "logrotate.timer", "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service", "remote-fs.target",
)  # fmt: skip

#: Units that touch the host's kernel from within a machine, want hardware, or do nothing useful in a node.
MASKED = (
    # the kernel's settings, modules, devices and file systems are the host's
    "systemd-sysctl.service", "systemd-modules-load.service", "systemd-binfmt.service", "kmod-static-nodes.service",
    "proc-sys-fs-binfmt_misc.automount", "sys-kernel-config.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount",
    "sys-fs-fuse-connections.mount", "dev-hugepages.mount", "systemd-journald-audit.socket", "systemd-random-seed.service",
    "systemd-pstore.service", "systemd-udevd.service", "systemd-udevd-control.socket", "systemd-udevd-kernel.socket",
    "systemd-udev-trigger.service", "systemd-udev-settle.service", "systemd-hwdb-update.service",
    "systemd-timesyncd.service", "systemd-repart.service", "systemd-pcrphase.service", "systemd-pcrphase-sysinit.service",
    "systemd-pcrmachine.service", "systemd-tpm2-setup.service", "systemd-tpm2-setup-early.service", "systemd-pcrextend.socket",
    "systemd-pcrlock.socket", "systemd-hibernate-clear.service",
    # the machine has no keyboard and screen
    "systemd-logind.service", "console-getty.service", "getty.target", "getty-static.service", "systemd-firstboot.service",
    "systemd-ask-password-console.path", "systemd-ask-password-wall.path", "systemd-initctl.socket",
    *HOUSE_KEEPING,
    # a tmpfs there would count as the machine's memory
    "tmp.mount",
    # devices come by the driver, networks from outside
    "cloud-init-hotplugd.socket", "systemd-networkd.service", "systemd-networkd.socket", "systemd-networkd-wait-online.service",
)  # fmt: skip

#: Left over from the making: the host's own names, logs, keys and lists.
_TAKEN_OUT = (
    "etc/hostname", "etc/ssh/ssh_host_*", "etc/apt/apt.conf.d/99mmdebstrap", "var/lib/apt/lists/*", "var/cache/apt/*",
    "var/cache/debconf/*-old", "var/cache/ldconfig/aux-cache", "var/lib/dpkg/*-old", "var/log/*.log", "var/log/apt/*",
    "var/lib/systemd/random-seed", "var/lib/dbus/machine-id", "etc/*-", "tmp/*", "var/tmp/*", "run/*", "dev/*",
)  # fmt: skip


def debian_root(cache: Cache, on_line: Callable[[str], None]) -> Path:
    """The folder of the node's Debian. Made once, in about 40 s; only then the package mirror is needed."""
    key = key_of("root", _FORMAT, codename(), PACKAGES, MASKED)

    def make(target: Path) -> None:
        began = time.time()
        bootstrap(host_sources(), PACKAGES, target=target, on_line=on_line)
        on_line("taking out what belongs to the host")
        strip(target)
        clamp(target, began)

    return cache.get("debian-root", key, make=make, say=on_line)


def strip(root: Path, *, masked: Sequence[str] = MASKED) -> None:
    """Remove the files that a node does not need from a fresh root file system, and mask units."""
    for pattern in _TAKEN_OUT:
        for path in root.glob(pattern):
            remove(path)
    for name in ("etc/resolv.conf", "etc/machine-id"):
        # machine-id empty: made at the first boot (a missing one would be a "first boot" that enables all units again)
        _replace(root / name, "")
    units = root / "etc/systemd/system"
    for name in masked:
        remove(units / name)
        (units / name).symlink_to("/dev/null")


def clamp(root: Path, began: float) -> None:
    """Give what was made after ``began`` the date of the newest packaged file, so that two makings look alike.

    Packaged files keep their dates: compiled Python is only valid beside a source of the date that it remembers.
    """
    newest = 0.0
    fresh: list[Path] = []
    for parent, folders, files in os.walk(root):
        for name in [*folders, *files]:
            path = Path(parent) / name
            info = path.lstat()
            if info.st_mtime >= began:
                fresh.append(path)
            elif stat.S_ISREG(info.st_mode):
                newest = max(newest, info.st_mtime)
    for path in fresh:
        os.utime(path, (newest, newest), follow_symlinks=False)


def _replace(path: Path, text: str) -> None:
    remove(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
