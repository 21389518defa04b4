"""YAML that others wrote, read into plain data: lists, mappings, text, numbers, truth values and nothing else.

Always holds: whatever the text, the answer or a ``YamlError`` comes in time that grows with the length of the text; what is
returned is no larger and no deeper than the limits say, with every alias counted as often as it is used. Values mean what they
mean to Kubernetes (sigs.k8s.io/yaml: YAML 1.1 without numbers to base 60, dates are text), so that a spec and the manifests
beside it are read alike; but ``y``, ``n`` and ``1e3`` are text, as in most versions and readers of YAML. The parser's events
are read one by one, by libyaml where PyYAML has it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import yaml

from moyai.core.printable import printable

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_CORE_TAG = "tag:yaml.org,2002:"
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
}
_NO_NUMBER = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+")
_INTEGER = re.compile(r"[-+]?(0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO][0-7]+|[0-9]+)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?")
#: Longer text is no number: a number of 64 bits has 64 binary digits at most.
_LONGEST_NUMBER = 70
#: The parser compares each directive with all before it.
_DIRECTIVE = re.compile(r"(?:^|[\r\n\x85\u2028\u2029])%")
_MOST_DIRECTIVES = 100
#: Stands for the key ``<<``, whose value is merged into the mapping.
_MERGE = object()


@dataclass(frozen=True)
class Limits:
    """``values``: scalars, lists and mappings in all. ``strict``: a key that stands twice, a tag that means more than plain
    data, and a number that can be read in two ways are errors, rather than what most readers make of them."""

    values: int = 1_000_000
    depth: int = 100
    strict: bool = False


class YamlError(ValueError):
    """``problem``: what is wrong, in one line. ``line`` and ``column`` count from 1; 0 where they are not known."""

    def __init__(self, problem: str, *, line: int = 0, column: int = 0) -> None:
        super().__init__(problem)
        self.problem, self.line, self.column = problem, line, column

    @property
    def where(self) -> str:
        """``:LINE:COLUMN``, to be put behind the file's name."""
        return f":{self.line}:{self.column}" if self.line else ""


def read(text: str, limits: Limits | None = None) -> list[Any]:
    """The documents in ``text``. Raises YamlError."""
    reader = _DocumentReader(limits or Limits())
    if len(_DIRECTIVE.findall(text)) > _MOST_DIRECTIVES:
        raise YamlError(f"more than {_MOST_DIRECTIVES} directives (lines that begin with %)")
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            reader.take(event)
    except yaml.MarkedYAMLError as error:
        problem = f"not valid YAML: {' '.join((error.problem or 'cannot be read').split())}"
        raise _error(problem, error.problem_mark or error.context_mark) from None
    except (yaml.YAMLError, UnicodeError) as error:
        reason = getattr(error, "reason", None) or str(error)
        raise YamlError(f"not valid YAML: {' '.join(str(reason).split())[:200]}") from None
    return reader.documents


def read_one(text: str, limits: Limits | None = None) -> Any:
    """The only document in ``text``; None where there is none. Raises YamlError."""
    documents = read(text, limits)
    if len(documents) > 1:
        raise YamlError(f"{len(documents)} documents, should be one")
    return documents[0] if documents else None


@dataclass
class _OpenCollection:
    """A list or mapping that is being read. ``size`` and ``height``: of what it holds so far, with itself."""

    mark: Any
    anchor: str | None
    content: list[Any] | dict[Any, Any]
    size: int = 1
    height: int = 1
    key: Any = None
    has_key: bool = False
    merged: list[Any] = field(default_factory=list[Any])


