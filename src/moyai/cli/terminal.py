"""The commands' one way to standard output and standard error: nothing that a terminal would obey gets through."""

from __future__ import annotations

from collections.abc import Iterable

import click

from moyai.core.printable import printable


def say(text: str = "", *, err: bool = False, end: str = "\n") -> None:
    """Print ``text``, which may have several lines. ``err``: to standard error."""
    click.echo(printable(text, keep="\n\t") + end, err=err, nl=False)


def say_lines(lines: Iterable[str]) -> None:
    """Print each of ``lines`` as one line, whatever is in it."""
    for line in lines:
        say(printable(line, keep="\t"))
