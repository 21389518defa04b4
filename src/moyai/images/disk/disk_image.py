"""The disk image: partitions, boot loaders, and a root file system with all that the node image has.

``DiskImage.digest`` names the content. Where nothing changed, another build gives the same bytes: identities come from the
inputs' key, dates from Debian's packages, and the order of files from their names.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from moyai.core.errors import Terminal
from moyai.core.graph import Task
from moyai.core.ids import node_image as named
from moyai.core.paths import Paths
from moyai.core.progress import Progress
from moyai.images import node_image, references
from moyai.images.cache import Cache, digest_of_folder, key_of, remove
from moyai.images.disk.boot import MENU, SECTOR, bios_code, menu, write_esp
from moyai.images.disk.disk_root import date_of, disk_root
from moyai.images.disk.disk_tools import DiskTools, disk_tools
from moyai.images.disk.ext4 import PlacedFileSystem, size_for, write_ext4
from moyai.images.node_image import NodeImage
from moyai.images.node_tree import FILES, STORE, copy_linked, enable_node, make_folder, place_files
from moyai.linux.process import ProcessError, run

DiskFormat = Literal["qcow2", "raw"]
#: Names of the tasks, as the user sees them.
ROOT, TOOLS, DISK = "image: Debian with a kernel", "image: disk tools", "image: disk"

#: Raised when the way in which the image is put together changes.
_FORMAT = 1
_OWN_FILES = Path(__file__).parent.with_name("disk_files")
#: What the node image has beside Debian's packages and the files of its own.
_FROM_NODE = ("usr/local", "opt", STORE)
#: A machine that shares its host's kernel has these; one with a kernel of its own does not.
_NOT_ON_DISKS = ("etc/moyai/proc/sys",)
_UNPACK = 'zstd -dc "$1" | tar -C "$2" --numeric-owner --xattrs --xattrs-include="*" -xp -f - "${@:3}"'
_MIB, _GIB = 1 << 20, 1 << 30
#: Second stage for the BIOS, the EFI's partition, the root: begin and length in bytes. The root is the first by its number, as
#: in Debian's own images, and the last by its place, so that it can grow.
_BIOS, _ESP, _ROOT_AT = (1 * _MIB, 1 * _MIB), (2 * _MIB, 62 * _MIB), 64 * _MIB
_FSTAB = "UUID={root} / ext4 defaults,discard,errors=remount-ro 0 1\nUUID={esp} /boot/efi vfat umask=0077,nofail,noauto 0 0\n"
#: How long the machine's disk lasts without any pod: images are unpacked, etcd and the journal grow.
_MIN_DISK_GIB, _MIN_RAM_MB = 8, 1024
_RAW, _DESCRIPTION = "disk.raw", "disk.json"
_CHUNK = 4 << 20


@dataclass(frozen=True)
class DiskFacts:
    """``digest``: SHA-256 of the raw disk. ``version``: of Kubernetes. ``size``: bytes of the raw disk. ``agent``: whether
    QEMU's guest agent is inside. ``min_disk`` in GiB, ``min_ram`` in MiB: what a machine needs to be a node."""

    digest: str
    version: str
    distribution: str
    release: str
    size: int
    agent: bool
    min_disk: int = _MIN_DISK_GIB
    min_ram: int = _MIN_RAM_MB


@dataclass(frozen=True)
class DiskImage:
    """``path``: the file, in ``format``."""

    path: Path
    format: DiskFormat
    facts: DiskFacts


def tasks(paths: Paths, *, form: DiskFormat, after: tuple[str, ...] = ()) -> list[Task]:
    """Tasks for a graph that also holds those of the node image; the last, ``DISK``, gives the DiskImage."""
    cache = Cache(paths.images)

    def disk(results: Mapping[str, Any], step: Progress) -> DiskImage:
        return build(cache, results[TOOLS], root=results[ROOT], node=results[node_image.NODE], form=form, say=step.progress)

    return [
        Task(ROOT, lambda _, step: disk_root(cache, step.progress), after),
        Task(TOOLS, lambda _, step: disk_tools(cache, step.progress), after),
        Task(DISK, disk, (ROOT, TOOLS, node_image.NODE)),
    ]


def build(
    cache: Cache, tools: DiskTools, *, root: Path, node: NodeImage, form: DiskFormat, say: Callable[[str], None]
) -> DiskImage:
    """The disk image of a node image, made if it is not there. ``root``: of ``disk_root``."""
    files = [digest_of_folder(folder) for folder in (FILES, _OWN_FILES)]
    key = key_of("disk", _FORMAT, root.name, tools.folder.name, node.key, *files)
    folder = cache.get("disk", key, make=lambda target: _make(target, tools, root=root, node=node, key=key, say=say), say=say)
    facts = DiskFacts(**json.loads((folder / _DESCRIPTION).read_text()))
    if form == "raw":
        return DiskImage(folder / _RAW, form, facts)

    def pack(target: Path) -> None:
        say("packing as qcow2")
        # one coroutine, in order: two packings give the same bytes
        tools.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", "-m", "1", folder / _RAW, target)

    packed = cache.get("disk-qcow2", key_of(key, facts.digest), make=pack, suffix=".qcow2", say=say)
    return DiskImage(packed, form, facts)