class _DocumentReader:
    def __init__(self, limits: Limits) -> None:
        self.documents: list[Any] = []
        self._limits = limits
        self._open: list[_OpenCollection] = []
        #: Anchor → value, size, height.
        self._anchors: dict[str, tuple[Any, int, int]] = {}

    def take(self, event: Any) -> None:
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event)
            self._keep(event.anchor, value, size=1, height=0)
            self._place(value, event.start_mark, size=1, height=0)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._start(event)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._end()
        elif isinstance(event, yaml.AliasEvent):
            name = cast("str", event.anchor)
            if any(one.anchor == name for one in self._open):
                raise _error(f"alias {name!r} within the value that it stands for", event.start_mark)
            if name not in self._anchors:
                raise _error(f"alias {name!r} stands for nothing that was read before", event.start_mark)
            value, size, height = self._anchors[name]
            self._place(value, event.start_mark, size=size, height=height)
        elif isinstance(event, yaml.DocumentStartEvent):
            self._anchors.clear()

    def _start(self, event: Any) -> None:
        tag = event.tag
        is_list = isinstance(event, yaml.SequenceStartEvent)
        if self._limits.strict and tag not in (None, "!", _CORE_TAG + ("seq" if is_list else "map")):
            raise _error(f"tag {_shown(tag)}, should be left out", event.start_mark)
        content: list[Any] | dict[Any, Any] = [] if is_list else {}
        self._open.append(_OpenCollection(event.start_mark, event.anchor, content))
        if len(self._open) > self._limits.depth:
            raise self._too_deep(event.start_mark)

    def _end(self) -> None:
        done = self._open.pop()
        if isinstance(done.content, dict):
            for mapping in done.merged:
                for key, value in _mappings(mapping, done.mark):
                    done.content.setdefault(key, value)
        self._keep(done.anchor, done.content, size=done.size, height=done.height)
        self._place(done.content, done.mark, size=done.size, height=done.height)

    def _keep(self, anchor: str | None, value: Any, *, size: int, height: int) -> None:
        if anchor is not None:
            self._anchors[anchor] = (value, size, height)

    def _place(self, value: Any, mark: Any, *, size: int, height: int) -> None:
        if not self._open:
            self.documents.append(value)
            return
        parent = self._open[-1]
        parent.size += size
        parent.height = max(parent.height, height + 1)
        if parent.size > self._limits.values:
            raise _error(f"more than {self._limits.values} values (an alias counts as often as it is used)", mark)
        if len(self._open) + height > self._limits.depth:
            raise self._too_deep(mark)
        self._put(parent, value, mark=mark)

    def _put(self, parent: _OpenCollection, value: Any, *, mark: Any) -> None:
        content = parent.content
        if isinstance(content, list):
            content.append(value)
        elif not parent.has_key:
            if isinstance(value, list | dict):
                raise _error("a key that is a list or a mapping, should be text", mark)
            if self._limits.strict and value is not _MERGE and value in content:
                raise _error(f"{value!r} stands twice", mark)
            parent.key, parent.has_key = value, True
        else:
            if parent.key is _MERGE:
                parent.merged.append(value)
            else:
                content[parent.key] = value
            parent.has_key = False

    def _too_deep(self, mark: Any) -> YamlError:
        return _error(f"nested more than {self._limits.depth} deep", mark)

    def _scalar(self, event: Any) -> Any:
        text, tag = cast("str", event.value), cast("str | None", event.tag)
        if tag is None or tag == "!":
            # quotes, and the tag "!", make text of everything
            plain = tag is None and event.implicit[0]
            if plain and text == "<<" and event.anchor is None and self._expects_key():
                return _MERGE
            return self._resolved(text, event.start_mark) if plain else text
        kind = tag.removeprefix(_CORE_TAG) if tag.startswith(_CORE_TAG) else ""
        if kind in ("str", "timestamp"):
            return text
        if kind not in _KINDS:
            if self._limits.strict:
                raise _error(f"tag {_shown(tag)}, should be left out", event.start_mark)
            return text
        value = self._resolved(text, event.start_mark)
        if kind == "float" and type(value) is int:
            return float(value)
        if type(value) is not _KINDS[kind]:
            if self._limits.strict:
                raise _error(f"{_short(text)} with tag {_shown(tag)}, should be without the tag", event.start_mark)
            return text
        return value

    def _expects_key(self) -> bool:
        return bool(self._open) and isinstance(self._open[-1].content, dict) and not self._open[-1].has_key

    def _resolved(self, text: str, mark: Any) -> Any:
        """What unquoted text stands for."""
        if text in _WORDS:
            return _WORDS[text]
        if text[0] not in "+-.0123456789":
            return text
        value, problem = _number(text)
        if problem and self._limits.strict:
            raise _error(problem, mark)
        return value


_KINDS: dict[str, type] = {"int": int, "float": float, "bool": bool, "null": type(None)}


def _number(text: str) -> tuple[Any, str]:
    """(the number, or the text where it is none; what is wrong with it, empty for nothing)."""
    if _NO_NUMBER.fullmatch(text):
        return text, f"{text}, should be a number, or text in quotes"
    plain = text.replace("_", "")
    if _LEADING_ZERO.fullmatch(plain):
        return text, f"{_short(text)} begins with 0 and can be read to base 8 or 10, should be without the 0, or text in quotes"
    if _INTEGER.fullmatch(plain):
        number = int(plain, 0) if len(plain) <= _LONGEST_NUMBER else 1 << 64
        if -(1 << 63) <= number < 1 << 64:
            return number, ""
        return text, f"{_short(text)} is a number of more than 64 bits, should be smaller, or text in quotes"
    # another character between digits makes a date, an address or a version of it
    if _FLOAT.fullmatch(plain):
        number = float(plain)
        return (number, "") if math.isfinite(number) else (text, "")
    return text, ""


def _mappings(merged: Any, mark: Any) -> Iterator[tuple[Any, Any]]:
    """The entries that ``<<`` brings in: of a mapping, or of a list of them."""
    for one in cast("list[Any]", merged) if isinstance(merged, list) else [merged]:
        if not isinstance(one, dict):
            raise _error("the value of << should be a mapping, or a list of mappings", mark)
        yield from cast("dict[Any, Any]", one).items()


def _error(problem: str, mark: Any) -> YamlError:
    return YamlError(problem, line=mark.line + 1, column=mark.column + 1) if mark else YamlError(problem)


def _shown(tag: str) -> str:
    return _short("!!" + tag.removeprefix(_CORE_TAG) if tag.startswith(_CORE_TAG) else tag)


def _short(text: str) -> str:
    return printable(text if len(text) <= 40 else f"{text[:40]}…")
