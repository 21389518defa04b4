"""The node image in a cloud: uploaded when this very one is not there yet, and older ones of the same name cleared away."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from moyai.cloud.capabilities import Cloud
from moyai.cloud.model import Image, Power
from moyai.core.ids import node_image
from moyai.core.progress import Progress

_KEY_PROPERTY = "moyai_key"


def ensure_image(
    cloud: Cloud,
    file: Path,
    *,
    version: str,
    key: str,
    progress: Progress,
    uploaded: Callable[[Image], None] = lambda _: None,
) -> None:
    """``version``: the Kubernetes version that the image holds. ``key`` stands for its content.

    ``uploaded`` is called with an image that was not there before.
    """
    name = node_image(version)
    found = cloud.images.images(name=name)
    current = next((image for image in found if image.ready and image.properties.get(_KEY_PROPERTY) == key), None)
    if current is None:
        progress.progress(f"{file.stat().st_size >> 20} MB")
        properties = {
            "moyai_kubernetes_version": version,
            "moyai_format": "rootfs-tar",
            _KEY_PROPERTY: key,
        }
        current = cloud.images.upload(name=name, file=file, distribution="debian", properties=properties)
        uploaded(current)
    older = [image for image in found if image.id != current.id]
    # a server that is being made still needs the image that it was asked for with; the next `up` clears up then
    if older and not any(server.power is Power.STARTING for server in cloud.machines.servers()):
        for image in older:
            cloud.images.delete_image(image.id)
