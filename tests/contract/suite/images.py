"""Images."""

from __future__ import annotations

from pathlib import Path

from moyai.core.ids import new_uid
from tests.contract.site import Site


class Images:
    def test_an_image_is_uploaded_and_read(self, site: Site, tmp_path: Path) -> None:
        cloud = site.cloud
        file = tmp_path / "image.tar"
        file.write_bytes(bytes(range(256)) * 20_000)
        name = f"test-{new_uid()}"
        image = cloud.images.upload(name=name, file=file, distribution="debian", properties={"moyai_format": "rootfs-tar"})
        try:
            assert image.ready
            assert image.properties["moyai_format"] == "rootfs-tar"
            assert [one.id for one in cloud.images.images(name=name)] == [image.id]
        finally:
            cloud.images.delete_image(image.id)
        assert cloud.images.images(name=name) == []
