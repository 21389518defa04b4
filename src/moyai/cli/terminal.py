"""The commands' one way to standard output and standard error: nothing that a terminal would obey gets through.

Either may lead to a file on a full disk. A result that is not written is an error; a line of progress that is not written is
none, for the work goes on.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import click

from moyai.core.errors import NoSpace
from moyai.core.files import FULL, no_space
from moyai.core.printable import printable

#: The cluster that a command is about; without it, `cli.cluster` finds which one is meant.
CLUSTER = click.argument("cluster", required=False)
PATH = click.Path(path_type=Path)
#: Of commands that print their result as a table or as JSON.
OUTPUT = click.option(
    "--output", "-o", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Form of the output."
)


class OutputFull(NoSpace):
    """Standard output leads to a file that a full disk does not take."""


def say(text: str = "", *, err: bool = False, end: str = "\n") -> None:
    """Print ``text``, which may have several lines. ``err``: to standard error. Raises OutputFull."""
    try:
        click.echo(printable(text, keep="\n\t") + end, err=err, nl=False)
    except OSError as error:
        if error.errno not in FULL:
            raise
        if not err:
            raise OutputFull(str(no_space(error, "standard output"))) from None


def say_lines(lines: Iterable[str]) -> None:
    """Print each of ``lines`` as one line, whatever is in it."""
    for line in lines:
        say(printable(line, keep="\t"))
