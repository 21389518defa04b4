"""Reads made together: none is older than its question, one serves all that asked before it began, an error is everybody's."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from moyai.localcloud.drivers.octavia.joint_reads import JointReads


class Source:
    """Answers with the number of the read, when it is let."""

    def __init__(self) -> None:
        self.reads = 0
        self.begun = threading.Semaphore(0)
        self.let = threading.Semaphore(0)

    def read(self, name: str) -> str:
        self.reads += 1
        number = self.reads
        self.begun.release()
        assert self.let.acquire(timeout=10)
        if name == "broken":
            raise ValueError(f"read {number}")
        return f"{name} {number}"


def ask(threads: ThreadPoolExecutor, reads: JointReads, *, source: Source, name: str = "a") -> Future[str]:
    return threads.submit(reads.fresh, name, source.read)


class Waiting:
    """Counts the callers that wait."""

    def __init__(self) -> None:
        self._came = threading.Semaphore(0)
        self.reads = JointReads(on_wait=self._came.release)

    def for_callers(self, count: int) -> None:
        for _ in range(count):
            assert self._came.acquire(timeout=10)


def test_what_asks_while_a_read_runs_shares_the_next_one() -> None:
    waiting, source = Waiting(), Source()
    reads = waiting.reads
    with ThreadPoolExecutor(8) as threads:
        first = ask(threads, reads, source=source)
        assert source.begun.acquire(timeout=10)
        others = [ask(threads, reads, source=source) for _ in range(5)]
        waiting.for_callers(5)
        source.let.release()
        assert first.result(10) == "a 1"
        assert source.begun.acquire(timeout=10)
        source.let.release()
        assert [one.result(10) for one in others] == ["a 2"] * 5
    assert source.reads == 2


def test_different_things_do_not_wait_for_each_other() -> None:
    reads, source = JointReads(), Source()
    with ThreadPoolExecutor(2) as threads:
        asked = [ask(threads, reads, source=source, name=name) for name in "ab"]
        for _ in asked:
            assert source.begun.acquire(timeout=10)
        source.let.release(2)
        assert {one.result(10)[0] for one in asked} == {"a", "b"}


def test_one_after_the_other_asks_again() -> None:
    reads, source = JointReads(), Source()
    source.let.release(2)
    assert [reads.fresh("a", source.read) for _ in range(2)] == ["a 1", "a 2"]


def test_an_error_is_everybodys_and_the_next_read_works() -> None:
    waiting, source = Waiting(), Source()
    reads = waiting.reads
    with ThreadPoolExecutor(8) as threads:
        first = ask(threads, reads, source=source, name="broken")
        assert source.begun.acquire(timeout=10)
        others = [ask(threads, reads, source=source, name="broken") for _ in range(3)]
        waiting.for_callers(3)
        source.let.release(2)
        for one, number in [(first, 1), *((one, 2) for one in others)]:
            with pytest.raises(ValueError, match=f"read {number}"):
                one.result(10)
    source.let.release()
    assert reads.fresh("a", source.read) == "a 3"
