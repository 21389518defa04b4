"""Text of others for a terminal: names from a cloud, keys of a file, messages and logs of programs.

A control character in such text could clear the screen, change the title, or hide a part of a line. It is shown by its number.
"""

from __future__ import annotations

import unicodedata

#: Control characters, marks that change the direction of writing, halves of characters, and what ends a line or a paragraph.
_ESCAPED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def printable(text: str, keep: str = "") -> str:
    r"""``text`` with each character that a terminal may obey written as ``\x1b`` or ``\u202e``; those of ``keep`` stay."""
    if text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in _ESCAPED and character not in keep
        else character
        for character in text
    )
