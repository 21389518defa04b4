"""Image archives as users have them, read for pushing: ``docker save`` (any version), OCI layouts as a tar, compressed or not.

Nothing is unpacked: blobs are read at their place in the tar. The module checks an archive before it uses it: it computes the
digests, and it refuses a layer that differs from the image's configuration. An archive may be hostile: whatever it
contains, the result is its images or a UsageError of one line.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import lzma
import tarfile
import zlib
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

from moyai.core.errors import UsageError
from moyai.images import unpacking
from moyai.images.reference import ImageReference

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"
_OCI_NAME = "org.opencontainers.image.ref.name"
_GZIP, _ZSTD = unpacking.GZIP, unpacking.ZSTD

_MANIFESTS, _INDEXES = (OCI_MANIFEST, DOCKER_MANIFEST), (OCI_INDEX, DOCKER_INDEX)
#: A manifest or configuration larger than this is none.
_MOST_JSON = 8 << 20
#: An index of indexes of indexes has this depth; real ones have one or two levels.
_DEEPEST = 4


@dataclass(frozen=True)
class Blob:
    """A piece of content: ``digest`` as ``sha256:…``, ``size`` in bytes; ``open`` gives it from its start."""

    digest: str
    size: int
    open: Callable[[], IO[bytes]]


@dataclass(frozen=True)
class Manifest:
    """A manifest as it is to be pushed; ``children`` (of an index) first."""

    media_type: str
    content: bytes
    blobs: Sequence[Blob] = ()
    children: Sequence[Manifest] = ()

    @property
    def digest(self) -> str:
        return f"sha256:{hashlib.sha256(self.content).hexdigest()}"


@dataclass(frozen=True)
class ArchivedImage:
    """One image of an archive with the names it goes by there (none for an untagged one)."""

    manifest: Manifest
    references: Sequence[ImageReference] = field(default=())


@contextlib.contextmanager
def read(path: Path, *, most_unpacked: int = unpacking.MOST_UNPACKED) -> Generator[list[ArchivedImage]]:
    """The images of an archive; their blobs can be read during the block.

    ``most_unpacked``: bytes that the archive, and each of its layers, may unpack to. Raises UsageError if the file is no image
    archive, cannot be read, or is larger.
    """
    with contextlib.ExitStack() as stack:
        try:
            plain = stack.enter_context(unpacking.plain(path, most_unpacked))
            tar = stack.enter_context(tarfile.open(fileobj=plain, mode="r:"))
            images = _ArchiveReader(tar, path, most_unpacked=most_unpacked).images()
        # tarfile itself raises ValueError and others for odd numbers in headers; bz2 an OSError without a number
        except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, ValueError, OverflowError, OSError) as error:
            if isinstance(error, OSError) and error.errno:
                raise UsageError(f"{path} cannot be read: {error.strerror}") from error
            raise UsageError(
                f"{path} is no image archive",
                hint=f"`docker save` or `skopeo copy … oci-archive:` makes one ({_printable(str(error))})",
            ) from error
        yield images


class _ArchiveReader:
    def __init__(self, tar: tarfile.TarFile, path: Path, *, most_unpacked: int) -> None:
        self._tar = tar
        self._path = path
        self._most_unpacked = most_unpacked
        self._members = {member.name.removeprefix("./"): member for member in unpacking.members(tar, path)}

    def images(self) -> list[ArchivedImage]:
        if "manifest.json" in self._members:
            found = [self._docker(item) for item in _objects(self._json("manifest.json"))]
        elif "index.json" in self._members:
            found = self._layout()
        else:
            raise self._wrong("it has neither manifest.json (docker) nor index.json (OCI)")
        if not found:
            raise self._wrong("there is no image in it")
        return found

    # docker save: a list of {Config, RepoTags, Layers}

    def _docker(self, item: Mapping[str, Any]) -> ArchivedImage:
        try:
            config_name, layer_names = str(item["Config"]), [str(name) for name in item["Layers"]]
            tags = [str(tag) for tag in cast("list[Any]", item.get("RepoTags") or [])]
        except (KeyError, TypeError) as error:
            raise self._wrong(f"manifest.json lacks {error}") from error
        config = self._blob(config_name)
        diff_ids = self._diff_ids(config_name)
        if len(diff_ids) != len(layer_names):
            raise self._wrong(f"{len(layer_names)} layers where its configuration has {len(diff_ids)}")
        layers = [self._layer(name, diff_id) for name, diff_id in zip(layer_names, diff_ids, strict=True)]
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": _descriptor(_CONFIG, config),
            "layers": [_descriptor(kind, blob) for kind, blob in layers],
        }
        content = json.dumps(document, separators=(",", ":")).encode()
        manifest = Manifest(OCI_MANIFEST, content, [config, *(blob for _, blob in layers)])
        return ArchivedImage(manifest, [self._reference(tag) for tag in tags])

    def _reference(self, text: str) -> ImageReference:
        try:
            return ImageReference.parse(text)
        except UsageError as error:
            raise self._wrong(str(error)) from error

    def _diff_ids(self, config_name: str) -> list[str]:
        try:
            return [str(one) for one in self._object(config_name)["rootfs"]["diff_ids"]]
        except (KeyError, TypeError) as error:
            raise self._wrong(f"{config_name} is no image configuration") from error

    def _layer(self, name: str, diff_id: str) -> tuple[str, Blob]:
        with self._open(name) as file:
            head = file.read(4)
        if head.startswith(_ZSTD):
            return f"{_LAYER}+zstd", self._blob(name)
        if head.startswith(_GZIP):
            with self._open(name) as file:
                unpacked = unpacking.limited(
                    cast("IO[bytes]", gzip.GzipFile(fileobj=file)), self._path, most=self._most_unpacked
                )
                self._same(name, _digest(unpacked), said=diff_id)
            return f"{_LAYER}+gzip", self._blob(name)
        blob = self._blob(name)
        self._same(name, blob.digest, said=diff_id)
        return _LAYER, blob

    # OCI layout: index.json → manifests (or indexes of them) → blobs/sha256/…

    def _layout(self) -> list[ArchivedImage]:
        found: list[ArchivedImage] = []
        for item in _objects(self._object("index.json").get("manifests")):
            annotations = self._as_object(item.get("annotations") or {}, "annotations")
            name = str(annotations.get("io.containerd.image.name") or annotations.get(_OCI_NAME) or "")
            # a bare tag ("latest") names no repository: --as is asked for then
            references = [self._reference(name)] if "/" in name or ":" in name else []
            found.append(ArchivedImage(self._manifest(item), references))
        return found

    def _manifest(self, item: Mapping[str, Any], depth: int = 0) -> Manifest:
        if depth > _DEEPEST:
            raise self._wrong(f"an index holds an index that holds an index, more than {_DEEPEST} deep")
        blob = self._digested(item)
        if blob.size > _MOST_JSON:
            raise self._wrong(f"a manifest of {blob.size} bytes")
        with blob.open() as file:
            content = file.read()
        document = self._as_object(self._parse(content, blob.digest), blob.digest)
        kind = str(document.get("mediaType") or item.get("mediaType") or OCI_MANIFEST)
        if kind not in (*_MANIFESTS, *_INDEXES):
            raise self._wrong(f"a manifest of type {kind}")
        if kind in _MANIFESTS:
            parts = [*_objects([document.get("config")]), *_objects(document.get("layers"))]
            return Manifest(kind, content, [self._digested(part) for part in parts])
        children = [part for part in _objects(document.get("manifests")) if self._name(part) in self._members]
        if not children:
            raise self._wrong("its index names only images that are not in it")
        manifests = [self._manifest(part, depth + 1) for part in children]
        if len(children) < len(_objects(document.get("manifests"))):
            # exported for one platform only: a registry takes no index with holes, so that platform's image it is
            return manifests[0]
        return Manifest(kind, content, children=manifests)

    def _digested(self, item: Mapping[str, Any]) -> Blob:
        blob = self._blob(self._name(item))
        self._same(self._name(item), blob.digest, said=str(item.get("digest")))
        return blob

    def _name(self, item: Mapping[str, Any]) -> str:
        return f"blobs/{str(item.get('digest')).replace(':', '/')}"

    # files of the tar

    def _open(self, name: str) -> IO[bytes]:
        member = self._members.get(name.removeprefix("./"))
        try:
            file = self._tar.extractfile(member) if member else None
        except (KeyError, RecursionError):  # a link to a file that the archive does not contain, or links in a circle
            file = None
        if file is None:
            raise self._wrong(f"{name} is missing in it")
        return file

    def _blob(self, name: str) -> Blob:
        with self._open(name) as file:
            digest = _digest(file)
            size = file.tell()
        return Blob(digest, size, lambda: self._open(name))

    def _json(self, name: str) -> Any:
        with self._open(name) as file:
            content = file.read(_MOST_JSON + 1)
        if len(content) > _MOST_JSON:
            raise self._wrong(f"{name} is larger than {_MOST_JSON >> 20} MiB")
        return self._parse(content, name)

    def _object(self, name: str) -> dict[str, Any]:
        return self._as_object(self._json(name), name)

    def _as_object(self, value: Any, name: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self._wrong(f"{name}: a JSON object is wanted")
        return cast("dict[str, Any]", value)

    def _parse(self, content: bytes, name: str) -> Any:
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise self._wrong(f"{name} is no JSON, or nested too deeply") from error  # UnicodeDecodeError is a ValueError, too

    def _same(self, name: str, found: str, *, said: str) -> None:
        if found != said:
            raise self._wrong(f"{name} is damaged: {found} where {said} is meant")

    def _wrong(self, why: str) -> UsageError:
        return UsageError(f"{self._path} is no image archive that can be used", hint=_printable(why))


def _printable(text: str) -> str:
    """Text of the archive for a terminal: on one line, without control sequences, and not without end."""
    shown = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text[:300])
    return shown if len(text) <= 300 else f"{shown}…"


def _digest(file: IO[bytes]) -> str:
    found = hashlib.sha256()
    while chunk := file.read(unpacking.CHUNK):
        found.update(chunk)
    return f"sha256:{found.hexdigest()}"


def _descriptor(kind: str, blob: Blob) -> dict[str, Any]:
    return {"mediaType": kind, "digest": blob.digest, "size": blob.size}


def _objects(value: Any) -> list[dict[str, Any]]:
    """The JSON objects of a list; of anything else, none."""
    items = cast("list[Any]", value) if isinstance(value, list) else []
    return [cast("dict[str, Any]", item) for item in items if isinstance(item, dict)]
