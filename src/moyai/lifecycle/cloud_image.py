"""The node image in a cloud: uploaded when this very one is not there yet.

In the local cloud older ones of the same name are cleared away. In a cloud of other people they stay until their removal is
asked for, and as long as a server was made from them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from moyai.cloud.capabilities import Cloud
from moyai.cloud.model import BootDisk, Image, Power, Server
from moyai.core.ids import IMAGE_DIGEST, IMAGE_VERSION, node_image
from moyai.core.progress import Progress

_KEY_PROPERTY, _FORM = "moyai_key", "moyai_format"


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
            IMAGE_VERSION: version,
            _FORM: "rootfs-tar",
            _KEY_PROPERTY: key,
        }
        current = cloud.images.upload(name=name, file=file, distribution="debian", properties=properties)
        uploaded(current)
    older = [image for image in found if image.id != current.id]
    # a server that is being made still needs the image that it was asked for with; the next `up` clears up then
    if older and not any(server.power is Power.STARTING for server in cloud.machines.servers()):
        for image in older:
            cloud.images.delete_image(image.id)


@dataclass(frozen=True)
class ImagePlan:
    """``current``: the image of the wanted content. ``announced``: those that an interrupted upload left without content.
    ``older``: the other ones of the same name; of these, ``unused`` are those that no server was made from."""

    current: Image | None
    announced: tuple[Image, ...]
    older: tuple[Image, ...]
    unused: tuple[Image, ...]


@dataclass(frozen=True)
class UploadedImage:
    """``new``: it was not there before. ``removed`` and ``kept``: older ones of the same name."""

    image: Image
    new: bool
    removed: tuple[Image, ...] = ()
    kept: tuple[Image, ...] = ()


def plan_upload(images: Iterable[Image], servers: Iterable[Server], *, digest: str, disk: BootDisk) -> ImagePlan:
    """What an upload finds. ``images``: of the name; those that moyai did not upload are left alone."""
    own = [image for image in images if image.properties.get(IMAGE_DIGEST)]
    same = [image for image in own if image.properties[IMAGE_DIGEST] == digest and image.properties.get(_FORM) == disk.format]
    current = next((image for image in same if image.ready), None)
    older = tuple(image for image in own if image is not current and not image.empty)
    used = {server.image_id for server in servers}
    unused = tuple(image for image in older if image.id not in used)
    return ImagePlan(current, tuple(image for image in same if image.empty), older, unused)


def upload_disk(
    cloud: Cloud,
    file: Path,
    *,
    version: str,
    digest: str,
    distribution: str,
    disk: BootDisk,
    remove_unused: bool,
    progress: Progress,
) -> UploadedImage:
    """Bring a disk into a cloud under the name by which clusters look for it. ``digest``: of its content, in whatever form.

    The image is there and ready, or the call raises; an interrupted upload is replaced by the next.
    """
    name = node_image(version)
    plan = plan_upload(cloud.images.images(name=name), cloud.machines.servers(), digest=digest, disk=disk)
    current = plan.current
    if current is None:
        progress.progress(f"{file.stat().st_size >> 20} MB")
        properties = {IMAGE_VERSION: version, IMAGE_DIGEST: digest, _FORM: disk.format}
        current = cloud.images.upload(name=name, file=file, distribution=distribution, properties=properties, disk=disk)
    for image in plan.announced:
        cloud.images.delete_image(image.id)
    removed = plan.unused if remove_unused else ()
    # a server that is being made may not say yet what it is made from
    if removed and any(server.power is Power.STARTING for server in cloud.machines.servers()):
        removed = ()
    for image in removed:
        progress.progress(f"removing {image.id}")
        cloud.images.delete_image(image.id)
    return UploadedImage(current, plan.current is None, removed, tuple(one for one in plan.older if one not in removed))
