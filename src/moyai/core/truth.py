"""The words for true and false that are accepted in files and annotations."""

from __future__ import annotations

_WORDS = {
    **dict.fromkeys(("true", "t", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "f", "no", "off", "0"), False),
}


def truth(text: str) -> bool | None:
    """What a word says, in any case of letters; None where it is none of them."""
    return _WORDS.get(text.strip().lower())
