"""``moyai spec``: a cluster's spec as a file."""

from __future__ import annotations

from pathlib import Path

import click

from moyai.cli.terminal import PATH, say
from moyai.core.printable import printable


@click.group()
def spec() -> None:
    """A cluster's spec as a file."""


@spec.command()
@click.argument("specs", metavar="SPEC...", nargs=-1, required=True, type=PATH)
def merge(specs: tuple[Path, ...]) -> None:
    """Print the spec that several files make together, as `up`, `plan` and `doctor` merge them.

    The files are merged as Spruce does: mappings deep, lists by the name of their items, and by Spruce's operators. The
    result is not checked: `moyai plan` does that.
    """
    from moyai.core import yamltext
    from moyai.spec.load import merged

    say(yamltext.dump(merged(*specs)), end="")


@spec.command("from-capi")
@click.argument("file", type=PATH)
def from_capi(file: Path) -> None:
    """Print the spec of a cluster of Cluster API.

    FILE has the objects of Cluster API's provider for OpenStack: Cluster, OpenStackCluster, KubeadmControlPlane,
    MachineDeployments and OpenStackMachineTemplates (- for standard input). Standard error names each field that has no
    counterpart in moyai. Nothing is asked of a cloud or of a cluster.
    """
    from moyai.core import yamltext
    from moyai.core.errors import UsageError
    from moyai.core.reading import read_yaml
    from moyai.spec.from_capi import from_capi as convert
    from moyai.spec.load import MAX_SIZE

    documents = read_yaml(file, limit=MAX_SIZE, should="objects of Cluster API")
    try:
        found = convert(documents)
    except UsageError as error:
        raise UsageError(f"{file}: {error}") from None
    say(yamltext.dump(found.spec), end="")
    for line in found.left:
        say(printable(f"no counterpart: {line}"), err=True)
