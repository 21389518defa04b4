"""The moments at which `make chaos` kills `up`: spread over the whole length, the same for the same seed."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.chaos.kills import clusters, moments
from tests.chaos.results import Results


@pytest.mark.parametrize("seed", range(20))
def test_one_moment_is_in_each_part_of_the_length(seed: int) -> None:
    found = moments(seed, 20)
    assert [int(share * 20) for share in found] == list(range(20))
    assert moments(seed, 20) == found
    assert moments(seed + 1, 20) != found


@pytest.mark.parametrize("each", [1, 3, 4, 20])
def test_clusters_share_the_moments_out(each: int) -> None:
    found = clusters(1, 20, each=each)
    assert sorted(share for shares in found for share in shares) == moments(1, 20)
    assert all(len(shares) <= each for shares in found)
    assert all(earlier < later for shares in found for earlier, later in pairwise(shares))


def test_a_case_that_raises_is_a_fault_and_the_next_case_runs() -> None:
    said: list[str] = []
    results = Results(said.append)
    with results.case("kills", "one"):
        raise AssertionError("two\nlines")
    with pytest.raises(KeyboardInterrupt), results.case("kills", "cut off"):
        raise KeyboardInterrupt
    with results.case("kills", "two") as result:
        result.facts.append("a fact")
    assert [one.case for one in results.faults] == ["one", "cut off"]
    assert said[1] == "kills: one  FAULT: AssertionError('two\\nlines')"
    assert said[-1] == "kills: two  a fact  ok"
