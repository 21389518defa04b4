"""Stock Debian in a virtual machine under software emulation: its images, made once per key, and one run of it.

The guest has no network. It sees two disks, its own root and the *lab* (the node image, unpacked), both thrown away after the
run, and a folder shared with the host (9p): it runs ``run`` there as soon as it is up, and powers off.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from moyai.images.cache import Cache, key_of, remove
from moyai.images.debian import Sources, bootstrap, codename, host_sources
from moyai.images.node_image import NodeImage
from moyai.linux.process import run

#: Release → code name.
RELEASES = {"12": "bookworm", "13": "trixie"}

_FORMAT = 1
#: What stock Debian has, and the host packages that the local cloud's machines need.
_PACKAGES = (
    "systemd", "systemd-sysv", "dbus", "udev", "apparmor", "linux-image-amd64", "initramfs-tools", "kmod", "procps",
    "python3", "systemd-container", "util-linux", "iproute2", "nftables", "ipset", "e2fsprogs", "zstd",
)  # fmt: skip
_MODULES = "virtio_pci\nvirtio_blk\next4\n"
_UNIT = """[Unit]
Description=What the host wants tried
After=multi-user.target

[Service]
Type=oneshot
ExecStart=mkdir -p /lab /share
ExecStart=mount /dev/vdb /lab
ExecStart=mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 share /share
ExecStart=-/bin/sh /share/run
ExecStopPost=/bin/sh -c 'sync; systemctl poweroff --force --force'
StandardOutput=journal+console
StandardError=journal+console
TimeoutStartSec=infinity
"""


@dataclass(frozen=True)
class Guest:
    """What a run needs: kernel, initial RAM disk, root file system."""

    release: str
    kernel: Path
    initrd: Path
    root: Path


def guest(cache: Cache, release: str, say: Callable[[str], None]) -> Guest:
    """The guest's files; about a minute the first time."""
    name = RELEASES[release]
    key = key_of("guest", _FORMAT, name, _PACKAGES, _MODULES, _UNIT)

    def make(target: Path) -> None:
        target.mkdir()
        tree = target / "tree"
        say(f"Debian {release}")
        bootstrap(_sources(name), _PACKAGES, target=tree, on_line=lambda _line: None)
        _furnish(tree)
        for file in ("vmlinuz", "initrd.img"):
            shutil.copyfile((tree / "boot").joinpath(next(path.name for path in tree.glob(f"boot/{file}-*"))), target / file)
        _ext4(tree, target / "root.img", spare_mb=512)
        remove(tree)

    folder = cache.get(f"guest-{name}", key, make=make, keep=1)
    return Guest(release, folder / "vmlinuz", folder / "initrd.img", folder / "root.img")


def _sources(name: str) -> Sources:
    """The host's own sources, for another release: same mirrors, same keys (Debian signs its releases crosswise)."""
    own = host_sources()
    lines = tuple(line.replace(f" {codename()}", f" {name}") for line in own.lines)
    return Sources(name, lines, own.settings)


def _furnish(tree: Path) -> None:
    (tree / "etc/hostname").write_text("host\n")
    (tree / "etc/hosts").write_text("127.0.0.1 localhost\n127.0.1.1 host\n")
    (tree / "etc/fstab").write_text("/dev/vda / ext4 rw,noatime 0 0\n")
    units = tree / "etc/systemd/system"
    (units / "moyai-try.service").write_text(_UNIT)
    # a target that waits for nothing that the trial does not need, and no login prompts on the serial line
    wants = units / "multi-user.target.wants"
    wants.mkdir(exist_ok=True)
    (wants / "moyai-try.service").symlink_to("../moyai-try.service")
    for unit in ("serial-getty@ttyS0.service", "apt-daily.timer", "apt-daily-upgrade.timer"):
        (units / unit).symlink_to("/dev/null")
    initramfs = tree / "etc/initramfs-tools"
    with (initramfs / "modules").open("a") as modules:
        modules.write(_MODULES)
    config = initramfs / "initramfs.conf"
    config.write_text(config.read_text().replace("MODULES=most", "MODULES=list"))
    run(["chroot", tree, "update-initramfs", "-u", "-k", "all"], env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, timeout=300)


def lab(cache: Cache, image: NodeImage, say: Callable[[str], None]) -> Path:
    """A disk with the node image: ``image`` its root file system, ``store`` its containerd store."""
    key = key_of("lab", _FORMAT, image.key)

    def make(target: Path) -> None:
        tree = target.with_name(f"{target.name}-tree")
        try:
            (tree / "image").mkdir(parents=True)
            say("node image onto a disk")
            extract = 'zstd -dc "$1" | tar --numeric-owner --xattrs --xattrs-include="*" -xp -C "$2"'
            run(["bash", "-o", "pipefail", "-c", extract, "moyai", image.path, tree / "image"], timeout=600)
            store = tree / "image/var/lib/containerd"
            store.rename(tree / "store")
            store.mkdir()
            _ext4(tree, target, spare_mb=4096)
        finally:
            remove(tree)

    return cache.get("lab", key, make=make, suffix=".img", keep=1)


def _ext4(tree: Path, target: Path, *, spare_mb: int) -> None:
    used = int(run(["du", "-sm", tree], timeout=300).stdout.split()[0])
    with target.open("wb") as file:
        file.truncate((used * 11 // 10 + spare_mb) << 20)
    run(["mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-d", tree, target], timeout=600)


def boot(guest: Guest, lab: Path, *, share: Path, timeout: float, memory_mb: int = 6144, cpus: int = 2) -> int:
    """Run the guest to its end, by force after ``timeout`` seconds; its exit code. ``share/serial.log``: how it went."""
    words = ["qemu-system-x86_64", "-accel", "tcg,thread=multi,tb-size=1024", "-cpu", "max,la57=off"]
    words += ["-smp", str(cpus), "-m", str(memory_mb), "-display", "none", "-monitor", "none", "-no-reboot", "-nic", "none"]
    words += ["-kernel", str(guest.kernel), "-initrd", str(guest.initrd)]
    # Linux does not see that emulated time stamp counters agree; without them each look at the clock leaves the emulation.
    # The emulator remembers large pages only as one range, and forgets all it knows at each change within that.
    kernel = "root=/dev/vda rw console=ttyS0 mitigations=off tsc=reliable clocksource=tsc transparent_hugepage=never"
    # a guest that panics ends, instead of hanging until the time limit
    kernel += " panic=-1 quiet systemd.show_status=0"
    words += ["-append", kernel]
    for disk in (guest.root, lab):
        words += ["-drive", f"file={disk},format=raw,if=virtio,cache=unsafe,snapshot=on"]
    words += ["-virtfs", f"local,path={share},mount_tag=share,security_model=none,multidevs=remap"]
    words += ["-device", "virtio-rng-pci", "-serial", f"file:{share / 'serial.log'}"]
    # what the guest writes goes to files beside the images: a memory disk may be too small for it
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, env={**os.environ, "TMPDIR": str(lab.parent)}) as process:
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            return -1
        finally:
            process.kill()


def wait_for(found: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not found() and time.monotonic() < deadline:
        time.sleep(0.2)
    return found()
