"""The one kind of table that users see on standard output: plain columns, two spaces between them, a head in capitals.

No colour and no wrapping, on a terminal or not: what a program reads from a pipe is what a person sees.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from moyai.cli.terminal import say
from moyai.core.printable import printable


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]], *, right: Collection[str] = ()) -> None:
    """Print ``rows`` below ``head``. Columns whose heads are in ``right`` are aligned to the right (numbers)."""
    for line in lines(head, rows, right=right):
        say(line)


def lines(head: Sequence[str], rows: Iterable[Sequence[str]], *, right: Collection[str] = ()) -> list[str]:
    """The table's lines, without spaces at their ends."""
    table = [tuple(head), *(tuple(map(printable, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    columns = list(zip(head, widths, strict=True))
    return [
        "  ".join(
            cell.rjust(width) if title in right else cell.ljust(width)
            for cell, (title, width) in zip(row, columns, strict=True)
        ).rstrip()
        for row in table
    ]
