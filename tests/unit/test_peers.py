"""The comparisons of `make peers`: what Go tests print, the list of expectations, the page, the other controller's objects."""

from __future__ import annotations

from typing import Any

import pytest

from moyai.toolchain.pins import load_pins
from tests.peers import acceptance, controllers, expectations, gotest, page
from tests.peers.controllers import MOYAI, PEER
from tests.peers.expectations import Expected
from tests.peers.gotest import Result

OUTPUT = """=== RUN   TestGood
    tools.go:87: {
          "name": "x"
        }
--- PASS: TestGood (1.50s)
=== RUN   TestBad
    things.go:10: first
    things_test.go:24: Expected OK, got
        {"badRequest": "no"}
--- FAIL: TestBad (0.25s)
    --- FAIL: TestBad/part (0.20s)
=== RUN   TestLeftOut
    conditions.go:19: must be a non-admin to run this test
--- SKIP: TestLeftOut (0.00s)
=== RUN   TestHangs
    x.go:1: waits
panic: test timed out after 20m0s
"""
LISTED = ["TestGood", "TestBad", "TestLeftOut", "TestHangs", "TestNeverBegun"]


def results() -> list[Result]:
    return gotest.read(OUTPUT, package="compute/v2", listed=LISTED)


def test_every_listed_test_has_a_result_also_what_a_crash_cut_off() -> None:
    assert [(one.test, one.state, one.seconds) for one in results()] == [
        ("compute/v2 TestGood", "passed", 1.5),
        ("compute/v2 TestBad", "failed", 0.25),
        ("compute/v2 TestLeftOut", "skipped", 0.0),
        ("compute/v2 TestHangs", "cut off", 0.0),
        ("compute/v2 TestNeverBegun", "cut off", 0.0),
    ]


def test_what_a_test_said_last_is_kept_from_its_place_in_the_source_on() -> None:
    said = {one.test.split()[1]: one.said for one in results()}
    assert said["TestGood"] == ""
    assert said["TestBad"].startswith('Expected OK, got {"badRequest": "no"}')
    assert said["TestLeftOut"] == "must be a non-admin to run this test"
    assert said["TestHangs"] == "panic: test timed out after 20m0s"


def test_the_failure_counts_and_not_what_was_cleaned_up_after_it() -> None:
    lines = [
        "    a.go:1: first",
        "    b_test.go:2: \x1b[1;31mFailure in b_test.go, line 2: got",
        "        404\x1b[0m",
        "    c.go:3: Deleted x",
    ]
    assert gotest.last_words(lines) == "Failure in b_test.go, line 2: got 404"


def expected(failed: str = "", skipped: str = "") -> Expected:
    return Expected(
        {f"compute/v2 {name}": "why" for name in failed.split()}, {f"compute/v2 {name}": "why" for name in skipped.split()}, {}
    )


def test_what_is_on_the_list_is_no_problem() -> None:
    listed = expected("TestBad TestHangs TestNeverBegun", "TestLeftOut")
    assert expectations.problems(results(), listed, packages=["compute/v2"]) == []


@pytest.mark.parametrize(
    ("failed", "skipped", "problem"),
    [
        ("TestHangs TestNeverBegun", "TestLeftOut", "compute/v2 TestBad failed: Expected OK"),
        ("TestBad TestNeverBegun", "TestLeftOut", "compute/v2 TestHangs cut off: panic: test timed out"),
        ("TestBad TestHangs TestNeverBegun", "", "compute/v2 TestLeftOut skipped: must be a non-admin"),
        # a skipped test is not one that fails: the reason would be untrue
        ("TestBad TestHangs TestNeverBegun TestLeftOut", "", "compute/v2 TestLeftOut skipped: must be a non-admin"),
        ("TestBad TestHangs TestNeverBegun TestGood", "TestLeftOut", "compute/v2 TestGood passes: take it off the list"),
        ("TestBad TestHangs TestNeverBegun TestGone", "TestLeftOut", "compute/v2 TestGone is on the list, but"),
    ],
)
def test_all_else_is_one_problem(failed: str, skipped: str, problem: str) -> None:
    [found] = expectations.problems(results(), expected(failed, skipped), packages=["compute/v2"])
    assert found.startswith(problem)


