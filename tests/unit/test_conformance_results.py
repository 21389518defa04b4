"""What a log says became of the tests, how results are kept over interruptions, and what is wrong among them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conformance.log import LogReader, Outcome
from tests.conformance.results import (
    Expected,
    Kept,
    Result,
    Store,
    Verdict,
    from_json,
    judge,
    merged,
    read_expected,
    to_json,
)

A, B, C, D = (f"[sig-x] Things {word} should be [Conformance]" for word in "abcd")
#: As ginkgo writes it: labels behind the name, the node that failed within it, text of the test between.
LOG = f"""I1128 e2e.go:112] Starting e2e run
[SynchronizedBeforeSuite] PASSED [1.2 seconds]
[SynchronizedBeforeSuite]
k8s.io/kubernetes/test/e2e/e2e.go:77
------------------------------
SSSSSSS
------------------------------
• [5.123 seconds]
{A} [sig-x, Conformance]
k8s.io/kubernetes/test/e2e/x.go:10

  Timeline >>
  STEP: Creating a kubernetes client
  << Timeline
------------------------------
• [FAILED] [61.5 seconds]
[sig-x] Things b [It] should be [Conformance] [sig-x, Conformance]
k8s.io/kubernetes/test/e2e/x.go:20

  Timeline >>
  [FAILED] in [It] - k8s.io/kubernetes/test/e2e/x.go:21
  << Timeline

  [FAILED] Timed out after 60.001s.
  Expected Pod to be
      running
  In [It] at: k8s.io/kubernetes/test/e2e/x.go:21 @ 11/28/26
------------------------------
S [SKIPPED] [0.051 seconds]
[sig-x] Things c [BeforeEach] should be [Conformance] [sig-x, Conformance]
  [BeforeEach] k8s.io/kubernetes/test/e2e/x.go:30

  [SKIPPED] Requires at least 3 nodes
  In [BeforeEach] at: k8s.io/kubernetes/test/e2e/x.go:30
------------------------------
• [INTERRUPTED] [3.0 seconds]
{D} [sig-x, Conformance]
------------------------------
""".splitlines()


def _read(lines: list[str]) -> list[Outcome]:
    reader = LogReader([A, B, C, D])
    return [outcome for line in lines if (outcome := reader.feed(f"{line}\n"))]


def test_every_outcome_of_a_log_is_read_with_its_reason() -> None:
    assert _read(LOG) == [
        Outcome(A, "passed", 5.123),
        Outcome(B, "failed", 61.5, "Timed out after 60.001s. Expected Pod to be running"),
        Outcome(C, "skipped", 0.051, "Requires at least 3 nodes"),
    ]


def test_a_test_that_was_cut_off_has_no_outcome() -> None:
    assert D not in {one.name for one in _read(LOG)}
    cut = LOG[: LOG.index("  Expected Pod to be")]
    assert [one.name for one in _read(cut)] == [A]


@pytest.mark.parametrize("word", ["FAILED", "PANICKED!", "TIMEDOUT"])
def test_whatever_is_neither_passed_nor_skipped_has_failed(word: str) -> None:
    assert _read([f"• [{word}] [1.0 seconds]", A, "-" * 30]) == [Outcome(A, "failed", 1.0, word.lower())]


def test_a_slow_test_has_passed() -> None:
    assert _read(["• [SLOW TEST] [301.0 seconds]", f"{A} [sig-x]", "-" * 30]) == [Outcome(A, "passed", 301.0)]


def test_results_outlive_a_kill_in_the_middle_of_a_line(tmp_path: Path) -> None:
    store = Store(tmp_path / "results.jsonl")
    assert store.load() == []
    store.add("s", Outcome(A, "passed", 1.0), commit="1")
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write('{"suite": "s", "na')
    store.add("s", Outcome(B, "failed", 2.0, "no"), commit="2")
    assert store.load() == [Result("s", A, "passed", 1.0, "", "1"), Result("s", B, "failed", 2.0, "no", "2")]


def test_a_test_that_passes_the_second_time_is_not_as_good_as_new(tmp_path: Path) -> None:
    store = Store(tmp_path / "results.jsonl")
    store.add("s", Outcome(A, "failed", 1.0, "no"), commit="1")
    store.retry("s", [A])
    assert store.load() == []
    store.add("s", Outcome(A, "passed", 1.0), commit="1")
    assert store.load() == [Result("s", A, "passed", 1.0, "", "1", failures=1)]
    store.reset("s", [A])
    store.add("s", Outcome(A, "passed", 1.0), commit="2")
    assert store.load() == [Result("s", A, "passed", 1.0, "", "2")]


def test_a_suite_knows_nothing_of_another(tmp_path: Path) -> None:
    store = Store(tmp_path / "results.jsonl")
    store.add("s", Outcome(A, "passed", 1.0), commit="1")
    store.add("t", Outcome(A, "failed", 1.0), commit="1")
    store.reset("s", [A])
    assert [one.suite for one in store.load()] == ["t"]


def test_only_what_is_neither_good_nor_expected_is_wrong() -> None:
    good = Result("conformance", A, "passed", 1.0)
    known = Result("conformance", B, "failed", 1.0)
    wrong = Result("conformance", C, "skipped", 1.0)
    skipped = Result("storage-delayed", C, "skipped", 1.0)
    better = Result("storage-delayed", D, "passed", 1.0)
    expected = [Expected("conformance", B, "because"), Expected("storage-delayed", D, "because")]
    assert judge([good, known, wrong, skipped, better], expected) == Verdict([wrong], [better])
    # an expectation counts for its own suite only
    assert judge([known], [Expected("loadbalancer", B, "because")]).wrong == [known]


def test_an_expectation_of_hosts_without_a_capability_counts_on_those_only() -> None:
    text = """
        [[expected]]
        suite = "s"
        test = "a"
        reason = "always"
        [[expected]]
        suite = "s"
        test = "b"
        reason = "sometimes"
        without = "CAP_SYS_RESOURCE"
    """
    assert [one.name for one in read_expected(text, lacks=lambda name: name == "CAP_SYS_RESOURCE")] == ["a", "b"]
    assert [one.name for one in read_expected(text, lacks=lambda _: False)] == ["a"]
    assert read_expected("", lacks=lambda _: True) == []


def test_what_is_kept_is_read_again() -> None:
    results = [Result("s", A, "failed", 1.0, "no", "1", 2), Result("s", B, "passed", 0.0, "", "1")]
    kept = Kept({"kubernetes": "1.37.1"}, {"quick": [A], "serial": []}, results)
    assert from_json(to_json(kept)) == kept
    empty = Kept({"kubernetes": "1.37.1"}, {}, [])
    assert from_json(to_json(empty)) == empty


def test_results_of_parts_that_did_not_run_here_stay() -> None:
    old, new = Result("s", A, "failed", 1.0), Result("s", A, "passed", 2.0)
    other = Result("s", B, "passed", 1.0)
    assert merged([old, other], [new]) == [new, other]
