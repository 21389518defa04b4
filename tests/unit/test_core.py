"""core: errors say one line, tasks run in order and side by side, waits stay within their bounds."""

from __future__ import annotations

import concurrent.futures
import stat
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moyai.core import graph
from moyai.core.backoff import Backoff
from moyai.core.errors import Conflict, Retriable, Terminal, UsageError
from moyai.core.graph import Task, TaskFunction, run_graph
from moyai.core.ids import cluster_tag, is_dns_label, new_uid
from moyai.core.locks import file_lock
from moyai.core.paths import default_paths
from moyai.core.progress import Event, Progress, Reporter
from moyai.core.truth import truth
from moyai.core.waiting import Stopped
from tests.fakes.clock import FakeClock


def test_an_error_is_one_line_with_its_hint_and_the_clouds_request() -> None:
    error = Terminal("server web-1 is in ERROR", hint="delete it", operation="create server", request_id="req-7")
    assert str(error) == "server web-1 is in ERROR: delete it (in create server, request req-7)"


def test_exit_codes_tell_wrong_input_from_failure() -> None:
    assert UsageError("x").exit_code == 2
    assert Terminal("x").exit_code == 1
    assert issubclass(Conflict, Retriable)


@given(st.integers(min_value=0, max_value=10_000), st.floats(min_value=0, max_value=1))
def test_a_wait_never_exceeds_its_ceiling_by_more_than_the_jitter(attempt: int, unit: float) -> None:
    backoff = Backoff(base=0.2, ceiling=30, jitter=0.1)
    assert 0 < backoff.delay(attempt, lambda: unit) <= 33


@pytest.mark.parametrize(
    ("name", "good"),
    [("web", True), ("web-1", True), ("Web", False), ("-web", False), ("web-", False), ("1web", False), ("", False)],
)
def test_dns_labels(name: str, good: bool) -> None:
    assert is_dns_label(name) is good


def test_a_uid_is_new_each_time_and_makes_the_tag() -> None:
    one, other = new_uid(), new_uid()
    assert one != other
    assert cluster_tag(one) == f"moyai.cluster={one}"


def test_folders_follow_the_environment() -> None:
    assert default_paths({"HOME": "/h"}).toolchain == Path("/h/.cache/moyai/toolchain")
    assert default_paths({"HOME": "/h", "XDG_STATE_HOME": "/s"}).clusters == Path("/s/moyai/clusters")
    assert default_paths({"HOME": "/h", "MOYAI_STATE_DIR": "/m"}).cloud("x") == Path("/m/clouds/x")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("name", ["clusters", "clouds", "errors"])
def test_nobody_else_enters_the_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("XDG_STATE_HOME", "MOYAI_STATE_DIR"):
        monkeypatch.delenv(variable, raising=False)
    paths = default_paths()
    folder = paths.make_state(name)
    assert folder == paths.state / name
    assert (mode(folder), mode(paths.state)) == (0o700, 0o700)
    # an earlier version of moyai left them open
    for one in (folder, paths.state):
        one.chmod(0o755)
    paths.make_state(name)
    assert (mode(folder), mode(paths.state)) == (0o700, 0o700)


def test_a_folder_of_the_users_that_is_given_as_state_folder_keeps_its_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOYAI_STATE_DIR", str(tmp_path))
    tmp_path.chmod(0o777)
    assert mode(default_paths().make_state("clouds")) == 0o700
    assert mode(tmp_path) == 0o777
    monkeypatch.setenv("MOYAI_STATE_DIR", str(tmp_path / "new/state"))
    default_paths().make_state("clouds")
    assert mode(tmp_path / "new/state") == 0o700


def _task(name: str, order: list[str], *after: str) -> Task:
    def run(results: Mapping[str, Any], step: Progress) -> str:
        order.append(name)
        return name + "!"

    return Task(name, run, after)


def test_a_task_runs_after_what_it_needs_and_sees_its_results() -> None:
    order: list[str] = []
    tasks = [_task("c", order, "a", "b"), _task("b", order, "a"), _task("a", order)]
    assert run_graph(tasks, Reporter()) == {"a": "a!", "b": "b!", "c": "c!"}
    assert order == ["a", "b", "c"]


def test_tasks_that_need_nothing_of_each_other_run_side_by_side() -> None:
    meeting = threading.Barrier(2, timeout=10)

    def run(results: Mapping[str, Any], step: Progress) -> int:
        return meeting.wait()

    assert sorted(run_graph([Task("a", run), Task("b", run)], Reporter()).values()) == [0, 1]


def test_after_a_failure_nothing_new_starts_and_the_first_error_is_raised() -> None:
    order: list[str] = []

    def fail(results: Mapping[str, Any], step: Progress) -> None:
        raise Terminal("no")

    with pytest.raises(Terminal, match="no"):
        run_graph([Task("a", fail), _task("b", order, "a")], Reporter())
    assert order == []


