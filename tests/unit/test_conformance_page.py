"""The page about conformance is what the kept results say, and the shipped data is well-formed."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from tests.conformance import page
from tests.conformance.__main__ import KEPT, REFERENCE
from tests.conformance.parts import HERE, parts, quick_names
from tests.conformance.results import Expected, Kept, Result, from_json, read_expected

A, B, C = "[sig-x] a [Conformance]", "[sig-x] b [Conformance]", "External c"
KEPT_RESULTS = Kept(
    {"kubernetes": "1.37.1"},
    {"quick": [A], "conformance": [A, B], "storage-delayed": [C, "External d", "External e"]},
    [
        Result("conformance", A, "passed", 2.0, "", "abc", failures=1),
        Result("conformance", B, "failed", 4.0, "a | b\x07", "abd"),
        Result("storage-delayed", C, "skipped", 0.1, "Driver has no x"),
    ],
)
EXPECTED = [Expected("storage-delayed", "External d", "the kernel", "CAP_SYS_RESOURCE")]


def _text(expected: list[Expected]) -> str:
    return page.page(KEPT_RESULTS, list(parts().values()), expected=expected)


def test_the_page_says_what_ran_and_what_did_not() -> None:
    rows = {
        line.split(" | ")[0].strip("| `"): line.split(" | ")[2:]
        for line in _text(EXPECTED).splitlines()
        if line.startswith("| `")
    }
    assert rows["conformance"] == ["2", "1", "1", "0", "0", "0", "6 s |"]
    assert rows["storage-delayed"] == ["3", "0", "0", "1", "1", "1", "0 s |"]
    assert rows["serial"] == ["–"] * 6 + ["0 s |"]


def test_the_page_names_failures_reasons_and_tests_that_passed_later() -> None:
    text = _text(EXPECTED)
    assert f"| conformance | {B} | a \\| b\x07 |" in text
    assert f"failed before:\n\n| suite | test | failed runs |\n| --- | --- | --- |\n| conformance | {A} | 1 |" in text
    assert "| storage-delayed | External d | left out | the kernel |" in text
    assert "| storage-delayed | Driver has no x | 1 |" in text
    assert "abc, abd" in text
    known = _text([Expected("conformance", B, "the host")])
    assert "Each test that ran and did not pass is in the next section." in known
    assert f"| conformance | {B} | failed | the host |" in known
    assert "passed although they are expected not to" in _text([Expected("conformance", A, "the host")])


def test_the_summary_counts_all_of_conformance() -> None:
    assert page.summary(KEPT_RESULTS) == "Of the 2 `[Conformance]` tests of Kubernetes 1.37.1, 2 have a result: 1 passed"


def test_the_summary_stands_in_the_readme_once() -> None:
    text = "Before: Of the 9 `[Conformance]` tests of Kubernetes 1.36.0, 3 have a result: 0 passed, after."
    assert page.with_summary(text, KEPT_RESULTS) == f"Before: {page.summary(KEPT_RESULTS)}, after."
    with pytest.raises(ValueError, match=r"README\.md has 2 sentences"):
        page.with_summary(text + text, KEPT_RESULTS)


def test_junit_has_the_tests_of_conformance_in_ginkgos_form() -> None:
    suite = ElementTree.fromstring(page.junit(KEPT_RESULTS.results)).find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("2", "1", "0")
    cases = {case.get("name"): case for case in suite}
    assert set(cases) == {f"[It] {A}", f"[It] {B}"}
    failure = cases[f"[It] {B}"].find("failure")
    assert failure is not None
    assert failure.get("message") == "a | b�"


def test_the_page_is_written_from_the_results_that_the_repository_keeps() -> None:
    kept = from_json(KEPT.read_text())
    # whether this host lacks a capability is not in the results: the page has every expectation
    expected = read_expected((HERE / "expected.toml").read_text(), lacks=lambda _: True)
    assert (REFERENCE / "conformance.md").read_text() == page.page(kept, list(parts().values()), expected=expected)
    assert page.summary(kept) in (REFERENCE.parents[1] / "README.md").read_text()
    assert set(quick_names()) == set(kept.totals["quick"])


def test_every_expectation_is_of_a_test_that_exists() -> None:
    kept = from_json(KEPT.read_text())
    suites = {suite: {name for part in parts().values() if part.suite == suite for name in kept.totals[part.name]} for suite in
              {part.suite for part in parts().values()}}  # fmt: skip
    for one in read_expected((HERE / "expected.toml").read_text(), lacks=lambda _: True):
        assert one.name in suites[one.suite]
        assert len(one.reason) > 20
