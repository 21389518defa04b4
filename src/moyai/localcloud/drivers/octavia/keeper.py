"""One load balancer of this host: made as the database wants it, looked after, taken away.

Always holds: one thread at a time works on a load balancer (`keyed_work`), and everything that is remembered of it is here. A
report is sent when the data plane is so, never before. What a `Keeper` remembers is lost with the process and found again.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from moyai.linux import haproxy, netns
from moyai.linux.process import ProcessError
from moyai.localcloud.drivers.octavia import operating_status, reports, statistics, vip_link
from moyai.localcloud.drivers.octavia.balancer_tree import PENDING_DELETE, LoadBalancer, Member
from moyai.localcloud.drivers.octavia.data_plane import Plane, health_of, udp_checks
from moyai.localcloud.drivers.octavia.udp_checks import UdpChecks

LOG = logging.getLogger(__name__)
TRIES = 5
LOOK = 5.0  # seconds between two looks at statistics and health; a change of health is reported at once


class WantedState(Protocol):
    """What is wanted, and where to report: `octavia_database.OctaviaDatabase`, or a test's own."""

    def pending(self) -> list[str]: ...
    def everything(self) -> list[str]: ...
    def committed(self, balancer_id: str) -> str | None: ...
    def load(self, balancer_id: str) -> LoadBalancer | None: ...
    def report(self, status: reports.Report) -> None: ...
    def deleted(self, balancer_id: str) -> None: ...
    def plug(self, port_id: str, *, made: vip_link.MadePort | None = None) -> vip_link.Plug: ...
    def release_port(
        self, balancer_id: str, port_id: str, *, taken: vip_link.PortBefore | None, made: vip_link.MadePort | None
    ) -> None: ...
    def statistics(self, gains: list[dict[str, int | str]]) -> None: ...
    def tidy(self, host: str) -> None: ...


@dataclass(frozen=True)
class Call:
    """Why to work on a load balancer.

    ``apply``, ``port`` (``port_id`` was made for its VIP) and ``failover``: the driver called, in the midst of the API's
    transaction. ``found``: it is in the database or on this host. ``ended``: its HAProxy did. ``look``: at its health.
    """

    verb: str
    port_id: str = ""


class DescriptorHolder(Protocol):
    """Holds the descriptors that become readable when a load balancer changes. ``hold`` takes the descriptor over."""

    def hold(self, balancer_id: str, verb: str, *, descriptor: int) -> None: ...
    def release(self, balancer_id: str) -> None: ...


@dataclass(frozen=True)
class Surroundings:
    """What all keepers of a daemon share.

    ``again``: let this load balancer be worked on once more. ``later``: look at it after `LOOK`. ``taken``: calls that came
    since the work began.
    """

    store: WantedState
    root: Path
    checks: UdpChecks
    watches: DescriptorHolder
    stopping: threading.Event
    again: Callable[[str, Call], None]
    later: Callable[[str], None]
    taken: Callable[[str], frozenset[Call]]