def test_packages_that_did_not_run_are_not_looked_at() -> None:
    listed = expected("TestBad TestHangs TestNeverBegun", "TestLeftOut")
    more = Expected({**listed.failed, "image/v2 TestX": "why"}, listed.skipped, {})
    assert expectations.problems(results(), more, packages=["compute/v2"]) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[fails]\n"compute/v2 TestX" = "y"', "no table is called fails"),
        ('[failed]\n"compute/v2 TestX" = ""', "compute/v2 TestX needs a reason"),
        ('[failed]\n"TestX" = "y"', "'TestX' is not of the form `PACKAGE TestNAME`"),
        ('[absent]\n"compute/v2 TestX" = "y"', "is not of the form `PACKAGE`"),
        ('[reasons]\na = "b"', "nothing has the reason a"),
        ('[failed]\n"a TestX" = "y"\n[skipped]\n"a TestX" = "y"', "failed and skipped at once: a TestX"),
    ],
)
def test_a_wrong_list_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        expectations.parse(text)


def test_a_reason_serves_several_tests() -> None:
    read = expectations.parse('[reasons]\na = "one"\n[failed]\n"x TestA" = "a"\n"x TestB" = "a"\n[skipped]\n"x TestC" = "two"')
    assert read == Expected({"x TestA": "one", "x TestB": "one"}, {"x TestC": "two"}, {})
    assert (read.reason("x TestB"), read.reason("x TestC"), read.reason("x TestD")) == ("one", "two", "")


def test_the_list_that_ships_is_of_packages_that_run_and_of_packages_that_do_not() -> None:
    shipped = expectations.load()
    runs = {acceptance.package(file) for file in load_pins("amd64").components[acceptance.COMPONENT].files}
    assert {test.split()[0] for test in (*shipped.failed, *shipped.skipped)} <= runs
    assert not runs & set(shipped.absent)
    assert shipped.absent


def lap(controller: str, count: int, **seconds: float) -> dict[str, Any]:
    return {"controller": controller, "count": count, "load": 1.0, "addresses": 1.0, "answers": 2.0, "gone": 3.0, **seconds}


def test_the_goal_counts_from_several_services_on() -> None:
    laps = [lap(PEER, 1, answers=3.0), lap(MOYAI, 1), lap(PEER, 8, answers=10.0), lap(MOYAI, 8)]
    rows = [row for row in page.race_table(laps) if "first answer" in row]
    assert rows == [
        "| 1 | first answer | 2.0 s | 3.0 s | 0.67 |  |  | 1.0, 1.0 |",
        "| 8 | first answer | 2.0 s | 10.0 s | 0.20 | ≤ 0.3 × | yes | 1.0, 1.0 |",
    ]
    [late] = [row for row in page.race_table(laps) if row.startswith("| 8 | deleted")]
    assert late.endswith("| 3.0 s | 3.0 s | 1.00 | ≤ 0.3 × | no | 1.0, 1.0 |")


def test_the_page_is_what_the_kept_results_say() -> None:
    assert page.PAGE.read_text() == page.render(page.load(), expectations.load())


def test_the_other_controller_gets_the_secret_in_a_secret_alone() -> None:
    login = {
        "auth_url": "http://c/v3",
        "username": "demo",
        "password": "pass",
        "project_name": "demo",
        "project_domain_id": "default",
    }
    conf = controllers.cloud_conf(login, region="R", network_id="net", subnet_id="sub")
    made = controllers.objects(image="i", conf=conf, cluster="c", api_server="10.0.0.5:6443")
    assert [one["kind"] for one in made if "pass" in str(one)] == ["Secret"]
    [deployment] = [one for one in made if one["kind"] == "Deployment"]
    assert deployment["spec"]["replicas"] == 0
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    assert "--controllers=service" in container["args"]
    assert not any(word.startswith("--concurrent") for word in container["args"]), "its own default"
    assert {"lb-provider=moyai", "manage-security-groups=true", "create-monitor=true"} <= set(conf.splitlines())
