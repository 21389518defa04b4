"""``python -m tests``: all tests that need root, but the long ones and those in virtual machines.

Its exit code is 0 when all passed.

Tests that do not disturb each other run side by side. The first part runs the kernel's tests, which mostly wait, and the test
of a cloud's whole life, beside the tests that count everything in the tests' own cloud. The second part runs the end-to-end
tests in two halves on that cloud; users have several clusters in one cloud, too. The end of the output names the failed tests
once more, because the summaries of the lanes stand far above it.
If it is ended by a signal, its lanes end too, and with them what they have built; of SIGKILL the kernel tells them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from itertools import chain
from types import FrameType

from tests.conftest import running_cloud

#: A cloud of its own, started again and again.
LIFE = "tests/cloud/test_localcloud_life.py"
BAD_LUCK = "tests/e2e/test_bad_luck.py"
HALVES = ("shared", "own")


class Lane:
    """One pytest, running beside others: its lines come as they are said, behind the lane's name."""

    def __init__(self, name: str, words: Sequence[str], *, cloud: str = "") -> None:
        environment = {**os.environ, **({"MOYAI_TEST_CLOUD": cloud} if cloud else {})}
        argv = ["setpriv", "--pdeathsig", "INT", sys.executable, "-m", "pytest", "--verbose", "--durations=25", "-rfE", *words]
        self.failures: list[str] = []
        self._process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
        self._reader = threading.Thread(target=self._show, args=(name,))
        self._reader.start()

    def _show(self, name: str) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            print(f"[{name}] {line}", end="", flush=True)
            # pytest's short summary; the lines of single tests name the test first
            if line.startswith(("FAILED ", "ERROR ")):
                self.failures.append(f"[{name}] {line.rstrip()}")

    def end(self) -> int:
        """Wait for it; its exit code."""
        self._reader.join()
        return self._process.wait()

    def stop(self) -> None:
        """End it as Ctrl-C does, so that its fixtures take down what they have built; nothing happens after its end."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        self._reader.join()


@contextmanager
def running(lanes: list[Lane]) -> Generator[list[Lane]]:
    try:
        yield lanes
    finally:
        for lane in lanes:
            lane.stop()


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main() -> int:
    # a shell that puts a command into the background lets it ignore SIGINT, and its children too
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)
    with running([Lane("host", ["tests/netns", LIFE])]) as (host,), running_cloud() as cloud:
        with running([Lane("cloud", ["tests/cloud", f"--ignore={LIFE}", BAD_LUCK], cloud=cloud)]) as (site,):
            codes = [host.end(), site.end()]
        words = ["tests/e2e", f"--ignore={BAD_LUCK}", "-m", "not long"]
        with running([Lane(name, [*words, f"--clusters={name}"], cloud=cloud) for name in HALVES]) as halves:
            codes += [half.end() for half in halves]
    for failure in chain.from_iterable(lane.failures for lane in (host, site, *halves)):
        print(failure, flush=True)
    return 1 if any(codes) else 0


if __name__ == "__main__":
    sys.exit(main())
