"""Two commands at once: on one cluster the second is refused at once in one line, on two clusters in one cloud both finish."""

from __future__ import annotations

import contextlib
import subprocess
import time
from pathlib import Path

from tests.chaos.results import Result, Results, insist
from tests.chaos.site import Place, census
from tests.e2e.driver import MOYAI, TIMEOUT

NAME = "together"
#: The step of `up` and `down` in which a second command comes; the first step of `down` is as good as any.
_UP_STEP, _DOWN_STEP = "look at the cloud", ""
#: Seconds within which a second command is refused; most of them go into Python's start and the looks at the cloud.
REFUSED = 30.0


def run(results: Results, cloud: str, *, folder: Path) -> None:
    """The cases are one story: what the first builds, the others use."""
    before = census(cloud)
    with contextlib.ExitStack() as undo:
        one, two = Place(folder / "one", cloud), Place(folder / "two", cloud)
        for place in (one, two):
            undo.callback(place.remove)
        with results.case(NAME, "two `up`s in the same moment on one cluster") as result:
            _same_moment(one, result)
        with results.case(NAME, "`up`, `down` and `plan` beside `up`; another cluster's `up` beside all") as result:
            _beside_up(one, two, result=result)
        with results.case(NAME, "`up` and `down` beside `down`; another cluster's `down` beside all") as result:
            _beside_down(one, two, result=result)
            insist(census(cloud) == before, f"left {census(cloud) - before}, lost {before - census(cloud)}")


def _same_moment(place: Place, result: Result) -> None:
    words = [*MOYAI, "up", str(place.cluster.folder)]
    with result.timed("both"):
        both = [subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for _ in range(2)]
        said = [process.communicate(timeout=TIMEOUT)[1] for process in both]
    codes = [process.returncode for process in both]
    insist(sorted(codes) == [0, 1], f"exit codes {codes}: {said}")
    _refused(said[codes.index(1)], place)


def _beside_up(one: Place, two: Place, *, result: Result) -> None:
    one.down()
    with result.timed("both clusters"):
        building, other = one.start_up(), two.start_up()
        one.wait_step(building, _UP_STEP)
        for words in (("up", str(one.cluster.folder)), ("down", one.name, "--yes")):
            _second(one, words, result=result)
        _second(one, ("plan", str(one.cluster.folder)), result=result, code=0)
        for place, process in ((one, building), (two, other)):
            insist(place.ended(process) == 0, f"`up` failed: {place.tail()}")
    shapes = one.shape(), two.shape()
    insist(shapes[0] == shapes[1], f"only in the first: {shapes[0] - shapes[1]}, only in the second: {shapes[1] - shapes[0]}")
    for place, shape in zip((one, two), shapes, strict=True):
        place.check(shape)


def _beside_down(one: Place, two: Place, *, result: Result) -> None:
    with result.timed("both clusters"):
        removing, other = (place.start("down", place.name, "--yes", "--output", "json") for place in (one, two))
        one.wait_step(removing, _DOWN_STEP)
        for words in (("up", str(one.cluster.folder)), ("down", one.name, "--yes")):
            _second(one, words, result=result)
        for place, process in ((one, removing), (two, other)):
            insist(place.ended(process) == 0, f"`down` failed: {place.tail()}")
            insist(place.record is None, "a record is left")


def _second(place: Place, words: tuple[str, ...], *, result: Result, code: int = 1) -> None:
    """The command comes while another works on the cluster."""
    began = time.monotonic()
    done = subprocess.run([*MOYAI, *words], capture_output=True, text=True, timeout=TIMEOUT, check=False)
    result.times[f"`{words[0]}`"] = seconds = time.monotonic() - began
    insist(done.returncode == code, f"`{words[0]}` ended with {done.returncode}: {done.stderr[-1000:]}")
    if code:
        _refused(done.stderr, place)
        insist(seconds < REFUSED, f"`{words[0]}` was refused only after {seconds:.0f} s")


def _refused(said: str, place: Place) -> None:
    last = [line for line in said.splitlines() if line.startswith("moyai: ")]
    insist(
        len(last) == 1 and "another moyai (process " in last[0] and f"is working on cluster {place.name}" in last[0],
        f"the refusal is {said[-1000:]!r}",
    )
    insist("Traceback" not in said, said[-2000:])
