"""`up` killed with SIGKILL at random moments: the next `up` finishes, nothing is doubled or orphaned, `down` leaves nothing.

The moments are spread over the measured length of one undisturbed `up`: one at random in each of as many parts as there are
kills. The seed makes them the same again, as parts of that length. A cluster may be killed several times before it is finished:
then the next `up` is killed as much later as its moment is later.
"""

from __future__ import annotations

import contextlib
import math
import random
import subprocess
from itertools import pairwise
from pathlib import Path

from tests.chaos.results import Result, Results, insist
from tests.chaos.site import Place, census

NAME = "kills"


def moments(seed: int, kills: int) -> list[float]:
    """Shares of an undisturbed `up`, ascending."""
    chance = random.Random(seed)  # the seed is printed: a moment can be tried again
    return [(number + chance.random()) / kills for number in range(kills)]


def clusters(seed: int, kills: int, *, each: int) -> list[list[float]]:
    """The moments of each cluster, ascending, ``each`` of them where they come out even."""
    count = math.ceil(kills / each)
    return [moments(seed, kills)[number::count] for number in range(count)]


def run(results: Results, cloud: str, folder: Path, *, seed: int, kills: int, each: int, first: int, last: int | None) -> None:
    """Each cluster is one case; only those from number ``first`` to ``last`` run."""
    before = census(cloud)
    length = 0.0
    with results.case(NAME, "an undisturbed `up`") as result:
        place = Place(folder / "undisturbed", cloud)
        with contextlib.ExitStack() as undo:
            undo.callback(place.remove)
            with result.timed("up"):
                place.up()
            length = result.times["up"]
            wanted = place.shape()
            place.check(wanted)
            with result.timed("down"):
                place.down()
        insist(census(cloud) == before, f"`down` left {census(cloud) - before}")
    if not length:
        return
    planned = clusters(seed, kills, each=each)
    for number, shares in enumerate(planned, 1):
        if not first <= number <= (last or len(planned)):
            continue
        with results.case(NAME, f"cluster {number} of {len(planned)}, seed {seed}") as result, contextlib.ExitStack() as undo:
            place = Place(folder / str(number), cloud)
            undo.callback(place.remove)
            for before_it, share in pairwise((0.0, *shares)):
                _kill(place, (share - before_it) * length, result)
            with result.timed("next up"):
                place.up()
            place.check(wanted)
            with result.timed("down"):
                place.down()
            insist(census(cloud) == before, f"`down` left {census(cloud) - before}, and lost {before - census(cloud)}")


def _kill(place: Place, seconds: float, result: Result) -> None:
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
