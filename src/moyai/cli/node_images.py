"""``moyai image build``: the node image as a file, for the local cloud's machines or for a hypervisor."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import click

from moyai.cli.display import OutputFormat, reporter
from moyai.cli.terminal import OUTPUT, say
from moyai.core.errors import UsageError
from moyai.core.files import rename_durably
from moyai.core.graph import run_graph
from moyai.core.ids import node_image
from moyai.core.kubernetes_version import DEFAULT_KUBERNETES_VERSION
from moyai.core.paths import default_paths
from moyai.core.progress import Reporter

if TYPE_CHECKING:
    from moyai.images.disk.disk_image import DiskFormat, DiskImage

#: Programs of the host that put root file systems together, and Debian's packages that have them.
_PROGRAMS = {"mmdebstrap": "mmdebstrap", "zstd": "zstd", "setpriv": "util-linux"}
_ARCHIVE = "archive"

FORMAT = click.option(
    "--format",
    "form",
    type=click.Choice(["qcow2", "raw"]),
    default="qcow2",
    show_default=True,
    help="How the disk is written.",
)
KUBERNETES = click.option(
    "--kubernetes", "version", default=DEFAULT_KUBERNETES_VERSION, show_default=True, help="The version inside."
)


@click.command()
@click.option(
    "--format",
    "form",
    type=click.Choice(["qcow2", "raw", _ARCHIVE]),
    default="qcow2",
    show_default=True,
    help="A disk that boots on a hypervisor, or the archive that the local cloud's machines are made from.",
)
@KUBERNETES
@click.option(
    "--to",
    type=click.Path(exists=True, file_okay=False, writable=True, path_type=Path),
    default=Path(),
    help="Folder that the image is put into.  [default: here]",
)
@OUTPUT
def build(form: str, *, version: str, to: Path, output: str) -> None:
    """Make the node image as a file: Debian, Kubernetes, and all container images of a cluster.

    Its name ends with a digest of its content. The same inputs give the same bytes. Needs root; a repetition needs no network.
    """
    with reporter(cast(OutputFormat, output), title="image build") as progress:
        if form == _ARCHIVE:
            archive = _archive(version, progress)
            made = to / f"{node_image(archive.version)}-{archive.key}.tar.zst"
            copy(archive.path, made)
            told: dict[str, Any] = {"file": str(made), "format": _ARCHIVE, "kubernetes": archive.version, "key": archive.key}
        else:
            from moyai.images.disk.disk_image import name_of

            disk = ensure_disk(version, form=cast("DiskFormat", form), reporter=progress)
            made = to / name_of(disk)
            copy(disk.path, made)
            told = {"file": str(made), "format": form, "kubernetes": disk.facts.version, "sha256_of_raw": disk.facts.digest}
            told |= {"min_disk_gib": disk.facts.min_disk, "min_ram_mib": disk.facts.min_ram}
    say(json.dumps(told) if output == "json" else str(made))


def ensure_disk(version: str, *, form: DiskFormat, reporter: Reporter) -> DiskImage:
    """The disk image with this version of Kubernetes, made with all that it needs. UsageError for what the user can change."""
    from moyai.images.disk import disk_image

    result: DiskImage = _run(version, reporter, of=form)[disk_image.DISK]
    return result


def _archive(version: str, reporter: Reporter) -> Any:
    from moyai.images.node_image import NODE

    return _run(version, reporter, of=_ARCHIVE)[NODE]


def _run(version: str, reporter: Reporter, *, of: Literal["qcow2", "raw", "archive"]) -> dict[str, Any]:
    # imported here: `moyai image list` needs none of it
    from moyai.cli.prepare import kubernetes_component
    from moyai.images import node_image as archive
    from moyai.images.disk import disk_image
    from moyai.toolchain import Toolchain

    paths = default_paths()
    toolchain = Toolchain(paths, reporter)
    kubernetes = kubernetes_component(toolchain, version)
    check_host()
    graph = [*toolchain.tasks(archive.components(kubernetes)), *archive.tasks(paths, kubernetes=kubernetes)]
    if of != _ARCHIVE:
        graph += disk_image.tasks(paths, form=of)
    return dict(run_graph(graph, reporter, workers=len(graph)))


def check_host() -> None:
    """Raises UsageError, in one line, for what building a root file system needs and this host lacks."""
    if os.geteuid() != 0:
        raise UsageError("building a node image needs root: its files belong to many users", hint="run it with sudo")
    if missing := sorted({package for program, package in _PROGRAMS.items() if not shutil.which(program)}):
        names = " ".join(missing)
        raise UsageError(f"building a node image needs Debian's {names}", hint=f"apt-get install {names}")


def copy(source: Path, target: Path) -> None:
    """A file under another name, whole or not at all; its holes stay. One of that name has the same content."""
    from moyai.linux.process import run

    if target.exists():
        return
    beside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        run(["cp", "--sparse=always", "--reflink=auto", source, beside])
        rename_durably(beside, target)
    finally:
        beside.unlink(missing_ok=True)
