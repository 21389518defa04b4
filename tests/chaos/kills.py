"""`up` killed with SIGKILL at random moments: the next `up` finishes, nothing is doubled or orphaned, `down` leaves nothing.

The moments are spread over the measured length of one undisturbed `up`: one at random in each of as many parts as there are
kills. The seed makes them the same again, as parts of that length.
"""

from __future__ import annotations

import contextlib
import random
import subprocess
from pathlib import Path

from tests.chaos.results import Result, Results, insist
from tests.chaos.site import Place, census

NAME = "kills"


def moments(seed: int, kills: int) -> list[float]:
    """Shares of an undisturbed `up`, ascending."""
    chance = random.Random(seed)  # the seed is printed: a moment can be tried again
    return [(number + chance.random()) / kills for number in range(kills)]


def run(results: Results, cloud: str, folder: Path, *, seed: int, kills: int, first: int, last: int) -> None:
    """Each kill is one case; only those from number ``first`` to ``last`` run."""
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
    for number, share in enumerate(moments(seed, kills), 1):
        if not first <= number <= last:
            continue
        with results.case(NAME, f"{number} of {kills}, seed {seed}") as result, contextlib.ExitStack() as undo:
            place = Place(folder / str(number), cloud)
            undo.callback(place.remove)
            _kill(place, share * length, result)
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
