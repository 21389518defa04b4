"""OCI images written as docker archives (what ``docker save`` writes): plain Python, no daemon, no registry.

Always the same bytes for the same input: entries sorted, times zero, owner root unless said otherwise, no host names.
A layer is a plain (uncompressed) tar, so its digest is its diff id; the sender compresses it.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Literal, cast

_EPOCH = "1970-01-01T00:00:00Z"


@dataclass(frozen=True)
class Entry:
    """One file, folder or symbolic link of a layer. ``path`` is relative to the root; ``content`` is bytes or a file's path."""

    path: str
    mode: int = 0o644
    kind: Literal["file", "folder", "link"] = "file"
    content: bytes | Path = b""
    target: str = ""
    uid: int = 0
    gid: int = 0


def folder(path: str, mode: int = 0o755) -> Entry:
    return Entry(path, mode, "folder")


def link(path: str, target: str) -> Entry:
    return Entry(path, 0o777, "link", target=target)


def from_folder(
    source: Path, under: str = "", *, skip: Callable[[str], bool] = lambda _: False, plain_modes: bool = False
) -> list[Entry]:
    """The entries of a folder on disk, placed below ``under``; owned by root. Devices and sockets are left out.

    ``skip`` gets each path relative to ``source``; files below a skipped folder are skipped too. ``plain_modes``: everybody may
    read each file, and run each file that its owner may run, independent of the umask of the process that created the files.
    """
    found: list[Entry] = []
    for parent, folders, files in os.walk(source):
        base = PurePosixPath(parent).relative_to(source.as_posix())
        for name in [*folders, *files]:
            relative = (base / name).as_posix()
            if skip(relative):
                if name in folders:
                    folders.remove(name)
                continue
            path = Path(parent) / name
            info = path.lstat()
            target = (PurePosixPath(under) / relative).as_posix()
            mode = stat.S_IMODE(info.st_mode)
            if plain_modes:
                mode = 0o755 if stat.S_ISDIR(info.st_mode) or mode & 0o100 else 0o644
            if stat.S_ISLNK(info.st_mode):
                found.append(link(target, str(path.readlink())))
            elif stat.S_ISDIR(info.st_mode):
                found.append(folder(target, mode))
            elif stat.S_ISREG(info.st_mode):
                found.append(Entry(target, mode, content=path))
    return found


@dataclass(frozen=True)
class Layer:
    """A layer's tar on disk and its digest (``sha256:…``)."""

    path: Path
    digest: str


def write_layer(entries: Iterable[Entry], path: Path) -> Layer:
    """Write a layer. Of several entries of one path the last counts; missing parent folders are added (mode 755)."""
    wanted: dict[str, Entry] = {}
    for entry in entries:
        name = PurePosixPath(entry.path).as_posix().lstrip("/")
        if name in ("", ".") or ".." in PurePosixPath(name).parts:
            raise ValueError(f"no path within a layer: {entry.path!r}")
        wanted[name] = entry
        for parent in PurePosixPath(name).parents[:-1]:
            wanted.setdefault(parent.as_posix(), folder(parent.as_posix()))
    with path.open("wb") as raw:
        hashing = _Hashing(raw)
        with tarfile.open(fileobj=cast(BinaryIO, hashing), mode="w|", format=tarfile.PAX_FORMAT) as tar:
            for name in sorted(wanted):
                _add(tar, name, entry=wanted[name])
    return Layer(path, hashing.digest())


class _Hashing(io.RawIOBase):
    """Writes through to a file and keeps the digest of all that was written."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self._sha = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self._sha.update(data)
        return self._raw.write(data)

    def digest(self) -> str:
        return f"sha256:{self._sha.hexdigest()}"


def _add(tar: tarfile.TarFile, name: str, *, entry: Entry) -> None:
    info = tarfile.TarInfo(name)
    info.mode, info.uid, info.gid = entry.mode, entry.uid, entry.gid
    if entry.kind == "folder":
        info.type = tarfile.DIRTYPE
        tar.addfile(info)
    elif entry.kind == "link":
        info.type, info.linkname = tarfile.SYMTYPE, entry.target
        tar.addfile(info)
    elif isinstance(entry.content, bytes):
        info.size = len(entry.content)
        tar.addfile(info, io.BytesIO(entry.content))
    else:
        info.size = entry.content.stat().st_size
        with entry.content.open("rb") as file:
            tar.addfile(info, file)


@dataclass(frozen=True)
class ImageConfig:
    """How the image runs. ``env`` as name → value; ``ports`` as ``80/tcp``; ``labels`` free."""

    entrypoint: Sequence[str] = ()
    cmd: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    working_dir: str = "/"
    user: str = ""
    ports: Sequence[str] = ()
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    stop_signal: str = ""
    architecture: str = "amd64"


_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def config_json(config: ImageConfig, diff_ids: Sequence[str]) -> bytes:
    """The image's configuration file as OCI defines it."""
    env = {"PATH": _DEFAULT_PATH, **config.env}
    runtime: dict[str, Any] = {
        "Entrypoint": list(config.entrypoint) or None,
        "Cmd": list(config.cmd) or None,
        "Env": [f"{name}={value}" for name, value in env.items()],
        "WorkingDir": config.working_dir,
        "User": config.user,
        "ExposedPorts": {port: {} for port in config.ports} or None,
        "Labels": dict(config.labels) or None,
        "StopSignal": config.stop_signal or None,
    }
    document = {
        "architecture": config.architecture,
        "os": "linux",
        "created": _EPOCH,
        "config": {name: value for name, value in runtime.items() if value is not None},
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
        "history": [{"created": _EPOCH, "created_by": "moyai"} for _ in diff_ids],
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def write_archive(path: Path, *, tags: Sequence[str], layers: Sequence[Layer], config: ImageConfig) -> str:
    """Write a docker archive of one image under ``tags``; returns the image's id (``sha256:…``)."""
    document = config_json(config, [layer.digest for layer in layers])
    image_id = hashlib.sha256(document).hexdigest()
    manifest = [
        {
            "Config": f"{image_id}.json",
            "RepoTags": list(tags),
            "Layers": [f"{layer.digest.removeprefix('sha256:')}.tar" for layer in layers],
        }
    ]
    entries = {
        f"{image_id}.json": Entry("", content=document),
        "manifest.json": Entry("", content=json.dumps(manifest, separators=(",", ":")).encode()),
        **{f"{layer.digest.removeprefix('sha256:')}.tar": Entry("", content=layer.path) for layer in layers},
    }
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name in sorted(entries):
            _add(tar, name, entry=entries[name])
    return f"sha256:{image_id}"
