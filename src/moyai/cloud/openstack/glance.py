"""Glance: images (``cloud.capabilities.Images``)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from moyai.cloud.model import BootDisk, Image
from moyai.cloud.openstack import parse
from moyai.cloud.openstack.session import CloudSession
from moyai.core.errors import MoyaiError, NotFound, Terminal

#: How long Glance may take after the last byte: it hashes as it receives, but a store may copy once more.
_CONFIRM_SECONDS = 600.0


#: What a disk asks of hypervisors. Source: https://docs.openstack.org/glance/latest/admin/useful-image-properties.html
#: A config drive is a CD: by SCSI, too, since Debian's kernel for hypervisors has no driver for the disks of AHCI.
_DISK_PROPERTIES = {
    "os_type": "linux",
    "hw_disk_bus": "scsi",
    "hw_scsi_model": "virtio-scsi",
    "hw_cdrom_bus": "scsi",
    "hw_vif_model": "virtio",
    "hw_rng_model": "virtio",
}


def _form(disk: BootDisk | None) -> dict[str, Any]:
    if disk is None:
        # an archive is no form of a disk that Glance knows
        return {"disk_format": "raw"}
    chosen = {"hw_qemu_guest_agent": "yes"} if disk.agent else {}
    if disk.firmware:
        chosen["hw_firmware_type"] = disk.firmware
    least = {"min_disk": disk.min_disk_gib, "min_ram": disk.min_ram_mib}
    return {"disk_format": disk.format, **least, "os_version": disk.release, **_DISK_PROPERTIES, **chosen}


class GlanceImages:
    def __init__(self, session: CloudSession) -> None:
        self._glance = session.service("image")

    def images(self, *, name: str | None = None) -> list[Image]:
        # Glance's own page has 25 images; it lowers a limit that it finds too high
        params = {"limit": 1000, **({"name": name} if name else {})}
        rows = self._glance.list("/images", "images", operation="list images", params=params)
        return [parse.image(row) for row in rows]

    def upload(
        self, *, name: str, file: Path, distribution: str, properties: Mapping[str, str], disk: BootDisk | None = None
    ) -> Image:
        """Make an image of a file's content, sent in pieces. An upload that fails leaves no image behind."""
        operation = f"upload image {name}"
        with file.open("rb") as stream:
            made = self._glance.post(
                "/images",
                {"name": name, "container_format": "bare", "os_distro": distribution, **_form(disk), **properties},
                operation=f"create image {name}",
            )
            image_id = str(made["id"])
            try:
                self._glance.upload(
                    f"/images/{image_id}/file", stream, operation=operation, object_id=image_id, seconds=_CONFIRM_SECONDS
                )
            except BaseException:
                # also when interrupted: half an image is of no use to anybody
                with suppress(MoyaiError):
                    self.delete_image(image_id)
                raise
        return parse.image(self._glance.get(f"/images/{image_id}", operation="show image", object_id=image_id))

    def delete_image(self, image_id: str) -> None:
        try:
            self._glance.delete(f"/images/{image_id}", operation="delete image", object_id=image_id)
        except NotFound:
            return
        except Terminal:
            # Glance's word for an image that another request is deleting at this moment is 400
            try:
                self._glance.get(f"/images/{image_id}", operation="show image", object_id=image_id)
            except NotFound:
                return
            raise
