"""An image's tar as a tree of files on this host: unpacked, checked, divided into root and container store.

Every user who may upload an image decides what is in the tar. What always holds: nothing outside of the folder that the tar is
unpacked into is read, written or moved, whatever links the tar has.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path

from moyai.linux import beneath
from moyai.linux.background import background
from moyai.linux.process import ProcessError, run

#: The container store. An overlay cannot lie on an overlay, so it is kept beside the root.
STORE = "var/lib/containerd"
#: Bytes that stay free on the disk: a small image may unpack to any size.
_STAYS_FREE = 1 << 30
_LOOK_SECONDS = 0.2
_INITS = ("sbin/init", "usr/sbin/init", "usr/lib/systemd/systemd", "lib/systemd/systemd")


class ImageRefused(Exception):
    """The image cannot be a machine's root; the message says why."""


def unpack(source: Path, new: Path) -> None:
    """Unpack a tar into ``new/root`` and ``new/store``. Raises ImageRefused; then both may be half made."""
    root = new / "root"
    root.mkdir()
    root.chmod(0o755)  # a tar without an entry for its root must not inherit this process's umask
    flags = ["--numeric-owner", "--force-local", "--xattrs", "--xattrs-include=*", "-xp"]
    log = new / "tar.log"
    try:
        with background(["tar", *flags, "-C", root, "-f", source], log) as tar:
            while not tar.done_within(_LOOK_SECONDS):
                if shutil.disk_usage(root).free < _STAYS_FREE:
                    raise ImageRefused(f"unpacked, it would leave less than {_STAYS_FREE >> 30} GiB free on the disk")
    except ProcessError as error:
        raise ImageRefused(f"it cannot be unpacked: {error}") from error
    log.unlink()
    if not any(beneath.exists(root, name) for name in _INITS):
        raise ImageRefused("it holds no init (systemd): a tar of a root file system is wanted")
    try:
        _split(new)
    except OSError as error:
        raise ImageRefused(_refusal(error)) from error


def _split(new: Path) -> None:
    """Take the container store out of the unpacked root, and the machine id. Raises OSError where a folder is a link."""
    root, (library, _, store) = new / "root", STORE.rpartition("/")
    _real_folders(root, library)
    with beneath.folder(root, library) as inside, beneath.folder(new, "") as outside:
        # a container store that is a link is none: an image could name any folder of the host by it
        beneath.make_folder(store, inside)
        os.rename(store, "store", src_dir_fd=inside, dst_dir_fd=outside)
        beneath.make_folder(store, inside)
    _real_folders(root, "etc")
    # empty: each machine makes its own; "uninitialized" would enable all units again
    beneath.write(root, "etc/machine-id", data=b"")


def _real_folders(root: Path, path: str) -> None:
    """Make the folders of a path where they are missing. Raises OSError (ELOOP, ENOTDIR) where one is something else."""
    above = ""
    for part in path.split("/"):
        with beneath.folder(root, above) as descriptor:
            if not beneath.exists(root, f"{above}/{part}"):
                beneath.make_folder(part, descriptor)
        above = f"{above}/{part}"
    with beneath.folder(root, path):
        pass


def _refusal(error: OSError) -> str:
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return f"its {error.filename} is no folder, or lies behind a link: a root file system has real folders there"
    return f"it cannot be prepared: {error}"


def copy_store(store: Path, target: Path) -> None:
    """Give a machine its own container store: everything hard-linked, the databases copied for real."""
    run(["cp", "-al", f"{store}/.", target])
    for source in store.rglob("*.db"):
        # of an image that somebody made, such a name may be a link into the host's files, or a pipe that nobody fills
        if stat.S_ISREG(source.lstat().st_mode):
            run(["cp", "-p", "--remove-destination", source, target / source.relative_to(store)])
