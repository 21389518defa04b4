"""``moyai toolchain``: the pinned upstream components, where they came from, and getting what is missing."""

from __future__ import annotations

import json
from typing import cast

import click

from moyai.cli.display import OutputFormat, reporter
from moyai.cli.tables import print_table
from moyai.cli.terminal import OUTPUT, say
from moyai.core.paths import default_paths
from moyai.core.progress import Reporter
from moyai.toolchain import ListedComponent, Source, Toolchain


@click.group(invoke_without_command=True)
@OUTPUT
@click.pass_context
def toolchain(ctx: click.Context, output: str) -> None:
    """The pinned upstream components: which are installed, and where they came from.

    Without a subcommand: list them. Nothing is fetched or built for that.
    """
    if ctx.invoked_subcommand is None:
        _show(Toolchain(default_paths(), Reporter()).list(), output)


@toolchain.command()
@click.argument("names", nargs=-1)
@click.option(
    "--from",
    "source",
    type=click.Choice(["auto", "release", "modules"]),
    default="auto",
    show_default=True,
    help="Official release files, builds from Go modules, or whichever can be had.",
)
@OUTPUT
def get(names: tuple[str, ...], source: str, *, output: str) -> None:
    """Get those of NAMES, or of all that clusters need, that are missing; installed ones stay as they are."""
    with reporter(cast(OutputFormat, output), title="toolchain") as progress:
        chain = Toolchain(default_paths(), progress, source=cast(Source, source))
        chain.ensure(names or chain.own_names)
    _show([line for line in chain.list() if not names or line.name in names], output)


@toolchain.command()
@OUTPUT
def clean(output: str) -> None:
    """Remove older versions, and the sources and compiled packages that builds left; components stay."""
    removed, freed = Toolchain(default_paths(), Reporter()).clean()
    if output == "json":
        say(json.dumps({"removed": [str(path) for path in removed], "freed_bytes": freed}))
        return
    for path in removed:
        say(f"removed {path}")
    say(f"{_size(freed)} of sources and compiled packages removed")


def _show(lines: list[ListedComponent], output: str) -> None:
    if output == "json":
        say(json.dumps([_as_json(line) for line in lines], indent=2))
        return
    print_table(("NAME", "VERSION", "SIZE", "ORIGIN", "PATH"), map(_row, lines), right={"SIZE"})
    if missing := [line.name for line in lines if line.component is None and not (line.needed_by or line.instead_of)]:
        hint = "`moyai toolchain get` gets them; `moyai up` gets those that it needs."
        say(f"missing: {', '.join(missing)}. {hint}", err=True)


def _row(line: ListedComponent) -> tuple[str, ...]:
    there = line.component
    if there is None:
        return (line.name, line.version, "-", "missing", "-")
    return (line.name, line.version, _size(there.size), there.origin, str(line.folder))


def _as_json(line: ListedComponent) -> dict[str, object]:
    there = line.component
    return {
        "name": line.name,
        "version": line.version,
        "present": there is not None,
        "origin": there.origin if there else None,
        "size_bytes": there.size if there else None,
        "path": str(line.folder) if there else None,
        "files": {name: str(path) for name, path in there.files.items()} if there else {},
    }


def _size(size: int) -> str:
    return f"{size / 1e6:.0f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"
