"""`up` killed with SIGKILL at random moments: the next `up` finishes, nothing is doubled or orphaned, `down` leaves nothing.

The moments are spread over the measured length of one undisturbed `up`: one at random in each of as many parts as there are
kills. The seed makes them the same again, as parts of that length. A cluster may be killed several times before it is finished:
then the next `up` is killed as much later as its moment is later.
"""

from __future__ import annotations

import math
import random
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tests.chaos.results import Result, Results, insist
from tests.chaos.site import Place, Shape, census

NAME = "kills"


def moments(seed: int, kills: int) -> list[float]:
    """Shares of an undisturbed `up`, ascending."""
    chance = random.Random(seed)  # the seed is printed: a moment can be tried again
    return [(number + chance.random()) / kills for number in range(kills)]


def clusters(seed: int, kills: int, *, each: int) -> list[list[float]]:
    """The moments of each cluster, ascending, ``each`` of them where they come out even."""
    count = math.ceil(kills / each)
    return [moments(seed, kills)[number::count] for number in range(count)]


@dataclass(frozen=True)
class Kills:
    """``kills`` of `up`, ``each`` of them of one cluster. ``first`` and ``last``: the clusters that are built.

    ``length``: seconds of an undisturbed `up` as an earlier run measured it. Then none is built, and the clusters are compared
    with each other.
    """

    seed: int
    kills: int
    each: int = 1
    first: int = 1
    last: int | None = None
    length: float | None = None


def run(results: Results, cloud: str, *, folder: Path, asked: Kills) -> None:
    """Each cluster is one case."""
    before, wanted, length = census(cloud), Shape(), asked.length or 0.0
    if not length:
        with results.case(NAME, "an undisturbed `up`") as result:
            length, wanted = _undisturbed(Place(folder / "undisturbed", cloud), result)
            insist(census(cloud) == before, f"`down` left {census(cloud) - before}")
    if not length:
        return
    planned = clusters(asked.seed, asked.kills, each=asked.each)
    for number, shares in enumerate(planned, 1):
        if not asked.first <= number <= (asked.last or len(planned)):
            continue
        with results.case(NAME, f"cluster {number} of {len(planned)}, seed {asked.seed}") as result, ExitStack() as undo:
            place = Place(folder / str(number), cloud)
            undo.callback(place.remove)
            for earlier, share in pairwise((0.0, *shares)):
                _kill(place, (share - earlier) * length, result=result)
            with result.timed("last up"):
                place.up()
            wanted = wanted or place.shape()
            place.check(wanted)
            with result.timed("down"):
                place.down()
            insist(census(cloud) == before, f"`down` left {census(cloud) - before}, and lost {before - census(cloud)}")


def _undisturbed(place: Place, result: Result) -> tuple[float, Shape]:
    with ExitStack() as undo:
        undo.callback(place.remove)
        with result.timed("up"):
            place.up()
        wanted = place.shape()
        place.check(wanted)
        with result.timed("down"):
            place.down()
    return result.times["up"], wanted


def _kill(place: Place, seconds: float, *, result: Result) -> None:
    process = place.start_up()
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        steps = ", ".join(place.under_way()) or "nothing yet"
        result.facts.append(f"killed after {seconds:.1f} s in: {steps}")
    else:
        insist(code == 0, f"`up` failed by itself: {place.tail()}")
        result.facts.append(f"was done before {seconds:.1f} s")