class Keeper:
    """Keeps the load balancer ``balancer_id``."""

    def __init__(self, balancer_id: str, around: Surroundings) -> None:
        self.id = balancer_id
        self._around = around
        self._store = around.store
        self._plane = Plane(around.root, balancer_id)
        self._tree: LoadBalancer | None = None  # as it was last applied
        self._shown: operating_status.Statuses = {}
        self._health: dict[str, bool | None] = {}  # as it was last acted upon
        self._counted: dict[str, statistics.Counters] = {}  # by listener, as last read
        self._watched: int | None = None  # the process whose end is awaited
        self._listens = False  # to what HAProxy says

    @property
    def kept(self) -> bool:
        """Whether there is anything to remember of it."""
        return self._tree is not None or self._listens

    def work(self, calls: frozenset[Call]) -> None:
        """Do what the calls ask for."""
        if all(one.verb == "look" for one in calls):
            self._look()
            return
        ports = [one.port_id for one in calls if one.verb == "port"]
        for port_id in ports:
            self._prepare(port_id)
        # a call is sent before its transaction is committed: what was called by now is in the tree that is read after that
        calls |= self._around.taken(self.id)
        status = self._store.committed(self.id)
        if status is None and ports:
            LOG.warning("load balancer %s was not created after all: its port goes", self.id)
            self._plane.unplug()
            for port_id in ports:
                self._release(port_id)
            self._plane.remove()
            return
        if any(one.verb == "ended" for one in calls):
            LOG.warning("HAProxy %s of load balancer %s ended; starting it again", self._watched, self.id)
        elif not any(one.verb == "found" for one in calls) and not (status or "").startswith("PENDING_"):
            return
        self._reconcile(rebuild=any(one.verb == "failover" for one in calls))

    def _prepare(self, port_id: str) -> None:
        """Plug the VIP's port while the API still writes."""
        try:
            plug = self._store.plug(port_id, made=self._plane.port_made)
            self._plane.keep(plug)
            self._plane.place(plug)
        except Exception:
            LOG.exception("port %s of load balancer %s cannot be plugged yet", port_id, self.id)

    def _reconcile(self, *, rebuild: bool) -> None:
        """Read the whole tree, make it so, report. ``rebuild``: take namespace and processes away first."""
        balancer = self._store.load(self.id)
        if balancer is None or balancer.status == PENDING_DELETE:
            self._delete(balancer)
            return
        for attempt in range(1, TRIES + 1):
            try:
                self._apply(balancer, rebuild=rebuild and attempt == 1)
            except ProcessError as error:
                self._failed(balancer, error)
                return
            except Exception as error:
                LOG.warning("load balancer %s: %s (try %d)", self.id, first_line(error), attempt)
                if attempt == TRIES:
                    self._failed(balancer, error)
                    return
                self._around.stopping.wait(0.5 * attempt)
            else:
                return

    def _apply(self, balancer: LoadBalancer, *, rebuild: bool) -> None:
        plane = self._plane
        if rebuild:
            plane.unplug()
            plane.forget_plug()
        plug = plane.plug
        if plug is None or plug.port_id != balancer.vip_port_id:
            plug = self._store.plug(balancer.vip_port_id)
            plane.keep(plug)
        if not netns.exists(plane.namespace):
            self._around.checks.restart(self.id)
            self._listens = False
        plane.place(plug)
        self._listen()
        plane.apply(balancer, plug, health=self._known(balancer))
        self._around.checks.set(self.id, plane.namespace, checks=udp_checks(balancer))
        self._watch()
        self._succeeded(balancer)

    def _delete(self, balancer: LoadBalancer | None) -> None:
        plane = self._plane
        self._around.checks.restart(self.id)
        self._around.watches.release(self.id)
        self._tree, self._watched, self._listens = None, None, False
        there = plane.there()
        plane.unplug()
        if balancer is not None:
            self._release(balancer.vip_port_id)
        plane.remove()
        if there:
            LOG.info("load balancer %s is gone", self.id)
        if balancer is not None:
            self._store.deleted(self.id)

    def _release(self, port_id: str) -> None:
        self._store.release_port(self.id, port_id, taken=self._plane.port_before, made=self._plane.port_made)

    def _succeeded(self, balancer: LoadBalancer) -> None:
        health = self._known(balancer)
        statuses = operating_status.derive(balancer, health)
        report = reports.applied(balancer, statuses)
        for listener in balancer.listeners:
            if listener.status == "PENDING_CREATE":
                self._counted.setdefault(listener.id, statistics.Counters())
        self._tree, self._shown, self._health = balancer, statuses, health
        if report:
            self._store.report(report)
            LOG.info("load balancer %s serves (%s)", self.id, statuses["loadbalancers"][self.id])
        self._around.later(self.id)

    def _failed(self, balancer: LoadBalancer, error: Exception) -> None:
        LOG.error("load balancer %s cannot be made so: %s", self.id, error, exc_info=not isinstance(error, ProcessError))
        self._store.report(reports.failed(balancer))

    # ---- health and statistics

    def _known(self, balancer: LoadBalancer, rows: list[haproxy.Row] | None = None) -> dict[str, bool | None]:
        """What all checks say now. Of a new HAProxy's unfinished first check the former result is taken."""
        former = {
            one.id: one.operating == operating_status.ONLINE for pool in balancer.pools for one in pool.members if _judged(one)
        }
        seen = self._plane.rows() if rows is None else rows
        found = {**health_of(balancer, seen), **self._around.checks.results(self.id)}
        return {one: former.get(one) if works is None else works for one, works in found.items()}

    def _look(self) -> None:
        """Act upon what the checks found: the kernel's members, then the operating statuses. Report what listeners gained."""
        balancer = self._tree
        if balancer is None:
            return
        rows = self._plane.rows()
        health = self._known(balancer, rows)
        if health != self._health:
            self._health_changed(balancer, health)
        self._count(balancer, rows)
        self._around.later(self.id)

    def _health_changed(self, balancer: LoadBalancer, health: dict[str, bool | None]) -> None:
        self._plane.apply_rules(balancer, health)
        statuses = operating_status.derive(balancer, health)
        report = reports.changes(self._shown, statuses)
        if report:
            self._store.report(report)
            for kind, changes in report.items():
                told = ", ".join(f"{kind} {one['id']} {one['operating_status']}" for one in changes)
                LOG.info("load balancer %s: %s", self.id, told)
        self._shown, self._health = statuses, health

    def _count(self, balancer: LoadBalancer, rows: list[haproxy.Row]) -> None:
        """Report what the listeners gained. The first look at one only tells where it stands, unless it is new."""
        gains: list[dict[str, int | str]] = []
        for listener_id, now in statistics.read(balancer, rows, datagrams=self._plane.datagrams()).items():
            former = self._counted.get(listener_id)
            self._counted[listener_id] = now
            gain = now.since(former) if former else statistics.Counters(active=now.active)
            if former is None or gain != statistics.Counters() or former.active:
                gains.append(gain.as_delta(listener_id))
        if gains:
            self._store.statistics(gains)

    # ---- what tells of it

    def _watch(self) -> None:
        """Await the end of HAProxy."""
        pid = self._plane.haproxy.pid()
        if pid is None or pid == self._watched:
            return
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            self._around.again(self.id, Call("ended"))
            return
        self._watched = pid
        self._around.watches.hold(self.id, "ended", descriptor=descriptor)

    def _listen(self) -> None:
        """Hear at once what HAProxy's checks find: it writes to a log when they find something new."""
        if self._listens:
            return
        with netns.inside(self._plane.namespace):
            ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        ear.bind(haproxy.LOG_ADDRESS)
        self._around.watches.hold(self.id, "look", descriptor=ear.detach())
        self._listens = True


def _judged(member: Member) -> bool:
    return member.operating in (operating_status.ONLINE, operating_status.ERROR)


def first_line(error: Exception) -> str:
    """An error in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