def test_the_cause_is_raised_and_not_that_another_task_stopped_waiting_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever of the two the pool names first."""

    def ended(running: Mapping[Any, Any], *, return_when: str) -> tuple[list[Any], set[Any]]:
        done, left = concurrent.futures.wait(running)
        return sorted(done, key=lambda one: not isinstance(one.exception(), Stopped)), left

    def fail(error: Exception) -> TaskFunction:
        def run(results: Mapping[str, Any], step: Progress) -> None:
            raise error

        return run

    monkeypatch.setattr(graph, "wait", ended)
    with pytest.raises(Terminal, match="the cause"):
        run_graph([Task("a", fail(Terminal("the cause"))), Task("b", fail(Stopped("stopped waiting")))], Reporter())


def test_a_task_that_needs_an_unknown_task_is_refused() -> None:
    with pytest.raises(ValueError, match="task 'a' needs 'missing', which is not there"):
        run_graph([_task("a", [], "missing")], Reporter())


def test_tasks_of_the_same_name_both_run_and_are_shown_apart() -> None:
    order: list[str] = []
    seen: list[Event] = []

    def task(identity: int, *after: int) -> Task:
        return Task("same", lambda _results, _step: order.append(str(identity)), after, identity=identity)

    run_graph([task(2, 1), task(1)], Reporter(seen.append))
    assert order == ["1", "2"]
    assert sorted(one.step for one in seen if one.kind == "finished") == ["same", "same (2)"]


def test_a_task_that_is_there_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="two tasks are called 'a'"):
        run_graph([_task("a", []), _task("a", [])], Reporter())


def test_a_circle_is_refused_and_names_the_tasks_in_it_alone() -> None:
    order: list[str] = []
    tasks = [_task("free", order), _task("a", order, "b"), _task("b", order, "c", "free"), _task("c", order, "a")]
    tasks.append(_task("behind", order, "a"))
    with pytest.raises(ValueError, match=r"in a circle: a, b, c$"):
        run_graph(tasks, Reporter())
    assert order == []


def test_a_task_that_needs_itself_is_a_circle() -> None:
    with pytest.raises(ValueError, match=r"in a circle: a$"):
        run_graph([_task("a", [], "a")], Reporter())


def test_a_step_reports_its_time_and_its_failure() -> None:
    clock = FakeClock()
    seen: list[Event] = []
    reporter = Reporter(seen.append, clock=clock)
    with reporter.step("build") as step:
        clock.sleep(2)
        step.progress("half", 0.5)
        clock.sleep(1)
    with pytest.raises(Terminal), reporter.step("load"):
        raise Terminal("broken")
    assert [(e.kind, e.step, e.detail, e.seconds) for e in seen] == [
        ("started", "build", "", 0.0),
        ("progress", "build", "half", 2.0),
        ("finished", "build", "", 3.0),
        ("started", "load", "", 0.0),
        ("failed", "load", "broken", 0.0),
    ]
    assert reporter.timings == {"build": 3.0}


def test_the_time_that_a_step_waits_for_others_is_not_its_own(tmp_path: Path) -> None:
    clock = FakeClock()
    reporter = Reporter(clock=clock)
    with reporter.step("whole") as whole:
        clock.sleep(1)
        with reporter.step("part"):
            clock.sleep(10)
        with whole.waiting(), whole.waiting():
            clock.sleep(100)

        def inner(_: object, step: Progress) -> None:
            with step.waiting():
                clock.sleep(1000)
            clock.sleep(2)

        run_graph([Task("inner", inner)], reporter)
        with file_lock(tmp_path / "lock", lambda _: None, waiting=reporter.waiting):
            clock.sleep(5)
    assert reporter.timings == {"part": 10, "inner": 1002, "whole": 1118}
    assert reporter.own == {"part": 10, "inner": 2, "whole": 6}


def test_every_sink_gets_every_event_in_the_same_order() -> None:
    clock = FakeClock()
    shown: list[Event] = []
    written: list[Event] = []
    late: list[Event] = []
    reporter = Reporter(shown.append, written.append, clock=clock)
    reporter.plan(["build"])
    with reporter.step("build") as step:
        reporter.attach(late.append)
        clock.sleep(2)
        step.progress("half", 0.5)
    reporter.note("done")
    assert [event.kind for event in shown] == ["planned", "started", "progress", "finished", "note"]
    assert written == shown
    assert late == shown[2:]


@pytest.mark.parametrize(
    ("word", "said"), [("true", True), ("YES", True), (" on ", True), ("f", False), ("0", False), ("2", None)]
)
def test_words_for_true_and_false(word: str, said: bool | None) -> None:
    assert truth(word) is said
