"""`moyai-lbd`: keeps every load balancer of this host as Octavia's database wants it.

    python -m moyai.localcloud.drivers.octavia.agent --config-file octavia.conf

The database is the queue: every object in a PENDING status is work. The provider driver's datagram only triggers a scan. If the
datagram is lost, the next regular scan finds the work. Any process may be killed at any time without a loss, because every load
balancer is applied as a whole, and HAProxy is no child of this process. Work on one load balancer is serial. Work on different
load balancers runs at the same time.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from moyai.linux import netns
from moyai.linux.process import ProcessError
from moyai.localcloud.drivers.octavia import operating_status, reports, statistics, vip_link
from moyai.localcloud.drivers.octavia.balancer_tree import PENDING_DELETE, LoadBalancer, Member
from moyai.localcloud.drivers.octavia.data_plane import Plane, health_of, udp_checks
from moyai.localcloud.drivers.octavia.udp_checks import UdpChecks

LOG = logging.getLogger(__name__)
SOCKET = "lbd.sock"
TICK = 1.0  # seconds between two looks at the database and at the members' health
COUNT = 5.0  # seconds between two reports of statistics
TIDY = 600.0  # seconds between two searches for what an API call that failed left in Neutron
TRIES = 5


class WantedState(Protocol):
    """What is wanted, and where to report: `octavia_database.OctaviaDatabase`, or a test's own."""

    def pending(self) -> list[str]: ...
    def everything(self) -> list[str]: ...
    def committed(self, balancer_id: str) -> str | None: ...
    def load(self, balancer_id: str) -> LoadBalancer | None: ...
    def report(self, status: reports.Report) -> None: ...
    def plug(self, port_id: str) -> vip_link.Plug: ...
    def release_port(self, balancer_id: str, port_id: str, *, taken: vip_link.PortBefore | None) -> None: ...
    def statistics(self, gains: list[dict[str, int | str]]) -> None: ...
    def tidy(self, host: str) -> None: ...


