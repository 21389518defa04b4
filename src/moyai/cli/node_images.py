"""``moyai image build`` and ``upload``: the node image as a file, for the local cloud's machines or for a hypervisor, and
its way into a cloud.

A file of a disk has a description beside it (``NAME.json``), so that it can be carried to another machine and uploaded there by
a person who is not root.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import click

from moyai.cli.display import OutputFormat, reporter
from moyai.cli.terminal import OUTPUT, say
from moyai.core.errors import UsageError
from moyai.core.files import rename_durably, write_private
from moyai.core.graph import run_graph
from moyai.core.ids import node_image
from moyai.core.kubernetes_version import DEFAULT_KUBERNETES_VERSION
from moyai.core.paths import default_paths
from moyai.core.progress import Reporter
from moyai.core.reading import read_mapping

if TYPE_CHECKING:
    from moyai.images.disk.disk_image import DiskFacts, DiskFormat, DiskImage

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
            write_private(description_of(made), json.dumps(asdict(disk.facts), indent=1) + "\n", mode=0o644)
            told = {"file": str(made), "format": form, "kubernetes": disk.facts.version, "sha256_of_raw": disk.facts.digest}
            told |= {"min_disk_gib": disk.facts.min_disk, "min_ram_mib": disk.facts.min_ram}
    say(json.dumps(told) if output == "json" else str(made))


@click.command()
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--cloud", metavar="CLOUD", default="", help="An entry of clouds.yaml.  [default: $OS_CLOUD]")
@FORMAT
@KUBERNETES
@click.option(
    "--firmware",
    type=click.Choice(["bios", "uefi"]),
    help="How machines start.  [default: as the cloud chooses]",
)
@click.option("--remove-unused", is_flag=True, help="Remove older images of this version that no server was made from.")
@OUTPUT
def upload(
    file: Path | None, *, cloud: str, form: str, version: str, firmware: str | None, remove_unused: bool, output: str
) -> None:
    """Bring the node image into a cloud, where `up` looks for it.

    FILE is one that `build` made; without it the image is made first where it is missing. An image with the same content stays
    as it is. Older images stay beside the new one, and are listed. An interrupted upload is done again.
    """
    from moyai.cli.local_way import chosen_cloud, go_past_proxies
    from moyai.cli.prepare import DEFAULT_CLOUD, is_local
    from moyai.cloud.factory import ADAPTERS
    from moyai.cloud.model import BootDisk
    from moyai.images.disk.disk_image import DiskFacts
    from moyai.lifecycle.cloud_image import upload_disk

    cloud = cloud or chosen_cloud() or DEFAULT_CLOUD
    if is_local(cloud, default_paths()):
        hint = "`moyai up` gives it the archive that its machines are made from; --cloud names another one"
        raise UsageError(f"the local cloud {cloud!r} boots no disks", hint=hint)
    facts = _described(file, DiskFacts) if file else None
    with reporter(cast(OutputFormat, output), title="image upload") as progress:
        go_past_proxies(cloud, default_paths())
        connected = ADAPTERS.connect(cloud)
        if file and facts:
            form = file.suffix.removeprefix(".")
        else:
            made = ensure_disk(version, form=cast("DiskFormat", form), reporter=progress)
            file, facts = made.path, made.facts
        disk = BootDisk(
            format=cast("DiskFormat", form),
            release=facts.release,
            min_disk_gib=facts.min_disk,
            min_ram_mib=facts.min_ram,
            agent=facts.agent,
            firmware=cast("Any", firmware or ""),
        )
        with progress.step(f"upload to {cloud}") as step:
            done = upload_disk(
                connected,
                file,
                version=facts.version,
                digest=facts.digest,
                distribution=facts.distribution,
                disk=disk,
                remove_unused=remove_unused,
                progress=step,
            )
    if output == "json":
        told = {"id": done.image.id, "name": done.image.name, "sha256_of_raw": facts.digest, "new": done.new}
        older = {"removed": [one.id for one in done.removed], "older": [one.id for one in done.kept]}
        say(json.dumps(told | older))
        return
    say(f"{done.image.name} {done.image.id} sha256:{facts.digest[:16]}{'' if done.new else ' (was there)'}")
    for one in done.removed:
        say(f"{one.name} {one.id} removed")
    for one in done.kept:
        say(f"{one.name} {one.id} is older, and stays")


def description_of(file: Path) -> Path:
    """Where the description of a disk's file is."""
    return file.with_name(f"{file.name}.json")


def _described(file: Path, kind: type[DiskFacts]) -> DiskFacts:
    """What is written beside a file that ``build`` made. UsageError for a file without that, or another one under its name."""
    told = read_mapping(description_of(file), should="the description that `moyai image build` writes beside a disk")
    try:
        facts = kind(**{str(name): value for name, value in told.items()})
    except TypeError as error:
        raise UsageError(f"{description_of(file)} does not describe a disk: {error}") from error
    if file.suffix not in (".qcow2", ".raw") or str(facts.digest)[:16] not in file.name:
        raise UsageError(f"{file}: should have the name that `moyai image build` gave it")
    return facts


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
