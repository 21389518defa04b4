# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false
# (pyright takes this folder for OpenStack's package of the same name)
"""Unpacked images: Glance's images as root file systems that machines share.

An image is a tar (plain or compressed) of a root file system. Each content is unpacked once on this host, also when several
machines or hypervisors ask for it at the same time. An unpacked image appears by a rename, so no process sees half of it.
``root`` is the lower layer of every machine. ``store`` is the image's /var/lib/containerd. It is kept apart because an overlay
cannot lie on an overlay. Each machine gets a hard-linked copy of it, which needs no time and no disk.

The module runs inside nova-compute.
"""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlparse

from nova import exception
from oslo_concurrency import lockutils
from oslo_log import log as logging

from moyai.linux.process import run
from moyai.localcloud.drivers.nova import image_tree

LOG = logging.getLogger(__name__)

_LOCKS, _NEW = "locks", ".new"
_PACKED = {b"\x28\xb5\x2f\xfd": "zstd", b"\x1f\x8b": "gzip", b"\xfd7zXZ\x00": "xz", b"BZh": "bzip2"}


@dataclass(frozen=True)
class Unpacked:
    """An image that is ready to boot: its key, its root, and its container store where it has one."""

    key: str
    root: Path
    store: Path


class ImageStore:
    def __init__(self, folder: Path, image_api) -> None:
        self._folder = folder
        self._locks = folder / _LOCKS
        self._image_api = image_api
        self._locks.mkdir(parents=True, exist_ok=True)

    def ensure(self, context, image_id: str) -> tuple[Unpacked, bool]:
        """The unpacked image, and whether it had to be unpacked now. Raises ImageUnacceptable, ImageNotFound …"""
        image = self._image_api.get(context, image_id, include_locations=True)
        key = image_key(image)
        with lockutils.lock(f"moyai-image-{key}", external=True, lock_path=str(self._locks)):
            folder = self._folder / key
            made = not folder.exists()
            if made:
                self._unpack(context, image, folder=folder)
            os.utime(folder)  # "last used", for prune
        return Unpacked(key, folder / "root", folder / "store"), made

    def prune(self, used: set[str], *, older_than: float) -> list[str]:
        """Delete the images that no machine uses and that were not requested in the last ``older_than`` seconds."""
        gone = []
        for folder in self._folder.iterdir():
            if folder.name == _LOCKS or folder.name.endswith(_NEW):
                continue
            with lockutils.lock(f"moyai-image-{folder.name}", external=True, lock_path=str(self._locks)):
                if folder.name not in used and time.time() - folder.stat().st_mtime > older_than:
                    doomed = folder.with_suffix(_NEW)
                    folder.rename(doomed)
                    run(["rm", "-rf", "--one-file-system", doomed])
                    gone.append(folder.name)
        return gone

    def _unpack(self, context, image, *, folder: Path) -> None:
        started = time.monotonic()
        new = folder.with_suffix(_NEW)
        run(["rm", "-rf", "--one-file-system", new])
        new.mkdir(mode=0o700)
        try:
            source = local_file(image)
            if source is None:
                source = new / "image"
                self._image_api.download(context, image["id"], dest_path=str(source))
            check_format(image["id"], source)
            try:
                image_tree.unpack(source, new)
            except image_tree.ImageRefused as error:
                raise exception.ImageUnacceptable(image_id=image["id"], reason=str(error)) from error
            (new / "image").unlink(missing_ok=True)
            new.rename(folder)
        except BaseException:  # also eventlet's Timeout and GreenletExit: nothing half-made may stay
            shutil.rmtree(new, ignore_errors=True)
            raise
        LOG.info("Image %s unpacked in %.1f s", image["id"], time.monotonic() - started)


def image_key(image) -> str:
    """Where an image is kept: by its content, so that the same image uploaded twice is unpacked once."""
    content = image.get("os_hash_value") or (image.get("properties") or {}).get("os_hash_value") or image.get("checksum")
    return str(content)[:40] if content else str(image["id"])


def local_file(image) -> Path | None:
    """The image's own file where Glance keeps it on this host: reading it there saves a copy by HTTP."""
    for location in image.get("locations") or []:
        parsed = urlparse(location.get("url") or "")
        path = Path(unquote(parsed.path))
        if parsed.scheme == "file" and path.is_file() and path.stat().st_size == image.get("size"):
            return path
    return None


def check_format(image_id: str, path: Path) -> None:
    """Refuse a file that is no tar before anything is unpacked. The message names the format of the file."""
    with path.open("rb") as file:
        head = file.read(512)
    packed = next((name for magic, name in _PACKED.items() if head.startswith(magic)), None)
    if packed or head[257:262] == b"ustar":
        return
    kinds = {b"QFI\xfb": "a qcow2 disk", b"\x7fELF": "a program", b"KDMV": "a VMDK disk", b"hsqs": "a squashfs"}
    found = next((name for magic, name in kinds.items() if head.startswith(magic)), "unknown data" if head else "empty")
    raise exception.ImageUnacceptable(
        image_id=image_id, reason=f"it is {found}; machines boot from a tar (plain, zstd, gzip, xz) of a root file system"
    )
