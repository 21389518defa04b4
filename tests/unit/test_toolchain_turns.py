"""Builds take their turns: each uses every core."""

from __future__ import annotations

import threading

import pytest

from moyai.linux.process import ProcessError
from moyai.toolchain.golang import Turns


def test_turns_go_to_the_lowest_number_and_one_at_a_time() -> None:
    waiting = threading.Semaphore(0)
    turns = Turns(on_wait=waiting.release)
    order: list[int] = []

    def work(number: int) -> None:
        with turns.take(number):
            order.append(number)

    with turns.take(9):
        threads = [threading.Thread(target=work, args=(number,)) for number in (3, 1, 2)]
        for thread in threads:
            thread.start()
        for _ in threads:
            waiting.acquire()
        assert order == []
    for thread in threads:
        thread.join()
    assert order == [1, 2, 3]


def test_a_failed_build_gives_its_turn_back() -> None:
    turns = Turns()
    with pytest.raises(ProcessError), turns.take(0):
        raise ProcessError(["go"], "ended with 1")
    with turns.take(1):
        pass
