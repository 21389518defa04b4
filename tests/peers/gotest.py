"""What a Go test program printed (``-test.v``), read as results. Pure.

Every test that the program lists has a result: a test without a closing line was cut off, by a crash or by the time limit.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

State = Literal["passed", "failed", "skipped", "cut off"]

_BEGIN = re.compile(r"=== (?:RUN|CONT|NAME)\s+(\S+)")
#: Only tests, no parts of them (those are indented).
_END = re.compile(r"--- (PASS|FAIL|SKIP): (\S+) \(([\d.]+)s\)")
_STATES: dict[str, State] = {"PASS": "passed", "FAIL": "failed", "SKIP": "skipped"}
_LOGGED = re.compile(r"\s*(\S+\.go:\d+: )?(.*)")


@dataclass(frozen=True)
class Result:
    """``test``: package and name, as ``compute/v2 TestServersList``. ``said``: the last words of a test that did not pass."""

    test: str
    state: State
    seconds: float = 0.0
    said: str = ""


def read(output: str, *, package: str, listed: Sequence[str]) -> list[Result]:
    """The results of ``listed``, the names that the program lists, in that order."""
    said: dict[str, list[str]] = {}
    ended: dict[str, tuple[State, float]] = {}
    current = ""
    for line in output.splitlines():
        if begun := _BEGIN.match(line):
            current = begun.group(1).partition("/")[0]
        elif end := _END.match(line):
            # the test that ended first is not always the test that spoke last: its name counts
            current = end.group(2)
            ended[current] = _STATES[end.group(1)], float(end.group(3))
        elif current and line.strip() and not line.startswith(("PASS", "FAIL", "ok ")):
            said.setdefault(current, []).append(line)
    return [_result(package, name, ended.get(name), said.get(name, ())) for name in listed]


def _result(package: str, name: str, end: tuple[State, float] | None, lines: Sequence[str]) -> Result:
    state, seconds = end or ("cut off", 0.0)
    return Result(f"{package} {name}", state, seconds, "" if state == "passed" else last_words(lines))


def last_words(lines: Sequence[str], limit: int = 400) -> str:
    """The end of what a test said, from its last place in the source on, without folders."""
    kept: list[str] = []
    for line in reversed(lines):
        found = _LOGGED.fullmatch(line)
        assert found
        kept.append(found.group(2).strip())
        if found.group(1):
            break
    return " ".join(reversed(kept))[-limit:]
