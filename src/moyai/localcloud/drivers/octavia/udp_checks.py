"""UDP-CONNECT checks: the load balancer's namespace sends a datagram. A member is healthy unless an error comes back.

UDP knows no other sign: "port unreachable" from the member, "host unreachable" from a router or the own neighbour table (whose
timings the namespace shortens). One socket for each member is kept, since such an answer may come later than the check's time.

All checks of all load balancers run in one thread, woken by answers and by the next one due.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import math
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from moyai.linux import netns

LOG = logging.getLogger(__name__)
# Seconds. A neighbour is given up after three asks of 0.2 s (see vip_link), later on a busy host. Shorter silence after a
# failure says nothing about a host that was away.
_SILENCE_AFTER_LOSS = 2.0
_ERRORS_TOO = {socket.AF_INET: (socket.SOL_IP, 11), socket.AF_INET6: (socket.IPPROTO_IPV6, 25)}  # IP_RECVERR, IPV6_RECVERR


@dataclass(frozen=True)
class Check:
    """One member's check. ``delay`` and ``timeout`` in seconds."""

    member_id: str
    address: str
    port: int
    delay: float
    timeout: float
    rise: int
    fall: int


@dataclass
class Count:
    """Successes and failures in a row → whether the member works. The first result decides alone. ``failed_at``: the moment of
    the last failure; a success soon after it does not count."""

    rise: int
    fall: int
    works: bool | None = None
    row: int = 0
    failed_at: float = -math.inf

    def failed_lately(self, now: float) -> bool:
        return now - self.failed_at < _SILENCE_AFTER_LOSS

    def add(self, success: bool, *, now: float) -> bool:
        """Count one result. Returns whether the verdict changed."""
        if not success:
            self.failed_at = now
        elif self.failed_lately(now):
            return False
        if self.works is None:
            self.works = success
            return True
        if success == self.works:
            self.row = 0
            return False
        self.row += 1
        if self.row < (self.rise if success else self.fall):
            return False
        self.works, self.row = success, 0
        return True


@dataclass
class _Running:
    owner: str
    check: Check
    link: socket.socket
    count: Count
    failed: bool = False  # since the last send
    gone: bool = field(default=False)


class UdpChecks:
    """``changed(owner)`` is called, from the thread of the checks, whenever a member's verdict changes."""

    def __init__(self, changed: Callable[[str], None]) -> None:
        self._changed = changed
        self._lock = threading.Lock()
        self._running: dict[str, dict[Check, _Running]] = {}
        self._due: list[tuple[float, int, _Running, str]] = []
        self._number = itertools.count()
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="lb-checks", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; the thread is gone when this returns."""
        self._stopping = True
        self._wake()
        self._thread.join(5)

    def set(self, owner: str, namespace: str, *, checks: Iterable[Check]) -> None:
        """Let exactly these checks run for ``owner``, in that namespace. Those that ran already keep what they found."""
        wanted = set(checks)
        with self._lock:
            present = self._running.setdefault(owner, {})
            for check in [one for one in present if one not in wanted]:
                self._end(present.pop(check))
            missing = wanted - present.keys()
            if missing:
                with netns.inside(namespace):
                    for check in missing:
                        family = socket.AF_INET6 if ":" in check.address else socket.AF_INET
                        link = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
                        link.setsockopt(*_ERRORS_TOO[family], 1)  # "host unreachable" as well, which is else kept back
                        running = _Running(owner, check, link, Count(check.rise, check.fall))
                        present[check] = running
                        self._plan(0, running, what="send")
            if not present:
                del self._running[owner]
        self._wake()

    def restart(self, owner: str) -> None:
        """Drop the checks' sockets: the namespace was recreated. ``set`` starts them again."""
        with self._lock:
            for one in self._running.pop(owner, {}).values():
                self._end(one)

    def results(self, owner: str) -> dict[str, bool | None]:
        """By member id, whether it works; None: no result yet."""
        with self._lock:
            return {check.member_id: one.count.works for check, one in self._running.get(owner, {}).items()}

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"x")

    def _plan(self, delay: float, running: _Running, *, what: str) -> None:
        heapq.heappush(self._due, (time.monotonic() + delay, next(self._number), running, what))

    def _end(self, running: _Running) -> None:
        running.gone = True
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(running.link)
        running.link.close()

    def _run(self) -> None:
        while not self._stopping:
            with self._lock:
                pause = max(0.0, self._due[0][0] - time.monotonic()) if self._due else None
            events = self._selector.select(pause)
            owners: set[str] = set()
            with self._lock:
                for key, _ in events:
                    if key.fileobj == self._wake_read:
                        with contextlib.suppress(BlockingIOError):
                            os.read(self._wake_read, 4096)
                    elif isinstance(key.data, _Running) and not key.data.gone and self._answer(key.data):
                        owners.add(key.data.owner)
                while self._due and self._due[0][0] <= time.monotonic():
                    _, _, running, what = heapq.heappop(self._due)
                    if not running.gone and (self._send(running) if what == "send" else self._judge(running)):
                        owners.add(running.owner)
            for owner in owners:
                self._changed(owner)

    def _send(self, running: _Running) -> bool:
        check = running.check
        self._plan(check.delay, running, what="send")
        running.failed = False
        try:
            running.link.connect((check.address, check.port))
            running.link.send(b"")
        except OSError:
            return self._fail(running)
        with contextlib.suppress(KeyError):
            self._selector.register(running.link, selectors.EVENT_READ, running)
        lost = running.count.failed_lately(time.monotonic() - check.delay)
        silence = max(check.timeout, _SILENCE_AFTER_LOSS) if lost else check.timeout
        self._plan(min(silence, max(check.delay, check.timeout) - 0.001), running, what="judge")
        return False

    def _answer(self, running: _Running) -> bool:
        bad = False
        for flag in (socket.MSG_ERRQUEUE, 0):
            try:
                while True:
                    running.link.recvmsg(65536, 512, flag)
                    bad = bad or flag != 0
            except BlockingIOError:
                pass
            except OSError:
                bad = True
        return bad and self._fail(running)

    def _fail(self, running: _Running) -> bool:
        """At most one failure a round."""
        if running.failed:
            return False
        running.failed = True
        return running.count.add(False, now=time.monotonic())

    def _judge(self, running: _Running) -> bool:
        return not running.failed and running.count.add(True, now=time.monotonic())
