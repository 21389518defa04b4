"""Text of others for a terminal: names from a cloud, keys of a file, messages and logs of programs.

A control character in such text could clear the screen, change the title, or hide a part of a line. It is shown by its number,
and so is every character without a shape of its own.
"""

from __future__ import annotations


def printable(text: str, keep: str = "") -> str:
    r"""``text`` with each character that a terminal may obey written as ``\x1b`` or ``\u202e``; those of ``keep`` stay."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character in keep else character.encode("unicode_escape").decode()
        for character in text
    )
