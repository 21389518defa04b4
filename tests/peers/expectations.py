"""Which acceptance tests are expected not to pass, and why, compared with what happened. Pure but for reading the file.

The list is exact in both directions: a test that fails without being in it is a fault, and so is an entry whose test passes.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from tests.peers.gotest import Result

FILE = Path(__file__).with_name("expected.toml")


@dataclass(frozen=True)
class Expected:
    """``failed``, ``skipped``: test → reason. ``absent``: package that is not run → reason."""

    failed: Mapping[str, str]
    skipped: Mapping[str, str]
    absent: Mapping[str, str]

    def reason(self, test: str) -> str:
        return self.failed.get(test) or self.skipped.get(test, "")


def load(file: Path = FILE) -> Expected:
    return parse(file.read_text())


def parse(text: str) -> Expected:
    """Tables of reasons: ``[failed]``, ``[skipped]`` and ``[absent]``. ValueError for a wrong table, name or reason.

    A reason serves several tests where its key is a name of ``[reasons]``.
    """
    tables = cast("dict[str, dict[str, Any]]", tomllib.loads(text))
    if wrong := set(tables) - {"reasons", "failed", "skipped", "absent"}:
        raise ValueError(f"expected.toml: no table is called {', '.join(sorted(wrong))}")
    reasons = tables.pop("reasons", {})
    read: dict[str, dict[str, str]] = {}
    for table, entries in tables.items():
        for name, said in entries.items():
            if not isinstance(said, str) or not said.strip():
                raise ValueError(f"expected.toml: {table}: {name} needs a reason")
            if (table != "absent") != (" Test" in name):
                raise ValueError(f"expected.toml: {table}: {name!r} is not of the form {_form(table)}")
        read[table] = {name: reasons.get(said, said) for name, said in entries.items()}
    used = {said for entries in tables.values() for said in entries.values()}
    if unused := set(reasons) - used:
        raise ValueError(f"expected.toml: nothing has the reason {', '.join(sorted(unused))}")
    if twice := set(read.get("failed", {})) & set(read.get("skipped", {})):
        raise ValueError(f"expected.toml: failed and skipped at once: {', '.join(sorted(twice))}")
    return Expected(read.get("failed", {}), read.get("skipped", {}), read.get("absent", {}))


def _form(table: str) -> str:
    return "`PACKAGE`" if table == "absent" else "`PACKAGE TestNAME`"


def problems(results: Sequence[Result], expected: Expected, *, packages: Iterable[str]) -> list[str]:
    """One line for each result that the list does not have, and for each entry that nothing bears out.

    ``packages``: those that ran; entries of others are not looked at.
    """
    found: list[str] = []
    for one in results:
        if one.state == "passed":
            if one.test in expected.failed or one.test in expected.skipped:
                found.append(f"{one.test} passes: take it off the list")
            continue
        table = expected.skipped if one.state == "skipped" else expected.failed
        if one.test not in table:
            found.append(f"{one.test} {one.state}: {one.said}")
    seen = {one.test for one in results}
    ran = set(packages)
    listed = (test for test in (*expected.failed, *expected.skipped) if test.split()[0] in ran)
    return found + [f"{test} is on the list, but there is no such test" for test in listed if test not in seen]
