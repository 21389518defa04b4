"""What the kept results look like: the reference page, and the files that the conformance programme of Kubernetes asks for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from xml.etree import ElementTree

from tests.conformance.parts import Part
from tests.conformance.results import Expected, Kept, Result, judge

_SUITE = "Kubernetes e2e suite"
_SUMMARY = re.compile(r"Of the \d+ `\[Conformance\]` tests of Kubernetes [\d.]+, \d+ have a result: \d+ passed")
PAGE_HEAD = """<!-- Written by `python -m tests.conformance --write` from docs/reference/conformance/results.json. -->

# Conformance

Kubernetes' own end-to-end tests run against a cluster that moyai built. This page has the latest result of each part.
[How to run Kubernetes' own tests](../how-to/conformance.md) describes the commands, and
[results.json](conformance/results.json) has the result of each test.
"""


def page(kept: Kept, parts: Sequence[Part], *, expected: Sequence[Expected]) -> str:
    """The text of docs/reference/conformance.md."""
    sections = [
        PAGE_HEAD,
        "## Versions\n\n" + _table(("part", "version"), [*kept.versions.items(), ("moyai, commits", _commits(kept.results))]),
        "## Parts\n\n" + _parts(kept, parts, expected=expected),
        "## Tests that did not pass\n\n" + _failures(kept, expected),
        "## Tests that are expected not to pass\n\n" + _expected(kept, expected),
        "## Tests that skipped themselves\n\n" + _skips(kept.results),
    ]
    return "\n".join(sections)


def summary(kept: Kept) -> str:
    """One sentence for the README."""
    names = {name for part in ("quick", "conformance", "serial") for name in kept.totals.get(part, ())}
    found = [one for one in kept.results if one.suite == "conformance" and one.name in names]
    passed = sum(one.state == "passed" for one in found)
    tests = f"{len(names)} `[Conformance]` tests of Kubernetes {kept.versions['kubernetes']}"
    return f"Of the {tests}, {len(found)} have a result: {passed} passed"


def with_summary(text: str, kept: Kept) -> str:
    """The README's text with the summary of these results. Raises ValueError where it has none."""
    changed, count = _SUMMARY.subn(lambda _: summary(kept), text)
    if count != 1:
        raise ValueError(f"README.md has {count} sentences like {summary(kept)!r}, should be one")
    return changed


def _parts(kept: Kept, parts: Sequence[Part], *, expected: Sequence[Expected]) -> str:
    left_out = {(one.suite, one.name) for one in expected if one.without}
    rows: list[tuple[str, ...]] = []
    for part in parts:
        names = set(kept.totals.get(part.name, ()))
        found = [one for one in kept.results if one.suite == part.suite and one.name in names]
        states = Counter(one.state for one in found)
        known = len([name for name in names if (part.suite, name) in left_out and name not in {one.name for one in found}])
        counts = (len(names), states["passed"], states["failed"], states["skipped"], known, len(names) - len(found) - known)
        seconds = sum(one.seconds for one in found)
        rows.append((f"`{part.name}`", part.title, *(str(count) if names else "–" for count in counts), f"{seconds:,.0f} s"))
    head = ("part", "tests", "all", "passed", "failed", "skipped", "left out", "not run", "time of the tests")
    legend = (
        "\nThe tests of `quick` belong to `conformance` as well. `left out`: tests that this host cannot run, with the reason"
        " below.\n`not run`: tests without a result. `time of the tests` is the sum; tests run beside each other.\n"
    )
    return _table(head, rows) + legend


def _failures(kept: Kept, expected: Sequence[Expected]) -> str:
    verdict = judge(kept.results, expected)
    rows = [(one.suite, one.name, _cell(one.said)) for one in verdict.wrong]
    text = (
        _table(("suite", "test", "message"), rows) if rows else "Each test that ran and did not pass is in the next section.\n"
    )
    unsteady = [(one.suite, one.name, str(one.failures)) for one in kept.results if one.state == "passed" and one.failures]
    if unsteady:
        text += "\nThese tests passed, but failed before:\n\n" + _table(("suite", "test", "failed runs"), unsteady)
    if verdict.surprising:
        text += "\nThese tests passed although they are expected not to:\n\n"
        text += _table(("suite", "test"), [(one.suite, one.name) for one in verdict.surprising])
    return text


def _expected(kept: Kept, expected: Sequence[Expected]) -> str:
    states = {(one.suite, one.name): one.state for one in kept.results}
    rows = [
        (one.suite, one.name, states.get((one.suite, one.name), "left out" if one.without else "not run"), _cell(one.reason))
        for one in expected
    ]
    return _table(("suite", "test", "result", "reason"), rows) if rows else "There are none.\n"


def _skips(results: Iterable[Result]) -> str:
    counts = Counter((one.suite, _cell(one.said)) for one in results if one.state == "skipped")
    rows = [(suite, reason, str(count)) for (suite, reason), count in sorted(counts.items())]
    return _table(("suite", "reason", "tests"), rows) if rows else "There are none.\n"


def _commits(results: Iterable[Result]) -> str:
    return ", ".join(sorted({one.commit for one in results if one.commit}))


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join('---' for _ in head)} |"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"


def junit(results: Iterable[Result]) -> str:
    """The text of junit_01.xml: the tests of `[Conformance]`, in ginkgo's form."""
    found = sorted(one for one in results if one.suite == "conformance")
    states = Counter(one.state for one in found)
    suite = ElementTree.Element(
        "testsuite",
        name=_SUITE,
        tests=str(len(found)),
        failures=str(states["failed"]),
        skipped=str(states["skipped"]),
        time=f"{sum(one.seconds for one in found):.3f}",
    )
    for one in found:
        case = ElementTree.SubElement(
            suite, "testcase", name=f"[It] {one.name}", classname=_SUITE, status=one.state, time=f"{one.seconds:.3f}"
        )
        if one.state != "passed":
            ElementTree.SubElement(case, "failure" if one.state == "failed" else "skipped", message=_printable(one.said))
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _printable(text: str) -> str:
    # a test's message may hold control characters, which XML cannot
    return "".join(char if char.isprintable() else "�" for char in text)


def product(version: str) -> str:
    """The text of PRODUCT.yaml. The addresses are for the person who submits the result."""
    return f"""vendor: moyai
name: moyai
version: v{version}
website_url:
repo_url:
documentation_url:
product_logo_url:
type: installer
description: Builds Kubernetes clusters on OpenStack, and starts a local OpenStack itself.
contact_email_address:
"""


def readme(kubernetes: str) -> str:
    """The text of the README.md that goes with the results."""
    return f"""# Conformance of moyai with Kubernetes v{kubernetes}

The results come from a clone of moyai on Debian 12 or 13, as root:

    make conformance CONFORMANCE="--part quick --part conformance --part serial"

The command builds Kubernetes' own tests from the pinned Go module. It builds the cluster of tests/conformance/cluster.yaml on a
local OpenStack, runs the tests, and writes e2e.log, junit_01.xml and PRODUCT.yaml into its results folder.
"""
