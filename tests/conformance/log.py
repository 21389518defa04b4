"""What e2e.log says became of each test, read line by line while ginkgo writes it, so that a killed run keeps what had ended.

A test's block, as ginkgo's verbose reporter writes it when several processes run: a line of 30 dashes, the outcome with the
seconds, the name with its labels, all that the test said, and 30 dashes again.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal

State = Literal["passed", "failed", "skipped"]

_DELIMITER = "-" * 30
#: ``• [1.234 seconds]``, ``• [FAILED] [1.2 seconds]``, ``• [SLOW TEST] [9.0 seconds]``, ``S [SKIPPED] [0.1 seconds]``
_OUTCOME = re.compile(r"(?P<mark>[•S])(?: \[(?P<word>[A-Z][A-Z !-]*)\])? \[(?P<seconds>\d+\.\d+) seconds\]")
_LABELS = re.compile(r" \[[^\[\]]*\]$")
#: Where a test failed or was skipped, put into the middle of its name.
_NODE = re.compile(r" ?\[(?:It|BeforeEach|JustBeforeEach|AfterEach|JustAfterEach|DeferCleanup \(Each\))\]")
#: A test that was cut off says nothing about the cluster.
_CUT_OFF = ("INTERRUPTED", "ABORTED")
_LONGEST = 600


@dataclass(frozen=True)
class Outcome:
    """``said``: why the test did not pass, in one line."""

    name: str
    state: State
    seconds: float
    said: str = ""


@dataclass
class LogReader:
    """``names``: of the tests that were asked for, without which a name could not be told from its labels."""

    names: Collection[str]
    _by_text: dict[str, str] = field(default_factory=dict[str, str])
    _outcome: re.Match[str] | None = None
    _name: str | None = None
    _said: list[str] | None = None

    def __post_init__(self) -> None:
        self._by_text = {_plain(name): name for name in self.names}

    def feed(self, line: str) -> Outcome | None:
        """Take the next line; returns the outcome of the test whose block this line ends."""
        line = line.rstrip("\n")
        if self._outcome is None:
            self._outcome = _OUTCOME.fullmatch(line)
            return None
        if self._name is None:
            self._name = self._known(line)
            if self._name is None:  # of the suite itself, as BeforeSuite
                self._outcome = None
            return None
        if line == _DELIMITER:
            return self._end()
        stripped = line.strip()
        if stripped.startswith(("[FAILED] ", "[SKIPPED] ", "[PANICKED] ", "[TIMEDOUT] ")):
            self._said = [stripped.partition("] ")[2]]
        elif self._said is not None and not self._complete:
            self._said.append(stripped)
        return None

    @property
    def _complete(self) -> bool:
        return bool(self._said) and any(said.startswith("In [") for said in self._said or ())

    def _end(self) -> Outcome | None:
        assert self._outcome
        assert self._name
        mark, word, seconds = self._outcome["mark"], self._outcome["word"] or "", float(self._outcome["seconds"])
        name, said = self._name, self._reason()
        self._outcome, self._name, self._said = None, None, None
        if word in _CUT_OFF:
            return None
        if mark == "S":
            return Outcome(name, "skipped", seconds, said)
        if word in ("", "SLOW TEST"):
            return Outcome(name, "passed", seconds)
        return Outcome(name, "failed", seconds, said or word.lower())

    def _reason(self) -> str:
        kept = [line for line in self._said or () if line and not line.startswith(("In [", "[FAILED]"))]
        text = " ".join(kept)
        return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"

    def _known(self, line: str) -> str | None:
        for text in (line, _LABELS.sub("", line)):
            if name := self._by_text.get(_plain(text)):
                return name
        return None


def _plain(name: str) -> str:
    return " ".join(_NODE.sub(" ", name).split())
