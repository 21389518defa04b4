"""``python -m tests``: all tests that need root, but those in virtual machines. Its exit code is 0 when all passed.

Side by side runs what does not meet: first the kernel's tests, which mostly wait, and a cloud's whole life, beside what counts
all that the tests' own cloud has; then the end-to-end tests in two halves on that cloud, as several clusters in one cloud are
what users have as well. At the end the tests that failed are named once more, as the lanes' own summaries are far up.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from itertools import chain

from tests.conftest import running_cloud

#: A cloud of its own, started again and again.
LIFE = "tests/cloud/test_localcloud_life.py"
BAD_LUCK = "tests/e2e/test_bad_luck.py"
HALVES = ("shared", "own")


class Lane:
    """One pytest, running beside others: its lines come as they are said, behind the lane's name."""

    def __init__(self, name: str, words: Sequence[str], *, cloud: str = "") -> None:
        environment = {**os.environ, **({"MOYAI_TEST_CLOUD": cloud} if cloud else {})}
        argv = [sys.executable, "-m", "pytest", "--verbose", "--durations=25", "-rfE", *words]
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


def main() -> int:
    host = Lane("host", ["tests/netns", LIFE])
    with running_cloud() as cloud:
        site = Lane("cloud", ["tests/cloud", f"--ignore={LIFE}", BAD_LUCK], cloud=cloud)
        codes = [host.end(), site.end()]
        halves = [Lane(name, ["tests/e2e", f"--ignore={BAD_LUCK}", f"--clusters={name}"], cloud=cloud) for name in HALVES]
        codes += [half.end() for half in halves]
    for failure in chain.from_iterable(lane.failures for lane in (host, site, *halves)):
        print(failure, flush=True)
    return 1 if any(codes) else 0


if __name__ == "__main__":
    sys.exit(main())
