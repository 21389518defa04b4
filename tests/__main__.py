"""``python -m tests``: all tests that need root, but those in virtual machines. Its exit code is 0 when all passed.

One after the other what watches the clock or counts all that the cloud has; then the end-to-end tests in two halves side by
side, on one cloud: each waits much of its time, and several clusters in one cloud are what users have as well.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading

from tests.conftest import running_cloud

ALONE = ("tests/cloud", "tests/e2e/test_bad_luck.py")
HALVES = ("shared", "own")


def pytest(*words: str, cloud: str = "", prefix: str = "") -> int:
    """Run pytest to its end, its lines as they come behind ``prefix``; its exit code."""
    argv = [sys.executable, "-m", "pytest", "--durations=25", *words]
    environment = {**os.environ, **({"MOYAI_TEST_CLOUD": cloud} if cloud else {})}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(prefix + line, end="", flush=True)
    return process.returncode


def main() -> int:
    codes = [pytest("tests/netns")]
    with running_cloud() as cloud:
        codes.append(pytest(*ALONE, cloud=cloud))

        def half(name: str) -> None:
            left_out = f"--ignore={ALONE[1]}"
            codes.append(pytest("--verbose", "tests/e2e", left_out, f"--clusters={name}", cloud=cloud, prefix=f"[{name}] "))

        threads = [threading.Thread(target=half, args=(name,)) for name in HALVES]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
