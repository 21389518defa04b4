"""Runs Kubernetes' own tests against a cluster: the pinned ginkgo and e2e.test, its log, and a time after which it ends.

Ginkgo is ended with SIGTERM and a time of grace: when it is started in the background, it ignores SIGINT, and it waits for a
test even if the test ignores the end.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from moyai.core.paths import Paths
from moyai.core.progress import Reporter
from moyai.linux.process import run
from moyai.toolchain import Toolchain
from tests.conformance.log import LogReader, Outcome
from tests.conformance.parts import Part, Spec, patterns, read_specs

#: Seconds between SIGTERM and SIGKILL: a test takes its namespace away in that time.
GRACE = 90.0


@dataclass(frozen=True)
class Programs:
    """The pinned programs."""

    ginkgo: Path
    tests: Path
    kubectl: Path

    @classmethod
    def ensure(cls, paths: Paths, reporter: Reporter) -> Programs:
        """The programs, built where they are missing."""
        made = Toolchain(paths, reporter).ensure(["e2e", "kubernetes"])
        e2e = made["e2e"].files
        return cls(e2e["ginkgo"], e2e["e2e.test"], made["kubernetes"].files["kubectl"])

    def specs(self, more: Sequence[str]) -> list[Spec]:
        """All tests that e2e.test has with the options ``more``. No cluster is asked."""
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.json"
            words = [self.tests, "--ginkgo.dry-run", "--ginkgo.silence-skips", f"--ginkgo.json-report={report}", *more]
            run(words, cwd=Path(folder))
            return read_specs(json.loads(report.read_text()))


@dataclass(frozen=True)
class Target:
    """The cluster that is tested. ``nodes``: how many workers it has."""

    kubeconfig: Path
    nodes: int

    def clear(self, kubectl: Path) -> None:
        """Take away the namespaces that a killed run left."""
        words = ["delete", "namespaces", "--selector=e2e-run", "--ignore-not-found", "--timeout=300s"]
        run([kubectl, f"--kubeconfig={self.kubeconfig}", *words])


def command(programs: Programs, target: Target, *, part: Part, names: Sequence[str], processes: int) -> list[str]:
    """The command line that runs the tests ``names``."""
    return [
        str(programs.ginkgo),
        f"--procs={processes}",
        "--no-color",
        "-v",
        "--timeout=24h",
        *(f"--focus={pattern}" for pattern in patterns(names)),
        str(programs.tests),
        "--",
        f"--kubeconfig={target.kubeconfig}",
        f"--kubectl-path={programs.kubectl}",
        "--provider=skeleton",
        f"--num-nodes={target.nodes}",
        *part.words,
    ]


def run_tests(
    words: Sequence[str], names: Sequence[str], *, log: Path, seconds: float, on_outcome: Callable[[Outcome], None]
) -> int:
    """Run ginkgo; its output is added to ``log``, and each test's outcome goes to ``on_outcome`` when the test ends.

    After ``seconds`` it is ended; tests that ran at that moment have no outcome. Returns ginkgo's exit code.
    """
    reader = LogReader(names)
    with (
        log.open("a") as file,
        tempfile.TemporaryDirectory() as folder,
        _ginkgo(words, Path(folder), seconds=seconds) as process,
    ):
        for line in _lines(process):
            file.write(line)
            if outcome := reader.feed(line):
                file.flush()
                on_outcome(outcome)
        return process.wait()


def _lines(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stdout is not None
    return process.stdout


@contextlib.contextmanager
def _ginkgo(words: Sequence[str], folder: Path, *, seconds: float) -> Generator[subprocess.Popen[str]]:
    """Ginkgo in a session of its own, which ends with this block; ``folder``: where the tests may leave files."""
    environment = {name: value for name, value in os.environ.items() if name != "KUBECONFIG"}
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", cwd=folder,
        env={**environment, "TMPDIR": str(folder)}, stdin=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip

    def send(number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)

    timers = [threading.Timer(seconds, send, (signal.SIGTERM,)), threading.Timer(seconds + GRACE, send, (signal.SIGKILL,))]
    for timer in timers:
        timer.daemon = True
        timer.start()
    try:
        yield process
    except BaseException:  # Ctrl-C too: the tests' namespaces go in the time of grace
        send(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=GRACE)  # reads on: who cannot write does not end
        send(signal.SIGKILL)
        raise
    finally:
        for timer in timers:
            timer.cancel()
        process.wait()
        _lines(process).close()
