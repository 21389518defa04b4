"""The programs that write disk images: Debian packages, unpacked into the cache, run by their own loader and libraries.

So the host needs none of them, and two hosts of the same release write the same bytes.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from moyai.core.errors import Terminal
from moyai.images.cache import Cache
from moyai.images.recipes import debian_tree
from moyai.linux.process import Completed, ProcessError, run

_PACKAGES = (
    "grub-pc-bin", "grub-common", "grub-efi-amd64-signed", "shim-signed", "mtools", "dosfstools", "e2fsprogs", "fdisk",
    "qemu-utils",
)  # fmt: skip
_PLACES = ("usr/sbin", "sbin", "usr/bin", "bin")
_LIBRARIES = ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu")


@dataclass(frozen=True)
class DiskTools:
    """``folder``: the unpacked packages; its name changes with them."""

    folder: Path

    def run(self, name: str, *words: str | Path, date: int = 0, stdin: str | None = None) -> Completed:
        """Run a program of the packages. ``date``: what it takes for the present, in seconds of Unix time.

        Raises Terminal with the program's own words.
        """
        program = next((path for place in _PLACES if (path := self.folder / place / name).exists()), None)
        if program is None:
            raise Terminal(f"{name} is missing in {self.folder}", hint="remove this folder: the next build fetches it again")
        libraries = ":".join(str(self.folder / place) for place in _LIBRARIES)
        environment = {
            "E2FSPROGS_FAKE_TIME": str(date),
            "SOURCE_DATE_EPOCH": str(date),
            "MKE2FS_CONFIG": str(self.folder / "etc/mke2fs.conf"),
            "MTOOLSRC": "/dev/null",
            "MTOOLS_SKIP_CHECK": "1",
            "TZ": "UTC",
            "LC_ALL": "C.UTF-8",
        }
        argv = [self.folder / "lib64/ld-linux-x86-64.so.2", "--library-path", libraries, program, *words]
        try:
            return run(argv, env=environment, stdin=stdin)
        except ProcessError as error:
            said = str(error).partition(": ")[2]
            raise Terminal(f"the disk image cannot be written: {name}: {said}", hint="is the disk full?") from error


def disk_tools(cache: Cache, on_line: Callable[[str], None]) -> DiskTools:
    """The programs, fetched once. Raises Terminal on a host whose processor the boot loaders are not for."""
    if platform.machine() != "x86_64":
        raise Terminal(f"disk images are made on x86_64 only, this host is {platform.machine()}", hint="use an x86_64 host")
    return DiskTools(debian_tree(cache, "disk-tools", packages=_PACKAGES, on_line=on_line))
