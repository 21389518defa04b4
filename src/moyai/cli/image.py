"""``moyai image``: node images, and OCI images in the local cloud's registry, where every cluster of that cloud looks first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import click

from moyai.cli.display import OutputFormat, reporter
from moyai.cli.node_images import build, upload
from moyai.cli.tables import print_table
from moyai.cli.terminal import OUTPUT, say
from moyai.core.errors import UsageError
from moyai.core.paths import default_paths
from moyai.images.reference import ImageReference
from moyai.images.registry import Registry
from moyai.images.unpacking import MOST_UNPACKED
from moyai.localcloud.layout import PORTS, CloudPaths
from moyai.localcloud.start_stop import recorded

_CLOUD = click.option("--cloud", default="moyai", show_default=True, help="The local cloud.")


@click.group()
def image() -> None:
    """Node images for clouds, and container images for pods.

    `load`, `list` and `remove` are about the local cloud's registry: `image: NAME` in a pod finds them there by the same name.
    """


image.add_command(build)
image.add_command(upload)


@image.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--as", "name", help="Name for the image, instead of those in the archive.")
@click.option(
    "--max-unpacked",
    type=click.IntRange(min=1),
    default=MOST_UNPACKED >> 30,
    show_default=True,
    metavar="GIB",
    help="Refuse a compressed archive, or a compressed layer, that unpacks to more.",
)
@_CLOUD
@OUTPUT
def load(file: Path, name: str | None, *, max_unpacked: int, cloud: str, output: str) -> None:
    """Put the images of FILE, as `docker save` or an OCI archive has them, into the registry."""
    wanted = ImageReference.parse(name) if name else None
    registry = _registry(cloud)
    with reporter(cast(OutputFormat, output), title="image") as progress, progress.step(f"load {file.name}") as step:
        pushed = registry.push(file, step.progress, name=wanted, most_unpacked=max_unpacked << 30)
    if output == "json":
        say(json.dumps([{"image": str(item.reference), "digest": item.digest, "sent": item.sent} for item in pushed]))
        return
    for item in pushed:
        say(f"{item.reference} {item.digest[:19]}{'' if item.sent else ' (was there)'}")


@image.command("list")
@_CLOUD
@OUTPUT
def list_(cloud: str, output: str) -> None:
    """List the images in the registry."""
    found = _registry(cloud).list()
    if output == "json":
        data = [{"path": item.path, "tag": item.tag, "digest": item.digest, "size": item.size} for item in found]
        say(json.dumps(data))
        return
    rows = [(item.path, item.tag, item.digest[:19], f"{item.size / 1e6:.1f} MB") for item in found]
    print_table(("IMAGE", "TAG", "DIGEST", "SIZE"), rows, right={"SIZE"})


@image.command()
@click.argument("name")
@_CLOUD
def remove(name: str, cloud: str) -> None:
    """Take the image NAME out of the registry; nodes that hold it already keep it."""
    reference = ImageReference.parse(name)
    _registry(cloud).delete(reference)
    say(f"{reference} removed")


def _registry(cloud: str) -> Registry:
    config = recorded(CloudPaths(default_paths().cloud(cloud)))
    # without the link its addresses would be somebody else's, by the default route
    if config is None or not Path("/sys/class/net", config.link).exists():
        raise UsageError(f"local cloud {cloud!r} is not running", hint=f"`moyai cloud up --name {cloud}` starts it")
    return Registry(f"http://{config.address}:{PORTS['registry']}")
