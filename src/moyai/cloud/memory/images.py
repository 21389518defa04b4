"""Images, as Glance has them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from moyai.cloud.memory.session import MemoryApi, api
from moyai.cloud.model import BootDisk, Image


class MemoryImages(MemoryApi):
    service = "images"

    @api
    def images(self, *, name: str | None = None) -> list[Image]:
        return list(self._store.images) if name is None else self._store.images.by("name", name)

    @api
    def upload(
        self, *, name: str, file: Path, distribution: str, properties: Mapping[str, str], disk: BootDisk | None = None
    ) -> Image:
        with file.open("rb") as stream:
            checksum = hashlib.file_digest(stream, "sha512").hexdigest()
        with self._change():
            least = disk.min_disk_gib if disk else 0
            known = {"distribution": distribution, **properties}
            if disk:
                known |= {name: str(value) for name, value in asdict(disk).items() if value}
            image = Image(self._store.new_id(), name, "ACTIVE", checksum=checksum, properties=known, min_disk_gib=least)
            return self._store.images.put(image)

    @api
    def delete_image(self, image_id: str) -> None:
        if image_id not in self._store.images:
            return
        with self._change():
            self._store.images.drop(image_id)
