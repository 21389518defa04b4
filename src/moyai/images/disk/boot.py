"""What starts a disk: GRUB for the BIOS, Debian's signed GRUB behind its signed shim for UEFI, so that Secure Boot may be on.

Both read the one menu in the root file system, which they find by its identity: the place of a disk is the hypervisor's
choice. Source of the offsets: GRUB's boot.img and diskboot.img (``grub-core/boot/i386/pc``).
"""

from __future__ import annotations

import struct
from pathlib import Path

from moyai.core.errors import Terminal
from moyai.images.cache import remove
from moyai.images.disk.disk_tools import DiskTools

SECTOR = 512
#: The menu in the root file system. The links to kernel and RAM disk are Debian's own, and follow a newer kernel.
MENU = "boot/grub/grub.cfg"
#: What the first stage needs until the root file system is found, and what the menu says.
_MODULES = ("biosdisk", "part_gpt", "ext2", "search_fs_uuid", "normal", "configfile", "linux", "serial", "terminal", "minicmd")
#: boot.img: where the second stage's sector stands; a jump that only floppy disks need; where the partitions' table begins.
_KERNEL_SECTOR, _DRIVE_CHECK, _BOOT_CODE = 0x5C, 0x66, 440
#: The end of diskboot.img: start, length and segment of the rest of the second stage.
_BLOCK_LIST = struct.Struct("<QHH")
_SEGMENT = 0x820
_NO_OPERATION = b"\x90\x90"
_EFI_FILES = {
    "EFI/BOOT/BOOTX64.EFI": "usr/lib/shim/shimx64.efi.signed",
    "EFI/BOOT/mmx64.efi": "usr/lib/shim/mmx64.efi.signed",
    "EFI/BOOT/grubx64.efi": "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed",
}
#: Where the signed GRUB looks for its own menu.
_EFI_MENU = "EFI/debian/grub.cfg"


def menu(root_uuid: str) -> str:
    """The one menu: Debian at once, with its console on the screen and on the first serial line."""
    kernel = f"root=UUID={root_uuid} ro console=tty0 console=ttyS0,115200n8 panic=30"
    return (
        "set timeout=0\nserial --unit=0 --speed=115200\nterminal_input console serial\nterminal_output console serial\n"
        f"menuentry Debian {{\n  linux /vmlinuz {kernel}\n  initrd /initrd.img\n}}\n"
    )


def bios_code(tools: DiskTools, *, root_uuid: str, first_sector: int, work: Path) -> tuple[bytes, bytes]:
    """The code of the disk's first sector, and that of the partition for the second stage, which begins at ``first_sector``."""
    early, core = work.with_name(f"{work.name}.early"), work.with_name(f"{work.name}.core")
    modules = tools.folder / "usr/lib/grub/i386-pc"
    try:
        early.write_text(f"search.fs_uuid {root_uuid} root\nset prefix=($root)/boot/grub\n")
        words = ["-d", modules, "-O", "i386-pc", "-p", "/boot/grub", "-c", early, "-o", core, *_MODULES]
        tools.run("grub-mkimage", *words)
        return linked(modules.joinpath("boot.img").read_bytes(), core.read_bytes(), first_sector=first_sector)
    finally:
        remove(early)
        remove(core)


def linked(boot: bytes, core: bytes, *, first_sector: int) -> tuple[bytes, bytes]:
    """The two stages, each with the place of the next one in it."""
    sectors = -(-len(core) // SECTOR)
    first, second = bytearray(boot[:_BOOT_CODE]), bytearray(core.ljust(sectors * SECTOR, b"\0"))
    struct.pack_into("<Q", first, _KERNEL_SECTOR, first_sector)
    first[_DRIVE_CHECK : _DRIVE_CHECK + 2] = _NO_OPERATION
    place = SECTOR - _BLOCK_LIST.size
    if _BLOCK_LIST.unpack_from(second, place)[2] != _SEGMENT:
        raise Terminal("GRUB's second stage has another form than the one that is known", hint="use Debian 12 or 13")
    _BLOCK_LIST.pack_into(second, place, first_sector + 1, sectors - 1, _SEGMENT)
    return bytes(first), bytes(second)


def write_esp(tools: DiskTools, target: Path, *, size: int, root_uuid: str, serial: int, date: int) -> None:
    """Write the file system of the EFI's system partition into a new file. ``serial``: its identity, 32 bits."""
    with target.open("wb") as file:
        file.truncate(size)
    tools.run("mkfs.fat", "-F", "16", "--invariant", "-i", f"{serial:08x}", "-n", "ESP", target, date=date)
    early = target.with_name(f"{target.name}.cfg")
    try:
        early.write_text(f"search.fs_uuid {root_uuid} root\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n")
        tools.run("mmd", "-i", target, *(f"::{name}" for name in ("EFI", "EFI/BOOT", "EFI/debian")), date=date)
        for place, source in {**_EFI_FILES, _EFI_MENU: str(early)}.items():
            tools.run("mcopy", "-i", target, tools.folder / source, f"::{place}", date=date)
    finally:
        remove(early)
