"""Results of tests: kept one line each as they come, and compared with what is expected. All is pure but the store.

The store is a file to which lines are only added. A killed run leaves at most half a line at its end, which counts for nothing.
The latest result of a test counts; how often it did not pass before is kept, as a test that passes the second time is no proof.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conformance.log import Outcome, State


@dataclass(frozen=True, order=True)
class Result:
    """The latest outcome of a test. ``commit``: of moyai. ``failures``: how often the test failed before."""

    suite: str
    name: str
    state: State
    seconds: float = 0.0
    said: str = ""
    commit: str = ""
    failures: int = 0


@dataclass(frozen=True)
class Expected:
    """A test that cannot pass in this environment, and the reason.

    ``without``: only where the host lacks this capability of Linux (``CAP_SYS_RESOURCE``) or this protocol (``SCTP``); the test
    is not run then.
    """

    suite: str
    name: str
    reason: str
    without: str = ""


@dataclass(frozen=True)
class Verdict:
    """``wrong``: what did not pass and is not expected. ``surprising``: what passed although it is expected not to."""

    wrong: Sequence[Result]
    surprising: Sequence[Result]


@dataclass(frozen=True)
class Kept:
    """What the repository keeps of the last results. ``versions``: name → version. ``totals``: part → names of its tests."""

    versions: Mapping[str, str]
    totals: Mapping[str, Collection[str]]
    results: Sequence[Result] = field(default=())


class Store:
    """The file with all results, one JSON object in a line."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def add(self, suite: str, outcome: Outcome, *, commit: str) -> None:
        line = json.dumps({"suite": suite, **dataclasses.asdict(outcome), "commit": commit}, ensure_ascii=False)
        self._append(line)

    def reset(self, suite: str, names: Iterable[str]) -> None:
        """Forget these tests, so that they run again as if for the first time."""
        self._mark("reset", suite, names=names)

    def retry(self, suite: str, names: Iterable[str]) -> None:
        """Have these tests run again; that they failed stays known."""
        self._mark("retry", suite, names=names)

    def load(self) -> list[Result]:
        return read_lines(self._file.read_text().splitlines()) if self._file.exists() else []

    def _mark(self, state: str, suite: str, *, names: Iterable[str]) -> None:
        for name in names:
            self._append(json.dumps({"suite": suite, "name": name, "state": state}))

    def _append(self, line: str) -> None:
        whole = not self._file.exists() or self._file.read_bytes()[-1:] in (b"", b"\n")
        with self._file.open("a") as file:
            file.write(f"{'' if whole else chr(10)}{line}\n")


def read_lines(lines: Iterable[str]) -> list[Result]:
    """The latest result of each test, in order of suite and name."""
    found: dict[tuple[str, str], Result] = {}
    failures: Counter[tuple[str, str]] = Counter()
    for line in lines:
        try:
            one: dict[str, Any] = json.loads(line)
        except ValueError:  # the half line of a killed run
            continue
        key = (one["suite"], one["name"])
        if one["state"] in ("reset", "retry"):
            found.pop(key, None)
            if one["state"] == "reset":
                failures.pop(key, None)
            continue
        found[key] = Result(**one, failures=failures[key])
        failures[key] += one["state"] == "failed"
    return sorted(found.values())


def merged(older: Iterable[Result], newer: Iterable[Result]) -> list[Result]:
    """The results of ``newer``, and of ``older`` those of tests that ``newer`` does not have."""
    return sorted(({(one.suite, one.name): one for one in older} | {(one.suite, one.name): one for one in newer}).values())


def read_expected(text: str, *, lacks: Callable[[str], bool]) -> list[Expected]:
    """The tests that are not expected to pass on this host (TOML, tables ``[[expected]]``).

    ``lacks``: whether the host lacks a capability of Linux.
    """
    found = [
        Expected(one["suite"], one["test"], one["reason"], one.get("without", ""))
        for one in tomllib.loads(text).get("expected", [])
    ]
    return [one for one in found if not one.without or lacks(one.without)]


def judge(results: Iterable[Result], expected: Iterable[Expected]) -> Verdict:
    """Which results are neither good nor expected, and which expected failures passed."""
    known = {(one.suite, one.name) for one in expected}
    found = list(results)
    return Verdict(
        wrong=[one for one in found if not _good(one) and (one.suite, one.name) not in known],
        surprising=[one for one in found if one.state == "passed" and (one.suite, one.name) in known],
    )


def _good(result: Result) -> bool:
    # a conformance test may not be skipped; elsewhere a test skips itself where a driver does not claim what it tests
    return result.state == "passed" or (result.state == "skipped" and result.suite != "conformance")


def to_json(kept: Kept) -> str:
    """The text of the repository's file: a line for each test, so that a change of one shows as one."""
    rows = [
        json.dumps({name: value for name, value in dataclasses.asdict(one).items() if value not in ("", 0)}, ensure_ascii=False)
        for one in sorted(kept.results)
    ]
    totals = [f"    {json.dumps(name)}: {json.dumps(sorted(names), ensure_ascii=False)}" for name, names in kept.totals.items()]
    return (
        f'{{\n  "versions": {json.dumps(dict(kept.versions), ensure_ascii=False)},\n'
        + '  "totals": {\n'
        + ",\n".join(totals)
        + '\n  },\n  "results": [\n    '
        + ",\n    ".join(rows)
        + "\n  ]\n}\n"
    )


def from_json(text: str) -> Kept:
    data: dict[str, Any] = json.loads(text)
    rows: list[dict[str, Any]] = data["results"]
    return Kept(data["versions"], data["totals"], [Result(**row) for row in rows])