def _make(target: Path, tools: DiskTools, *, root: Path, node: NodeImage, key: str, say: Callable[[str], None]) -> None:
    target.mkdir()
    tree, raw = target / "tree", target / _RAW
    identity = Identity(key)
    date = date_of(root)
    say("root file system")
    fill_tree(tree, root=root, node=node, identity=identity)
    size = _ROOT_AT + size_for(tree) + _MIB
    size = -(-size // _GIB) * _GIB
    with raw.open("wb") as file:
        file.truncate(size)
    say("file system")
    # the last MiB holds the copy of the partitions' table
    system = PlacedFileSystem(_ROOT_AT, size - _ROOT_AT - _MIB, identity.of("root"), label="moyai-root", date=date)
    write_ext4(tools, tree, image=raw, system=system)
    remove(tree)
    say("boot loaders")
    _write_boot(tools, raw, identity=identity, root_size=system.size, date=date)
    say("digest")
    facts = DiskFacts(digest_of(raw), node.version, "debian", root_release(root), size, agent=has_agent(root))
    (target / _DESCRIPTION).write_text(json.dumps(asdict(facts), indent=1))


@dataclass(frozen=True)
class Identity:
    """Identities of the disk's parts, by the key of what goes into it: two images in one machine differ."""

    key: str

    def of(self, part: str) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"moyai:disk:{self.key}:{part}"))

    def serial(self) -> int:
        return int(self.of("esp")[:8], 16)


def fill_tree(tree: Path, *, root: Path, node: NodeImage, identity: Identity) -> None:
    """Put Debian, the node image's own content, and the files of a machine with a disk into the new folder ``tree``."""
    copy_linked(root, tree)
    try:
        run(["bash", "-o", "pipefail", "-c", _UNPACK, "moyai", node.path, tree, *_FROM_NODE])
    except ProcessError as error:
        raise Terminal(f"the node image cannot be unpacked: {error}", hint="is the disk full?") from error
    names = references.load(node.version)
    place_files(tree, names)
    for name in _NOT_ON_DISKS:
        remove(tree / name)
    place_files(tree, names, files=_OWN_FILES)
    enable_node(tree)
    serial = f"{identity.serial():08X}"
    table = _FSTAB.format(root=identity.of("root"), esp=f"{serial[:4]}-{serial[4:]}")
    for name, text in (("etc/fstab", table), (MENU, menu(identity.of("root")))):
        remove(tree / name)
        make_folder((tree / name).parent)
        (tree / name).write_text(text)
        (tree / name).chmod(0o644)
    for name in ("boot/efi", "etc/moyai/proc"):
        make_folder(tree / name)


def _write_boot(tools: DiskTools, raw: Path, *, identity: Identity, root_size: int, date: int) -> None:
    esp = raw.with_name("esp")
    try:
        tools.run("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", raw, stdin=partitions(identity, root_size=root_size))
        first, second = bios_code(tools, root_uuid=identity.of("root"), first_sector=_BIOS[0] // SECTOR, work=raw)
        if len(second) > _BIOS[1]:
            raise Terminal(f"GRUB's second stage has {len(second)} bytes, its partition {_BIOS[1]}")
        write_esp(tools, esp, size=_ESP[1], root_uuid=identity.of("root"), serial=identity.serial(), date=date)
        with raw.open("r+b") as disk:
            disk.write(first)
            disk.seek(_BIOS[0])
            disk.write(second)
            for place, piece in _pieces(esp):
                disk.seek(_ESP[0] + place)
                disk.write(piece)
    finally:
        remove(esp)


def partitions(identity: Identity, *, root_size: int) -> str:
    """What sfdisk is told of the disk. ``root_size``: of the root's file system, in bytes."""

    def line(number: int, begin: int, size: int, kind: str) -> str:
        where = f"start={begin // SECTOR}, size={size // SECTOR}"
        return f"{number} : {where}, type={kind}, uuid={identity.of(f'partition-{number}')}\n"

    # types: Linux root for x86-64, GRUB's second stage, the EFI's system partition
    return (
        f"label: gpt\nlabel-id: {identity.of('disk')}\nunit: sectors\n"
        + line(1, _ROOT_AT, root_size, "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709")
        + line(14, *_BIOS, "21686148-6449-6E6F-744E-656564454649")
        + line(15, *_ESP, "C12A7328-F81F-11D2-BA4B-00A0C93EC93B")
    )


def _pieces(path: Path) -> Iterator[tuple[int, bytes]]:
    """The pieces of a file that are not empty, and where they are: an image keeps its holes."""
    with path.open("rb") as file:
        place = 0
        while piece := file.read(_CHUNK):
            if piece.count(0) != len(piece):
                yield place, piece
            place += len(piece)


def digest_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def root_release(root: Path) -> str:
    """The release of a root file system: ``VERSION_ID`` of its os-release(5)."""
    lines = (root / "usr/lib/os-release").read_text().splitlines()
    return next(line.partition("=")[2].strip('"') for line in lines if line.startswith("VERSION_ID="))


def has_agent(root: Path) -> bool:
    return (root / "usr/sbin/qemu-ga").exists()


def name_of(image: DiskImage) -> str:
    """What the file is called beside others: its content decides."""
    return f"{named(image.facts.version)}-{image.facts.digest[:16]}.{image.format}"
