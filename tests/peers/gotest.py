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
#: Where a test says why it failed, before it tells what it cleans up.
_FAILURE = re.compile(r"Failure in |Unable to |panic: ")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


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
    return [_result(package, name, end=ended.get(name), lines=said.get(name, ())) for name in listed]


def _result(package: str, name: str, *, end: tuple[State, float] | None, lines: Sequence[str]) -> Result:
    state, seconds = end or ("cut off", 0.0)
    return Result(f"{package} {name}", state, seconds, "" if state == "passed" else last_words(lines))


def last_words(lines: Sequence[str], limit: int = 400) -> str:
    """Why a test failed: its last line that says so, or else the end of what it said, without colours and places."""
    plain = [_COLOURS.sub("", line) for line in lines]
    begin = next((n for n in reversed(range(len(plain))) if _FAILURE.search(plain[n])), None)
    if begin is None:
        begin = next((n for n in reversed(range(len(plain))) if _place(plain[n])), 0)
    end = next((n for n in range(begin + 1, len(plain)) if _place(plain[n])), len(plain))
    return " ".join(_words(line) for line in plain[begin:end])[:limit].strip()


def _place(line: str) -> bool:
    found = _LOGGED.fullmatch(line)
    return bool(found and found.group(1))


def _words(line: str) -> str:
    found = _LOGGED.fullmatch(line)
    assert found
    return found.group(2).strip()
