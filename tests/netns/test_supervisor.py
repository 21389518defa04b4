"""The supervisor with real processes: order, readiness, restarts, and a supervisor that is itself killed.

The socket's path must be short, so the folders are made below the system's own for temporary files.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from moyai.core.clock import SystemClock
from moyai.core.errors import MoyaiError, Retriable, Terminal
from moyai.core.waiting import NotYet, until
from moyai.linux import proc
from moyai.localcloud.control import Control
from moyai.localcloud.supervision import ServiceStatus
from tests.command_lines import naming

#: Seconds after which a state that has not come counts as a failure; far more than a busy machine takes.
PATIENCE = 120

# waits for a file next to the socket's path, then listens on the Unix socket that its argument names
SERVER = """
import pathlib, socket, sys, time
path = pathlib.Path(sys.argv[1])
while not path.with_suffix(".go").exists():
    time.sleep(0.01)
path.unlink(missing_ok=True)
server = socket.socket(socket.AF_UNIX)
server.bind(str(path))
server.listen()
time.sleep(60)
"""


class Site:
    """A folder as of a cloud, its supervisor, and what it started."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.control = Control(root / "run" / "supervisor.sock")
        self.process: subprocess.Popen[bytes] | None = None
        for name in ("run", "log"):
            (root / name).mkdir()

    def plan(self, *services: dict[str, Any], held: tuple[str, ...] = ()) -> None:
        base: dict[str, Any] = {"env": {}, "after": [], "port": 0, "socket": "", "netns": "", "stop": "SIGTERM"}
        plan = {"address": "127.0.0.1", "services": [{**base, **one} for one in services], "held": held}
        (self.root / "run" / "services.json").write_text(json.dumps(plan))

    def start(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-m", "moyai.localcloud.supervisor", str(self.root)])
        self.control.wait_answer(PATIENCE)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def __getitem__(self, name: str) -> ServiceStatus:
        return next(one for one in self.control.status() if one.name == name)

    def until(self, true: Callable[[], bool]) -> None:
        def check() -> bool | NotYet:
            return true() or NotYet(f"another state than {[vars(one) for one in self.control.status()]}")

        until(check, clock=SystemClock(), timeout=PATIENCE, pause=0.02)

    def end(self) -> None:
        with contextlib.suppress(Retriable):
            running = [one.pid for one in self.control.status() if one.pid]
            self.kill()
            for pid in running:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
        if self.process and self.process.poll() is None:
            self.kill()


@pytest.fixture
def site() -> Generator[Site]:
    root = Path(tempfile.mkdtemp(prefix="mo-"))
    found = Site(root)
    yield found
    found.end()
    shutil.rmtree(root)


def sleeper(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "argv": ["/bin/sleep", "60"], **more}


def test_a_service_waits_until_what_it_needs_is_ready(site: Site) -> None:
    socket = site.root / "run" / "a.sock"
    first = {"name": "first", "argv": [sys.executable, "-c", SERVER, str(socket)], "socket": str(socket)}
    site.plan(first, sleeper("second", after=["first"]))
    site.start()
    site.until(lambda: site["first"].phase == "starting")
    assert site["second"].phase == "waiting"
    socket.with_suffix(".go").touch()
    site.control.wait_ready(["first", "second"], PATIENCE)


def test_a_held_service_starts_when_it_is_released_and_not_before(site: Site) -> None:
    site.plan(sleeper("held"), sleeper("free"), held=("held",))
    site.start()
    site.control.wait_ready(["free"], PATIENCE)
    assert (site["held"].phase, site["held"].pid) == ("held", 0)
    site.control.release(["held"])
    site.control.wait_ready(["held"], PATIENCE)


def test_what_dies_is_started_again_and_counted(site: Site) -> None:
    site.plan(sleeper("one"))
    site.start()
    site.control.wait_ready(["one"], PATIENCE)
    before = site["one"].pid
    os.kill(before, signal.SIGKILL)
    site.until(lambda: site["one"].restarts == 1 and site["one"].phase == "ready")
    assert site["one"].pid not in {0, before}
    assert site["one"].last_exit == "was killed by SIGKILL"
    assert "one was killed by SIGKILL" in (site.root / "log" / "supervisor.log").read_text()


def test_what_a_dead_service_left_behind_is_ended_before_it_starts_again(site: Site) -> None:
    # the file appears whole: a file that is still empty names no child
    script = "sleep 61 & echo $! > $0.new; mv $0.new $0.children; wait"
    children = site.root / "run" / "family.children"
    site.plan({"name": "family", "argv": ["/bin/sh", "-c", script, str(site.root / "run" / "family")]})
    site.start()
    site.until(children.exists)
    child = proc.ProcessRecord.of(int(children.read_text()))
    os.kill(site["family"].pid, signal.SIGKILL)
    site.until(lambda: site["family"].restarts == 1)
    site.until(lambda: not child.alive())


def test_a_killed_supervisor_finds_its_services_again(site: Site) -> None:
    site.plan(sleeper("one"), sleeper("two"))
    site.start()
    site.control.wait_ready(["one", "two"], PATIENCE)
    os.kill(site["one"].pid, signal.SIGKILL)
    site.until(lambda: site["one"].restarts == 1 and site["one"].phase == "ready")
    before = {one.name: (one.pid, one.restarts) for one in site.control.status()}
    site.kill()
    site.start()
    site.control.wait_ready(["one", "two"], PATIENCE)
    assert {one.name: (one.pid, one.restarts) for one in site.control.status()} == before
    # and it still notices when an adopted one dies
    os.kill(site["two"].pid, signal.SIGKILL)
    site.until(lambda: site["two"].restarts == 1 and site["two"].phase == "ready")


def test_a_service_that_died_while_nobody_watched_is_started(site: Site) -> None:
    site.plan(sleeper("one"))
    site.start()
    site.control.wait_ready(["one"], PATIENCE)
    before = proc.ProcessRecord.of(site["one"].pid)
    site.kill()
    os.kill(before.pid, signal.SIGKILL)
    # a signal only asks: until the process has ended, a supervisor would find it running
    until(lambda: not before.alive() or NotYet("its end"), clock=SystemClock(), timeout=PATIENCE, pause=0.02)
    site.start()
    site.control.wait_ready(["one"], PATIENCE)
    assert site["one"].pid != before.pid


def test_reload_adds_services_and_leaves_the_running_ones(site: Site) -> None:
    site.plan(sleeper("one"))
    site.start()
    site.control.wait_ready(["one"], PATIENCE)
    before = site["one"].pid
    site.plan(sleeper("one"), sleeper("two"))
    site.control.reload()
    assert site.process is not None
    site.process.wait(PATIENCE)
    site.start()
    site.control.wait_ready(["one", "two"], PATIENCE)
    assert site["one"].pid == before


def test_restart_on_request(site: Site) -> None:
    site.plan(sleeper("one"))
    site.start()
    site.control.wait_ready(["one"], PATIENCE)
    before = site["one"].pid
    site.control.restart(["one"])
    site.until(lambda: site["one"].pid not in {0, before})
    assert site["one"].last_exit == "was killed by SIGTERM"


def test_a_service_that_cannot_stay_up_is_named(site: Site) -> None:
    site.plan({"name": "bad", "argv": ["/bin/sh", "-c", "exit 3"], "socket": "/nowhere"})
    site.start()
    with pytest.raises(MoyaiError, match=r"bad keeps dying \(ended with 3\)"):
        site.control.wait_ready(["bad"], PATIENCE, patience=1)


def test_a_program_that_is_missing_is_told(site: Site) -> None:
    site.plan({"name": "gone", "argv": ["/no/such/program"]})
    site.start()
    site.until(lambda: "cannot be started" in site["gone"].last_exit)


def test_time_runs_out_with_the_names_of_what_is_missing(site: Site) -> None:
    site.plan(sleeper("slow", socket="/nowhere"))
    site.start()
    with pytest.raises(MoyaiError, match=r"not ready after 0 s: slow"):
        site.control.wait_ready(["slow"], 0.3)


# ---- a service is on record before it runs

#: The supervisor, which dies or meets a full disk as soon as the process of a service exists.
UNLUCKY = """
import os, signal, sys
from moyai.linux import proc
from moyai.localcloud import supervisor
made = proc.ProcessRecord.of
def of(pid):
    {fault}
    return made(pid)
proc.ProcessRecord.of = of
supervisor.main()
"""


def runs(mark: Path) -> int:
    """How often the service has begun to run."""
    return len(mark.read_text()) if mark.exists() else 0


def marking(mark: Path) -> dict[str, Any]:
    return {"name": "one", "argv": ["/bin/sh", "-c", f"printf x >> {mark}; exec sleep 60"]}


def test_a_supervisor_killed_before_a_service_is_on_record_starts_it_once(site: Site) -> None:
    mark = site.root / "run" / "mark"
    site.plan(marking(mark))
    unlucky = UNLUCKY.format(fault="os.kill(os.getpid(), signal.SIGKILL)")
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", unlucky, str(site.root)], check=False, timeout=PATIENCE)
        assert done.returncode == -signal.SIGKILL
    assert not (site.root / "run" / "services" / "one.json").exists()
    site.start()
    site.control.wait_ready(["one"], PATIENCE)
    site.until(lambda: runs(mark) == 1)
    # the shell that has left its mark becomes the service a moment later
    site.until(lambda: not naming(str(mark)))
    assert site["one"].restarts == 0


def test_a_service_that_cannot_be_put_on_record_does_not_run(site: Site) -> None:
    """As on a full disk: it is tried again, and runs once there is room."""
    mark = site.root / "run" / "mark"
    site.plan(marking(mark))
    record = site.root / "run" / "services" / "one.json"
    blocked = record.with_name("one.json.new") / "full"
    blocked.mkdir(parents=True)
    site.start()
    site.until(lambda: "cannot be started" in site["one"].last_exit)
    assert runs(mark) == 0
    assert not naming(str(mark))
    shutil.rmtree(blocked.parent)
    site.control.wait_ready(["one"], PATIENCE)
    site.until(lambda: runs(mark) == 1)


def test_a_release_that_cannot_be_put_on_record_is_refused_in_one_line(site: Site) -> None:
    site.plan(sleeper("held"), held=("held",))
    site.start()
    blocked = site.root / "run" / "released.new" / "full"
    blocked.mkdir(parents=True)
    with pytest.raises(Terminal, match=r"/run/released cannot be written: Is a directory"):
        site.control.release(["held"])
    assert site["held"].phase == "held"
    shutil.rmtree(blocked.parent)
    site.control.release(["held"])
    site.control.wait_ready(["held"], PATIENCE)


def test_a_service_gets_exactly_its_environment_and_no_input(site: Site) -> None:
    file = site.root / "run" / "environment"
    script = (
        f"{{ tr '\\0' '\\n' </proc/self/environ; readlink /proc/self/fd/0; }} >{file}.new; mv {file}.new {file}; exec sleep 60"
    )
    site.plan({"name": "one", "argv": ["/bin/sh", "-c", script], "env": {"MARK": "a b"}})
    site.start()
    site.until(file.exists)
    assert sorted(file.read_text().split("\n")) == sorted(["", "MARK=a b", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "/dev/null"])
