"""The parts of a node's root file system that are not Debian's: files, programs, and the store of images.

The archive for the local cloud's machines and the disk image for hypervisors are made from them. A tree shares its files (hard
links) with the cache: a file is replaced, never written in place.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from moyai.core.errors import Terminal
from moyai.images import references
from moyai.images.cache import remove
from moyai.linux.process import ProcessError, run
from moyai.toolchain import Component

FILES = Path(__file__).with_name("node_files")
#: Where containerd keeps its images on a node.
STORE = "var/lib/containerd"

#: Component → where its programs go; ``None``: all of them.
_PROGRAMS: Mapping[str, tuple[str, Sequence[str] | None]] = {
    "kubernetes": ("usr/local/bin", ("kubelet", "kubeadm", "kubectl")),
    "containerd": ("usr/local/bin", None),
    "runc": ("usr/local/sbin", None),
    "cni-plugins": ("opt/cni/bin", None),
}
_FOLDERS = ("etc/containerd/certs.d", "etc/containerd/conf.d", "etc/cni/net.d", "etc/kubernetes/manifests", "var/lib/kubelet")
_ENABLED = {"machine-prep.service": "sysinit", "containerd.service": "multi-user", "kubelet.service": "multi-user"}


def place_files(tree: Path, names: references.References, *, files: Path = FILES) -> None:
    """Put every file below ``files`` at the same place in the tree."""
    for source in sorted(files.rglob("*")):
        if source.is_file():
            target = tree / source.relative_to(files)
            make_folder(target.parent)
            remove(target)  # never written in place: it may be linked to the cached root's
            content = source.read_bytes().replace(b"@SANDBOX_IMAGE@", names.pause.encode())
            target.write_bytes(content)
            target.chmod(0o755 if content.startswith(b"#!") else 0o644)


def enable_node(tree: Path) -> None:
    """Make the folders that nodes expect, and let the node's units start at boot."""
    for name in _FOLDERS:
        make_folder(tree / name)
    for unit, wanted_by in _ENABLED.items():
        wants = tree / f"etc/systemd/system/{wanted_by}.target.wants"
        make_folder(wants)
        (wants / unit).symlink_to(f"../{unit}")


def place_programs(tree: Path, components: Mapping[str, Component]) -> None:
    for name, (place, wanted) in _PROGRAMS.items():
        folder = tree / place
        make_folder(folder)
        for program, path in components[name].files.items():
            if wanted is None or program in wanted:
                shutil.copyfile(path, folder / program)
                (folder / program).chmod(0o755)


def make_folder(path: Path) -> None:
    """Make a folder that everybody may enter, independent of the umask. An existing folder stays as it is."""
    for missing in reversed([one for one in (path, *path.parents) if not one.exists()]):
        missing.mkdir()
        missing.chmod(0o755)


def copy_linked(source: Path, target: Path) -> None:
    """Copy a folder as hard links; databases, which are written in place, for real."""
    target.parent.mkdir(parents=True, exist_ok=True)
    remove(target)
    try:
        run(["cp", "-a", "--link", str(source), str(target)])
        for path in target.rglob("*.db"):
            if path.is_file() and not path.is_symlink():
                real = path.with_name(f".{path.name}.copy")
                shutil.copy2(path, real)
                real.rename(path)
    except ProcessError as error:
        raise Terminal(f"the node image cannot be put together: {error}", hint="is the disk full?") from error


def walk(folder: Path) -> list[tuple[str, os.stat_result]]:
    """All paths below ``folder``, relative, in order, with what they are; the folder itself first."""
    found: list[tuple[str, os.stat_result]] = [(".", folder.lstat())]
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(parent) / name
            found.append((path.relative_to(folder).as_posix(), path.lstat()))
    return sorted(found, key=lambda item: item[0])
