"""A document whose values know their file: what specs are merged as, so that each message can name the file of a value."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from moyai.core.printable import printable

Location = tuple[str | int, ...]
_OPERATOR_NAME = re.compile(r"[a-z_0-9-]+")


@dataclass(frozen=True)
class Tree:
    """``value``: a mapping of names to trees, a list of trees, or a scalar. ``source``: the file that it came from.

    ``pruned``: it is left out in the end, and others may take their values from it until then.
    """

    value: Mapping[Any, Tree] | Sequence[Tree] | str | float | bool | None
    source: str
    pruned: bool = False

    @property
    def mapping(self) -> Mapping[Any, Tree] | None:
        return cast("Mapping[Any, Tree]", self.value) if isinstance(self.value, dict) else None

    @property
    def items(self) -> Sequence[Tree] | None:
        return cast("Sequence[Tree]", self.value) if isinstance(self.value, list) else None

    @property
    def text(self) -> str:
        """Of a scalar that is text; else empty."""
        return self.value if isinstance(self.value, str) else ""

    @property
    def operator(self) -> tuple[str, str] | None:
        """``(( NAME ARGUMENT ))`` as name and argument; None where the value is no operator."""
        text = self.text
        if len(text) < 4 or not text.startswith("((") or not text.endswith("))"):
            return None
        # by hand: a pattern with blanks at three places takes cubic time for text that is mostly blank
        inside = text[2:-2].strip()
        name = _OPERATOR_NAME.match(inside)
        if name is None or not (name.end() == len(inside) or inside[name.end()].isspace()):
            return None
        return name[0], inside[name.end() :].strip()

    def plain(self) -> Any:
        """The same as mappings, lists and scalars."""
        if (mapping := self.mapping) is not None:
            return {key: item.plain() for key, item in mapping.items()}
        if (items := self.items) is not None:
            return [item.plain() for item in items]
        return self.value

    def source_of(self, location: Sequence[str | int]) -> str:
        """The file of the value at ``location``, or of the innermost value on the way to it that there is."""
        found = self
        for part in location:
            following: Tree | None = None
            if found.mapping is not None:
                following = found.mapping.get(part)
            elif found.items is not None and isinstance(part, int) and part < len(found.items):
                following = found.items[part]
            if following is None:
                break
            found = following
        return found.source


def tree_of(document: Any, source: str) -> Tree:
    """A document that was read from one file."""
    if isinstance(document, dict):
        found = cast("dict[Any, Any]", document)
        return Tree({key: tree_of(item, source) for key, item in found.items()}, source)
    if isinstance(document, list):
        return Tree([tree_of(item, source) for item in cast("list[Any]", document)], source)
    return Tree(document, source)


def shown(location: Sequence[str | int]) -> str:
    """``spec.nodePools[0].flavor``."""
    text = ""
    for part in location:
        if isinstance(part, int) and not isinstance(part, bool):
            text += f"[{part}]"
        else:
            # a key of YAML need not be text
            text += ("." if text else "") + printable(str(part))
    return short(text, 200) or "the file"


def short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}…"
