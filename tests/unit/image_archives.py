"""Archives for tests, put together by hand: as ``docker save`` writes them and as an OCI layout."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"


def sha(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def pack(files: Mapping[str, bytes]) -> bytes:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return whole.getvalue()


LAYER = pack({"hello": b"world"})
CONFIG = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [sha(LAYER)]}}).encode()


def docker(tags: Sequence[str] = ("example.org/team/app:1.0",), **changed: Any) -> bytes:
    """An archive of one image; ``changed`` replaces files (by name, ``None`` takes one out) or fields of its manifest."""
    item: dict[str, Any] = {"Config": "config.json", "RepoTags": list(tags), "Layers": ["layer/layer.tar"]}
    item |= changed.pop("manifest", {})
    files: dict[str, bytes] = {"manifest.json": json.dumps([item]).encode(), "config.json": CONFIG, "layer/layer.tar": LAYER}
    files |= changed.pop("files", {})
    return pack(files)


def _descriptor(content: bytes, kind: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": kind, "digest": sha(content), "size": len(content), **more}


def layout(name: str = "example.org/team/app:1.0", *, platforms: int = 0, kept: int | None = None) -> bytes:
    """An OCI layout as a tar. ``platforms``: an index of so many images, of which the first ``kept`` are in it."""
    blobs: list[bytes] = []
    manifests: list[bytes] = []
    for number in range(max(1, platforms)):
        config = CONFIG + b" " * number
        layer = gzip.compress(LAYER, mtime=0)
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": _descriptor(config, "application/vnd.oci.image.config.v1+json"),
                "layers": [_descriptor(layer, "application/vnd.oci.image.layer.v1.tar+gzip")],
            }
        ).encode()
        manifests.append(manifest)
        if kept is None or number < kept:
            blobs += [config, layer, manifest]
    annotations = {"annotations": {"org.opencontainers.image.ref.name": name}}
    if platforms:
        index = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": OCI_INDEX,
                "manifests": [_descriptor(manifest, OCI_MANIFEST) for manifest in manifests],
            }
        ).encode()
        blobs.append(index)
        top = _descriptor(index, OCI_INDEX, **annotations)
    else:
        top = _descriptor(manifests[0], OCI_MANIFEST, **annotations)
    files = {f"blobs/sha256/{sha(blob)[7:]}": blob for blob in blobs}
    files |= {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
    return pack({**files, "index.json": json.dumps({"schemaVersion": 2, "manifests": [top]}).encode()})


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
