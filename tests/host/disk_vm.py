"""A virtual machine that boots the disk image under software emulation, with a config drive as Nova makes it.

The guest has one card on QEMU's own network, which leads nowhere. A port of this host's loopback leads to the guest's SSH. The
guest's serial console is a file.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moyai.images.cache import Cache
from moyai.images.disk.disk_image import DiskImage
from moyai.images.disk.disk_tools import DiskTools
from moyai.images.recipes import debian_tree
from moyai.linux.process import Completed, run

_MAC = "fa:16:3e:00:00:01"
_ROOT_AT = 64 << 20
_DISK_GIB = 12
#: Settings for emulation, see ``vm``: they are put into a copy of the disk's menu, and nothing else is changed in it.
_KERNEL = "mitigations=off tsc=reliable clocksource=tsc transparent_hugepage=never panic=-1"
_TURNS = """#cloud-boothook
#!/bin/sh
mountpoint -q /sys/kernel/debug || mount -t debugfs debugfs /sys/kernel/debug
cd /sys/kernel/debug/sched || exit 0
for set in latency_ns=120000000 min_granularity_ns=20000000 wakeup_granularity_ns=24000000; do
  test ! -e ${set%=*} || echo ${set#*=} >${set%=*}
done
"""
#: As Nova calls it (``nova/virt/configdrive.py``).
_ISO = (
    "-ldots", "-allow-lowercase", "-allow-multidot", "-l", "-publisher", "OpenStack Nova", "-quiet", "-J", "-r", "-V",
    "config-2",
)  # fmt: skip


@dataclass(frozen=True)
class DiskGuest:
    """``folder`` has the serial console's log. ``port``: of loopback, leads to the guest's SSH."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def said(self) -> str:
        log = self.folder / "serial.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def ssh(self, command: str, *, timeout: float = 120) -> Completed:
        """Run a command as root by way of the image's own user."""
        words = [
            "ssh",
            "-p",
            str(self.port),
            "-i",
            self.folder / "key",
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "BatchMode=yes",
        ]
        words += ["-o", f"UserKnownHostsFile={self.folder / 'known'}", "-o", "ConnectTimeout=60", "debian@127.0.0.1"]
        return run([*words, f"sudo -n sh -c '{command}'"], timeout=timeout, check=False)


def disk(image: DiskImage, tools: DiskTools, *, folder: Path) -> Path:
    """A copy of the image's content on a larger disk, with the settings of emulation in its menu."""
    raw = folder / "disk.raw"
    tools.run("qemu-img", "convert", "-O", "raw", image.path, raw)
    at = f"{raw}?offset={_ROOT_AT}"
    menu = folder / "grub.cfg"
    text = tools.run("debugfs", "-R", "cat /boot/grub/grub.cfg", at).stdout
    assert "console=ttyS0" in text
    menu.write_text(text.replace(" panic=30", f" {_KERNEL}"))
    tools.run("debugfs", "-w", "-R", "rm /boot/grub/grub.cfg", at)
    tools.run("debugfs", "-w", "-R", f"write {menu} /boot/grub/grub.cfg", at)
    tools.run("debugfs", "-w", "-R", "sif /boot/grub/grub.cfg mode 0100644", at)
    os.truncate(raw, _DISK_GIB << 30)
    return raw


def config_drive(cache: Cache, folder: Path, *, name: str, user_data: str, meta: Mapping[str, str], address: str) -> Path:
    """The config drive of a machine with one address on a network without DHCP."""
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"])
    public = (folder / "key.pub").read_text()
    network = {
        "links": [{"id": "tap1", "vif_id": "vif1", "type": "bridge", "mtu": 1450, "ethernet_mac_address": _MAC}],
        "networks": [_network(address)],
        "services": [{"type": "dns", "address": _beside(address, 3)}],
    }
    metadata = {
        "uuid": "83679162-1378-4288-a2d4-70e13ec132aa",
        "name": name,
        "hostname": name,
        "launch_index": 0,
        "availability_zone": "nova",
        "project_id": "0123456789abcdef0123456789abcdef",
        "random_seed": "bW95YWk=",
        "public_keys": {"key": public},
        "keys": [{"name": "key", "type": "ssh", "data": public}],
        "meta": dict(meta),
        "devices": [],
    }
    told = {"meta_data.json": metadata, "network_data.json": network, "vendor_data.json": {"cloud-init": _TURNS}}
    for version in ("latest", "2018-08-27"):
        place = folder / "drive/openstack" / version
        place.mkdir(parents=True)
        for file, content in told.items():
            (place / file).write_text(json.dumps(content))
        (place / "user_data").write_text(user_data)
    iso = folder / "config-drive.iso"
    tools = DiskTools(debian_tree(cache, "iso-tools", packages=("genisoimage",), on_line=lambda _line: None))
    tools.run("genisoimage", "-o", iso, *_ISO, folder / "drive")
    return iso


def _network(address: str) -> dict[str, Any]:
    route = {"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": _beside(address, 1)}
    dns = {"type": "dns", "address": _beside(address, 3)}
    return {
        "id": "network0",
        "type": "ipv4",
        "link": "tap1",
        "network_id": "da5bb487-5193-4a65-a3df-4a0055a8c0d7",
        "ip_address": address,
        "netmask": "255.255.255.0",
        "routes": [route],
        "services": [dns],
    }


def _beside(address: str, last: int) -> str:
    return f"{address.rpartition('.')[0]}.{last}"


@contextmanager
def running(disk: Path, iso: Path, *, folder: Path, address: str, secure_boot: bool = False) -> Generator[DiskGuest]:
    """The machine, from power-on until the block is left."""
    port = _free_port()
    words = ["qemu-system-x86_64", "-accel", "tcg,thread=multi,tb-size=1024", "-cpu", "max,la57=off", "-smp", "2", "-m", "4G"]
    words += ["-display", "none", "-monitor", "none", "-no-reboot", "-serial", f"file:{folder / 'serial.log'}"]
    # the devices that the image's properties ask for
    words += ["-device", "virtio-scsi-pci", "-drive", f"file={disk},format=raw,if=none,id=disk,cache=unsafe"]
    words += ["-device", "scsi-hd,drive=disk", "-drive", f"file={iso},if=none,id=cd,media=cdrom,readonly=on"]
    words += ["-device", "scsi-cd,drive=cd", "-device", "virtio-rng-pci", "-device", f"virtio-net-pci,netdev=net,mac={_MAC}"]
    net = f"net={_beside(address, 0)}/24,host={_beside(address, 1)},dns={_beside(address, 3)},ipv6=off"
    words += ["-netdev", f"user,id=net,{net},restrict=on,hostfwd=tcp:127.0.0.1:{port}-{address}:22"]
    if secure_boot:
        code, keys = (Path("/usr/share/OVMF") / name for name in ("OVMF_CODE_4M.ms.fd", "OVMF_VARS_4M.ms.fd"))
        own = folder / "vars.fd"
        own.write_bytes(keys.read_bytes())
        words += ["-machine", "q35,smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on"]
        words += [
            "-drive",
            f"if=pflash,format=raw,unit=0,readonly=on,file={code}",
            "-drive",
            f"if=pflash,format=raw,unit=1,file={own}",
        ]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL) as process:
        try:
            yield DiskGuest(folder, port, process)
        finally:
            process.kill()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
