"""`moyai-lbd`: keeps every load balancer of this host as Octavia's database wants it.

    python -m moyai.localcloud.drivers.octavia.agent --config-file octavia.conf

The database is the queue: what is PENDING_* is to be done. The provider driver's datagram only says "look now"; when it is
lost, the next scan finds the work. Kill anything at any time: nothing is lost, since every load balancer is applied as a whole
and HAProxy is no child of this process. Serial for each load balancer, side by side across them (`keyed_work`, `keeper`).

This loop never waits for a load balancer, HAProxy or the database. Without changes, nothing here costs more when there are more
load balancers, but each one's own look at its statistics.
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
from pathlib import Path

from moyai.linux import netns
from moyai.localcloud.drivers.octavia import keeper, vip_link
from moyai.localcloud.drivers.octavia.keeper import Call, Keeper, Surroundings, WantedState
from moyai.localcloud.drivers.octavia.keyed_work import KeyedWork
from moyai.localcloud.drivers.octavia.udp_checks import UdpChecks

LOG = logging.getLogger(__name__)
SOCKET = "lbd.sock"
TICK = 1.0  # seconds between two scans of the database
TIDY = 600.0  # seconds between two searches for what an API call that failed left in Neutron
WORKERS = 24  # each may wait for HAProxy, Neutron's agent or the database; that many connections Octavia's pool has
_SCAN, _TIDY = Call("scan"), Call("tidy")  # each is also a key of its own
_FOUND, _LOOK = Call("found"), Call("look")


class LoadBalancerAgent:
    """The daemon. ``run`` returns after ``stop``."""

    def __init__(self, store: WantedState, root: Path, *, host: str = "", workers: int = WORKERS) -> None:
        self._store = store
        self._root = root
        self._host = host
        self._work = KeyedWork[Call](self._do, workers=workers)
        self._checks = UdpChecks(lambda one: self._work.add(one, _LOOK))
        self._watches = Watches()
        self._stopping = threading.Event()
        self._keepers: dict[str, Keeper] = {}
        self._around = Surroundings(
            store=store,
            root=root,
            checks=self._checks,
            watches=self._watches,
            stopping=self._stopping,
            again=self._work.add,
            later=lambda one: self._work.later(one, _LOOK, seconds=keeper.LOOK),
            taken=self._work.take,
        )
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> None:
        """Serve until ``stop``."""
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self._root / "lock").open("w") as lock, _datagrams(self._root / SOCKET, lock) as calls:
            self._watches.hold("", "call", descriptor=os.dup(calls.fileno()))
            self._watches.hold("", "wake", descriptor=self._wake_read)
            self._checks.start()
            self._begin()
            self._work.start()
            due = tidy_due = time.monotonic()
            while not self._stopping.is_set():
                for balancer_id, verb in self._watches.wait(max(0.0, due - time.monotonic())):
                    if verb == "call":
                        self._called(calls)
                    elif balancer_id:
                        self._work.add(balancer_id, Call(verb))
                now = time.monotonic()
                if now >= due:
                    due = now + TICK
                    self._work.add(_SCAN.verb, _SCAN)
                if now >= tidy_due:
                    tidy_due = now + TIDY
                    self._work.add(_TIDY.verb, _TIDY, urgent=False)
            self._checks.stop()
            self._work.stop()
            self._watches.close()

    def stop(self) -> None:
        """End ``run`` soon. The load balancers go on serving."""
        self._stopping.set()
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"x")

    def _called(self, calls: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                words = calls.recv(200).decode(errors="replace").split()
                if len(words) in (2, 3):
                    verb, balancer_id, *rest = words
                    self._work.add(balancer_id, Call(verb, *rest))

    def _begin(self) -> None:
        """Recreate everything, and take away what no load balancer wants any more. What somebody waits for comes first."""
        while not self._stopping.is_set():
            try:
                wanted, pending = self._store.everything(), self._store.pending()
                break
            except Exception as error:
                LOG.warning("the database does not answer yet: %s", keeper.first_line(error))
                self._stopping.wait(2)
        else:
            return
        known = {name.removeprefix(vip_link.PREFIX) for name in netns.names(vip_link.PREFIX)}
        known |= {entry.name for entry in self._root.iterdir() if entry.is_dir()}
        LOG.info("%d load balancers wanted, %d found here", len(wanted), len(known))
        for balancer_id in {*wanted, *known}:
            self._work.add(balancer_id, _FOUND, urgent=balancer_id in pending)

    def _do(self, key: str, calls: frozenset[Call]) -> None:
        if key == _SCAN.verb:
            for balancer_id in self._store.pending():
                # what is being worked on reports by itself
                if not self._work.busy(balancer_id):
                    self._work.add(balancer_id, _FOUND)
        elif key == _TIDY.verb:
            self._store.tidy(self._host)
        else:
            one = self._keepers.setdefault(key, Keeper(key, self._around))
            one.work(calls)
            if not one.kept:
                del self._keepers[key]
                self._work.forget(key, _LOOK)


class Watches:
    """Descriptors that become readable when there is something to do. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._selector = selectors.DefaultSelector()
        self._held: dict[str, dict[str, int]] = {}

    def hold(self, balancer_id: str, verb: str, *, descriptor: int) -> None:
        """Wait for this one too. A former one of the same load balancer for the same is closed."""
        with self._lock:
            held = self._held.setdefault(balancer_id, {})
            self._close(held.pop(verb, None))
            held[verb] = descriptor
            self._selector.register(descriptor, selectors.EVENT_READ, (balancer_id, verb))

    def release(self, balancer_id: str) -> None:
        """Close all of this load balancer."""
        with self._lock:
            for descriptor in self._held.pop(balancer_id, {}).values():
                self._close(descriptor)

    def wait(self, seconds: float) -> list[tuple[str, str]]:
        """(load balancer, verb) of those that became readable; what was to be read is taken. An end comes once."""
        found: list[tuple[str, str]] = []
        for key, _ in self._selector.select(seconds):
            balancer_id, verb = key.data
            with self._lock:
                if self._held.get(balancer_id, {}).get(verb) != key.fd:
                    continue  # it was closed meanwhile
                if verb == "ended":
                    self._close(self._held[balancer_id].pop(verb))
                elif verb != "call":
                    _drain(key.fd)
            found.append((balancer_id, verb))
        return found

    def close(self) -> None:
        """Close everything."""
        for balancer_id in list(self._held):
            self.release(balancer_id)
        self._selector.close()

    def _close(self, descriptor: int | None) -> None:
        if descriptor is not None:
            self._selector.unregister(descriptor)
            os.close(descriptor)


def _drain(descriptor: int) -> None:
    with contextlib.suppress(OSError):
        while os.read(descriptor, 65536):
            pass


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