class LoadBalancerAgent:
    """The daemon. ``run`` returns after ``stop``."""

    def __init__(self, store: WantedState, root: Path, *, host: str = "", workers: int = 6) -> None:
        self._store = store
        self._root = root
        self._host = host
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="lb")
        self._lock = threading.Lock()
        self._busy: set[str] = set()
        self._again: set[str] = set()
        self._trees: dict[str, LoadBalancer] = {}
        self._shown: dict[str, operating_status.Statuses] = {}
        self._health: dict[str, dict[str, bool | None]] = {}  # as it was last acted upon
        self._checks = UdpChecks(lambda one: self._submit(one, lambda: self._health_changed(one)))
        self._counted: dict[str, statistics.Counters] = {}  # by listener, as last read
        self._watched: dict[str, tuple[int, int]] = {}  # balancer → (pid, pidfd) of its HAProxy
        self._selector = selectors.DefaultSelector()
        self._stopping = threading.Event()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    # ---- the loop

    def run(self) -> None:
        """Serve until ``stop``."""
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self._root / "lock").open("w") as lock, _datagrams(self._root / SOCKET, lock) as calls:
            self._selector.register(calls, selectors.EVENT_READ, "call")
            self._selector.register(self._wake_read, selectors.EVENT_READ, "wake")
            self._checks.start()
            self._begin()
            due = count_due = tidy_due = time.monotonic()
            while not self._stopping.is_set():
                for key, _ in self._selector.select(max(0.0, due - time.monotonic())):
                    self._on_event(key, calls)
                if time.monotonic() >= due:
                    due = time.monotonic() + TICK
                    self._guard("look at the database and the members", self._tick)
                if time.monotonic() >= count_due:
                    count_due = time.monotonic() + COUNT
                    self._pool.submit(self._guard, "count", self._count)
                if time.monotonic() >= tidy_due:
                    tidy_due = time.monotonic() + TIDY
                    self._pool.submit(self._guard, "tidy up", lambda: self._store.tidy(self._host))
            self._checks.stop()
            self._pool.shutdown(wait=True)

    def stop(self) -> None:
        """End ``run`` soon. The load balancers go on serving."""
        self._stopping.set()
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"x")

    def _on_event(self, key: selectors.SelectorKey, calls: socket.socket) -> None:
        if key.data == "call":
            with contextlib.suppress(BlockingIOError):
                while True:
                    verb, balancer_id, *rest = calls.recv(200).decode(errors="replace").split()
                    self._submit(balancer_id, lambda one=balancer_id, verb=verb, rest=rest: self._called(one, verb, *rest))
        elif key.data == "wake":
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_read, 4096)
        else:
            self._on_death(key.data)

    def _begin(self) -> None:
        """Recreate everything, and take away what no load balancer wants any more."""
        while not self._stopping.is_set():
            try:
                wanted = self._store.everything()
                break
            except Exception as error:
                LOG.warning("the database does not answer yet: %s", _first_line(error))
                self._stopping.wait(2)
        else:
            return
        known = {name.removeprefix(vip_link.PREFIX) for name in netns.names(vip_link.PREFIX)}
        known |= {entry.name for entry in self._root.iterdir() if entry.is_dir()}
        LOG.info("%d load balancers wanted, %d found here", len(wanted), len(known))
        for balancer_id in {*wanted, *known}:
            self._submit(balancer_id, lambda one=balancer_id: self.reconcile(one))

    def _tick(self) -> None:
        for balancer_id in self._store.pending():
            self._submit(balancer_id, lambda one=balancer_id: self.reconcile(one))
        for balancer_id in list(self._trees):
            self._guard(f"look at {balancer_id}", lambda one=balancer_id: self._look(one))

    # ---- jobs: one at a time for each load balancer

    def _submit(self, balancer_id: str, job: Callable[[], None]) -> None:
        with self._lock:
            if self._stopping.is_set():
                return
            if balancer_id in self._busy:
                self._again.add(balancer_id)
                return
            self._busy.add(balancer_id)
        self._pool.submit(self._work, balancer_id, job)

    def _work(self, balancer_id: str, job: Callable[[], None]) -> None:
        while True:
            self._guard(f"load balancer {balancer_id}", job)
            with self._lock:
                if balancer_id not in self._again:
                    self._busy.discard(balancer_id)
                    return
                self._again.discard(balancer_id)
            job = lambda: self.reconcile(balancer_id)  # noqa: E731 - the same load balancer, once more

    def _guard(self, what: str, job: Callable[[], None]) -> None:
        try:
            job()
        except Exception:
            LOG.exception("%s: failed", what)

    def _called(self, balancer_id: str, verb: str, port_id: str = "") -> None:
        """The driver was called, in the midst of the API's transaction. ``port``: a VIP port was made, plug it already."""
        plane = Plane(self._root, balancer_id)
        if verb == "port":
            self._guard(f"port {port_id} of load balancer {balancer_id}", lambda: self._prepare(plane, port_id))
        status = self._store.committed(balancer_id)
        if status is None and verb == "port":
            LOG.warning("load balancer %s was not created after all: its port goes", balancer_id)
            plane.unplug()
            self._store.release_port(balancer_id, port_id, taken=plane.port_before)
            plane.remove()
        elif status is not None and status.startswith("PENDING_"):
            self.reconcile(balancer_id, rebuild=verb == "failover")

    def _prepare(self, plane: Plane, port_id: str) -> None:
        plug = self._store.plug(port_id)
        plane.keep(plug)
        vip_link.ensure(plane.id, plug)

    def reconcile(self, balancer_id: str, *, rebuild: bool = False) -> None:
        """Read the whole tree, make it so, report. ``rebuild``: take namespace and processes away first."""
        plane = Plane(self._root, balancer_id)
        balancer = self._store.load(balancer_id)
        if balancer is None or balancer.status == PENDING_DELETE:
            self._forget(balancer_id)
            self._delete(plane, balancer)
            return
        for attempt in range(1, TRIES + 1):
            try:
                self._apply(balancer, plane, rebuild=rebuild and attempt == 1)
            except ProcessError as error:
                self._failed(balancer, error)
                return
            except Exception as error:
                LOG.warning("load balancer %s: %s (try %d)", balancer_id, _first_line(error), attempt)
                if attempt == TRIES:
                    self._failed(balancer, error)
                    return
                self._stopping.wait(0.5 * attempt)
            else:
                return

    def _apply(self, balancer: LoadBalancer, plane: Plane, *, rebuild: bool) -> None:
        if rebuild:
            plane.unplug()
            plane.forget_plug()
        plug = plane.plug
        if plug is None or plug.port_id != balancer.vip_port_id:
            plug = self._store.plug(balancer.vip_port_id)
            plane.keep(plug)
        if not netns.exists(plane.namespace):
            self._checks.restart(balancer.id)
        plane.apply(balancer, plug, health=self._known(balancer, plane))
        self._checks.set(balancer.id, plane.namespace, checks=udp_checks(balancer))
        self._watch(balancer.id, plane)
        self._succeeded(balancer, plane)

    def _delete(self, plane: Plane, balancer: LoadBalancer | None) -> None:
        there = plane.there()
        plane.unplug()
        if balancer is not None:
            self._store.release_port(balancer.id, balancer.vip_port_id, taken=plane.port_before)
        plane.remove()
        if there:
            LOG.info("load balancer %s is gone", plane.id)
        if balancer is None:
            return
        for report in reports.deleted(balancer):
            self._store.report(report)

    def _succeeded(self, balancer: LoadBalancer, plane: Plane) -> None:
        health = self._known(balancer, plane)
        statuses = operating_status.derive(balancer, health)
        report = reports.applied(balancer, statuses)
        for listener in balancer.listeners:
            if listener.status == "PENDING_CREATE":
                self._counted.setdefault(listener.id, statistics.Counters())
        self._trees[balancer.id] = balancer
        self._shown[balancer.id] = statuses
        self._health[balancer.id] = health
        if report:
            self._store.report(report)
            LOG.info("load balancer %s serves (%s)", balancer.id, statuses["loadbalancers"][balancer.id])

    def _failed(self, balancer: LoadBalancer, error: Exception) -> None:
        LOG.error("load balancer %s cannot be made so: %s", balancer.id, error, exc_info=not isinstance(error, ProcessError))
        self._store.report(reports.failed(balancer))

    # ---- health

    def _known(self, balancer: LoadBalancer, plane: Plane) -> dict[str, bool | None]:
        """What all checks say now. Of a new HAProxy's unfinished first check the former result is taken."""
        former = {
            one.id: one.operating == operating_status.ONLINE for pool in balancer.pools for one in pool.members if _judged(one)
        }
        found = {**health_of(balancer, plane.rows()), **self._checks.results(balancer.id)}
        return {one: former.get(one) if works is None else works for one, works in found.items()}

    def _look(self, balancer_id: str) -> None:
        """See whether the checks found something new since the last look."""
        with self._lock:
            busy = balancer_id in self._busy
        balancer = self._trees.get(balancer_id)
        if busy or balancer is None:
            return
        if self._known(balancer, Plane(self._root, balancer_id)) != self._health.get(balancer_id):
            self._submit(balancer_id, lambda: self._health_changed(balancer_id))

    def _health_changed(self, balancer_id: str) -> None:
        """Act upon what the checks found: the kernel's members, then the operating statuses."""
        balancer = self._trees.get(balancer_id)
        if balancer is None:
            return
        plane = Plane(self._root, balancer_id)
        health = self._known(balancer, plane)
        plane.apply_rules(balancer, health)
        statuses = operating_status.derive(balancer, health)
        report = reports.changes(self._shown.get(balancer_id, {}), statuses)
        if report:
            self._store.report(report)
            for kind, changes in report.items():
                LOG.info(
                    "load balancer %s: %s",
                    balancer_id,
                    ", ".join(f"{kind} {one['id']} {one['operating_status']}" for one in changes),
                )
        self._shown[balancer_id], self._health[balancer_id] = statuses, health

    def _count(self) -> None:
        """Report the listeners' new traffic. The first look at an old listener only reads its counters."""
        gains: list[dict[str, int | str]] = []
        for balancer_id, balancer in list(self._trees.items()):
            plane = Plane(self._root, balancer_id)
            for listener_id, now in statistics.read(balancer, plane.rows(), datagrams=plane.datagrams()).items():
                former = self._counted.get(listener_id)
                self._counted[listener_id] = now
                gain = now.since(former) if former else statistics.Counters(active=now.active)
                if former is None or gain != statistics.Counters() or former.active:
                    gains.append(gain.as_delta(listener_id))
        if gains:
            self._store.statistics(gains)

    # ---- HAProxy dies

    def _watch(self, balancer_id: str, plane: Plane) -> None:
        pid = plane.haproxy.pid()
        with self._lock:
            former = self._watched.get(balancer_id)
            if former and former[0] == pid:
                return
            self._unwatch(balancer_id)
            if pid is None:
                return
            try:
                descriptor = os.pidfd_open(pid)
            except ProcessLookupError:
                self._again.add(balancer_id)
                return
            self._watched[balancer_id] = (pid, descriptor)
            self._selector.register(descriptor, selectors.EVENT_READ, balancer_id)
        self._wake()

    def _unwatch(self, balancer_id: str) -> None:
        if former := self._watched.pop(balancer_id, None):
            with contextlib.suppress(KeyError):
                self._selector.unregister(former[1])
            os.close(former[1])

    def _on_death(self, balancer_id: str) -> None:
        with self._lock:
            former = self._watched.get(balancer_id)
            busy = balancer_id in self._busy
            self._unwatch(balancer_id)
        if former and not busy:
            LOG.warning("HAProxy %d of load balancer %s died; starting it again", former[0], balancer_id)
        if former:
            self._submit(balancer_id, lambda: self.reconcile(balancer_id))

    def _forget(self, balancer_id: str) -> None:
        if balancer := self._trees.pop(balancer_id, None):
            for listener in balancer.listeners:
                self._counted.pop(listener.id, None)
        self._shown.pop(balancer_id, None)
        self._health.pop(balancer_id, None)
        self._checks.restart(balancer_id)
        with self._lock:
            self._unwatch(balancer_id)


def _judged(member: Member) -> bool:
    return member.operating in (operating_status.ONLINE, operating_status.ERROR)


@contextlib.contextmanager
def _datagrams(path: Path, lock: object):
    """The socket on which the driver calls; one daemon at a time (a second one waits until the first is gone)."""
    fcntl.flock(lock, fcntl.LOCK_EX)  # pyright: ignore[reportArgumentType]
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as calls:
        calls.bind(os.fspath(path))
        path.chmod(0o600)
        calls.setblocking(False)
        yield calls


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def main() -> None:
    """Read Octavia's configuration (arguments as every OpenStack service), then serve until SIGTERM."""
    from moyai.localcloud.drivers.octavia import provider_settings

    settings = provider_settings.prepare()
    from moyai.localcloud.drivers.octavia.octavia_database import OctaviaDatabase

    agent = LoadBalancerAgent(OctaviaDatabase(), settings.folder, host=settings.host)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: agent.stop())
    agent.run()


if __name__ == "__main__":
    main()
