"""The daemon's work: one at a time for each load balancer, side by side across them, and no call is lost."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager

from moyai.core.clock import SystemClock
from moyai.core.waiting import NotYet, until
from moyai.localcloud.drivers.octavia.keyed_work import KeyedWork

SECONDS = 5.0


class Jobs:
    """Work that waits at a gate of its own until the test opens it."""

    def __init__(self) -> None:
        self.done: list[tuple[str, frozenset[str]]] = []
        self.begun: dict[str, threading.Semaphore] = {}
        self.gates: dict[str, threading.Event] = {}
        self.inside: Counter[str] = Counter()
        self.overlaps = 0
        self.work: KeyedWork[str] | None = None
        self.takes: set[str] = set()

    def gate(self, key: str) -> threading.Event:
        return self.gates.setdefault(key, threading.Event())

    def begins(self, key: str) -> bool:
        return self.begun.setdefault(key, threading.Semaphore(0)).acquire(timeout=SECONDS)

    def do(self, key: str, reasons: frozenset[str]) -> None:
        self.inside[key] += 1
        self.overlaps += self.inside[key] > 1
        self.begun.setdefault(key, threading.Semaphore(0)).release()
        if key in self.gates:
            assert self.gates[key].wait(SECONDS)
        if key in self.takes:
            assert self.work is not None
            reasons |= self.work.take(key)
        self.inside[key] -= 1
        self.done.append((key, reasons))
        if "fail" in reasons:
            raise RuntimeError("meant")


@contextmanager
def working(jobs: Jobs, workers: int) -> Generator[KeyedWork[str]]:
    jobs.work = KeyedWork(jobs.do, workers=workers)
    jobs.work.start()
    try:
        yield jobs.work
    finally:
        for gate in jobs.gates.values():
            gate.set()
        jobs.work.stop()


def test_a_slow_one_holds_nobody_else() -> None:
    jobs = Jobs()
    jobs.gate("slow")
    with working(jobs, 2) as work:
        work.add("slow", "apply")
        assert jobs.begins("slow")
        for key in "abcdef":
            work.add(key, "apply")
        assert all(jobs.begins(key) for key in "abcdef")
        assert not any(key == "slow" for key, _ in jobs.done)


def test_as_many_run_at_once_as_there_are_workers() -> None:
    jobs = Jobs()
    for key in "abc":
        jobs.gate(key)
    with working(jobs, 3) as work:
        for key in "abc":
            work.add(key, "apply")
        assert all(jobs.begins(key) for key in "abc")  # none of them has ended


def test_what_is_added_meanwhile_is_one_work_afterwards() -> None:
    jobs = Jobs()
    gate = jobs.gate("a")
    with working(jobs, 4) as work:
        work.add("a", "first")
        assert jobs.begins("a")
        for reason in ("x", "y", "x"):
            work.add("a", reason)
        assert work.busy("a")
        gate.set()
        assert jobs.begins("a")
    assert jobs.done == [("a", frozenset({"first"})), ("a", frozenset({"x", "y"}))]
    assert jobs.overlaps == 0


def test_work_can_take_what_was_added_since_it_began() -> None:
    jobs = Jobs()
    jobs.takes.add("a")
    gate = jobs.gate("a")
    with working(jobs, 2) as work:
        work.add("a", "port")
        assert jobs.begins("a")
        work.add("a", "apply")
        gate.set()
        until(
            lambda: NotYet("the work on a") if work.busy("a") else True,
            clock=SystemClock(),
            timeout=SECONDS,
            pause=0.001,
        )
    assert jobs.done == [("a", frozenset({"port", "apply"}))]


def test_the_urgent_comes_first_and_what_waits_may_become_urgent() -> None:
    jobs = Jobs()
    gate = jobs.gate("held")
    with working(jobs, 1) as work:
        work.add("held", "x")
        assert jobs.begins("held")
        work.add("rest", "x", urgent=False)
        work.add("later", "x", urgent=False)
        work.add("new", "x")
        work.add("later", "y")
        gate.set()
        assert all(jobs.begins(key) for key in ("new", "later", "rest"))
    assert [key for key, _ in jobs.done] == ["held", "new", "later", "rest"]
    assert jobs.done[2] == ("later", frozenset({"x", "y"}))


def test_a_plan_comes_once_at_its_last_moment_and_can_be_given_up() -> None:
    jobs = Jobs()
    with working(jobs, 1) as work:
        work.later("a", "look", seconds=0.0)
        assert jobs.begins("a")
        work.later("b", "look", seconds=60.0)
        work.later("b", "look", seconds=0.05)
        work.later("c", "look", seconds=0.02)
        work.forget("c", "look")
        assert jobs.begins("b")
    assert [key for key, _ in jobs.done] == ["a", "b"]


def test_a_failure_ends_only_itself_and_after_the_end_nothing_begins() -> None:
    jobs = Jobs()
    with working(jobs, 1) as work:
        work.add("a", "fail")
        work.add("a", "again")
        work.add("b", "x")
        assert jobs.begins("b")
    assert not work.busy("a")
    work.add("c", "x")
    assert not work.busy("c")
    assert {key for key, _ in jobs.done} == {"a", "b"}


def test_nothing_is_lost_and_nothing_overlaps_under_load() -> None:
    jobs = Jobs()
    with working(jobs, 8) as work:

        def add(number: int) -> None:
            for key in range(50):
                work.add(str(key), f"{number} {key}")

        adders = [threading.Thread(target=add, args=(number,)) for number in range(4)]
        for one in adders:
            one.start()
        for one in adders:
            one.join()
        for key in range(50):
            while work.busy(str(key)):
                jobs.begins(str(key))
    seen = {reason for _, reasons in jobs.done for reason in reasons}
    assert seen == {f"{n} {key}" for n in range(4) for key in range(50)}
    assert jobs.overlaps == 0
