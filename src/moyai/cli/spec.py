"""``moyai spec``: a cluster's spec as a file."""

from __future__ import annotations

from pathlib import Path

import click

from moyai.cli.terminal import say


@click.group()
def spec() -> None:
    """A cluster's spec as a file."""


@spec.command()
@click.argument("specs", metavar="SPEC...", nargs=-1, required=True, type=click.Path(path_type=Path))
def merge(specs: tuple[Path, ...]) -> None:
    """Print the spec that several files make together, as `up`, `plan` and `doctor` merge them.

    The files are merged as Spruce does: mappings deep, lists by the name of their items, and by Spruce's operators. The
    result is not checked: `moyai plan` does that.
    """
    from moyai.core import yamltext
    from moyai.spec.load import merged

    say(yamltext.dump(merged(*specs)), end="")
