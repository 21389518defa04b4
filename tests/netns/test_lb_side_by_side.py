"""Several load balancers at once on the real kernel: none waits for another, and none costs more because there are others."""

from __future__ import annotations

import os
import signal
import socket
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from moyai.linux import haproxy, netns
from moyai.localcloud.drivers.octavia import balancer_tree as m
from moyai.localcloud.drivers.octavia.data_plane import Plane
from tests.netns.lb_cloud import Cloud, changed, tree
from tests.netns.lb_world import until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces")

CHECK = m.Monitor(id="mon", type="TCP", delay=1, timeout=1, rise=1, fall=1)


def several(cloud: Cloud, count: int) -> list[m.LoadBalancer]:
    """Load balancers that nobody has asked for yet, each at an address of its own."""
    found = [replace(tree(), vip_address=f"10.99.0.{150 + n}", status="PENDING_CREATE") for n in range(count)]
    for one in found:
        cloud.store.addresses[one.vip_port_id] = (netns.LinkAddress(one.vip_address, 24),)
    return found


def ask(cloud: Cloud, *wanted: m.LoadBalancer) -> None:
    for one in wanted:
        cloud.store.want(one)
        cloud.call("apply", one.id)


def settled(cloud: Cloud, *wanted: m.LoadBalancer, within: float = 20.0) -> None:
    until("settled", lambda: not {one.id for one in wanted} & set(cloud.store.pending()), within=within)


def ended(pid: int) -> bool:
    """Whether the process runs no more; nobody may have taken note of its end."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


class Held:
    """Holds the start of HAProxy for some load balancers until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ids: set[str] = set()
        self.waiting: set[str] = set()
        self.gate = threading.Event()
        self.together = threading.Semaphore(0)
        start = Plane.apply

        def apply(plane: Plane, *arguments: object, **options: object) -> None:
            if plane.id in self.ids and not self.gate.is_set():
                self.waiting.add(plane.id)
                self.together.release()
                assert self.gate.wait(30)
            start(plane, *arguments, **options)  # pyright: ignore[reportArgumentType]

        monkeypatch.setattr(Plane, "apply", apply)


def test_eight_are_made_and_deleted_side_by_side(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    lbs = several(cloud, 8)
    held = Held(monkeypatch)
    held.ids = {one.id for one in lbs}
    ask(cloud, *lbs)
    # all of them are at work before any is done
    assert all(held.together.acquire(timeout=20) for _ in lbs)
    assert held.waiting == held.ids
    held.gate.set()
    settled(cloud, *lbs)
    assert all(cloud.net.curl(to=one.vip_address) != "" for one in lbs)
    for one in lbs:
        cloud.store.provisioning[one.id] = m.PENDING_DELETE
        cloud.call("apply", one.id)
    until("deleted", lambda: not cloud.store.trees, within=20)
    assert sorted(cloud.store.released) == sorted(one.vip_port_id for one in lbs)
    assert not netns.names("moyai-lb-" + lbs[0].id)


def test_an_haproxy_that_is_slow_or_hangs_holds_nobody_else(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, hanging, *others = several(cloud, 4)
    ask(cloud, hanging)
    settled(cloud, hanging)
    pid = cloud.plane(hanging).haproxy.pid()
    assert pid is not None
    held = Held(monkeypatch)
    held.ids = {slow.id}
    os.kill(pid, signal.SIGSTOP)  # neither serves nor answers questions, until this is over
    try:
        ask(cloud, slow)
        assert held.together.acquire(timeout=20)
        ask(cloud, *others, changed(hanging, 0, weight=7))
        settled(cloud, *others)
        assert all(cloud.net.curl(to=one.vip_address) != "" for one in others)
        assert slow.id in cloud.store.pending()
    finally:
        held.gate.set()
        os.kill(pid, signal.SIGCONT)
    settled(cloud, slow, hanging)
    assert cloud.net.curl(to=slow.vip_address) != ""


def test_changes_of_one_load_balancer_follow_each_other(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    inside: list[str] = []
    apply = Plane.apply

    def once(plane: Plane, *arguments: object, **options: object) -> None:
        assert plane.id not in inside
        inside.append(plane.id)
        try:
            apply(plane, *arguments, **options)  # pyright: ignore[reportArgumentType]
        finally:
            inside.remove(plane.id)

    monkeypatch.setattr(Plane, "apply", once)
    (lb,) = several(cloud, 1)
    ask(cloud, lb)
    settled(cloud, lb)  # no change is asked for before
    for weight in range(2, 6):
        ask(cloud, changed(lb, 0, weight=weight))
        for _ in range(3):
            cloud.call("apply", lb.id)
            cloud.call("failover", lb.id)
        settled(cloud, lb)
        assert f"weight {weight}" in (cloud.root / lb.id / "haproxy.cfg").read_text()
    assert cloud.store.provisioning[lb.id] == m.ACTIVE
    until("served", lambda: cloud.net.curl(to=lb.vip_address) != "")


def test_without_changes_nothing_but_each_ones_statistics_is_asked(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Health comes by HAProxy's own word: whoever is not changed and not ill is left alone between two looks."""
    lbs = [replace(one, pools=(replace(one.pools[0], monitor=CHECK),)) for one in several(cloud, 3)]
    ask(cloud, *lbs)
    settled(cloud, *lbs)
    members = [member for one in lbs for member in one.pools[0].members]
    until("online", lambda: all(cloud.store.operating.get(one.id) == "ONLINE" for one in members))
    asked: list[str] = []
    rows = haproxy.HAProxy.rows

    def counted(one: haproxy.HAProxy) -> list[haproxy.Row]:
        asked.append(one.folder.name)
        return rows(one)

    monkeypatch.setattr(haproxy.HAProxy, "rows", counted)
    monkeypatch.setattr("moyai.localcloud.drivers.octavia.keeper.LOOK", 600.0)
    until("the planned looks", lambda: set(asked) >= {one.id for one in lbs})
    asked.clear()
    threading.Event().wait(2.5)
    assert asked == []
    cloud.net.stop(members[0].address)
    until("seen", lambda: all(cloud.store.operating[one.pools[0].members[0].id] == "ERROR" for one in lbs), within=4)


def test_no_process_is_searched_for_unless_a_start_was_cut_off(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    searches: list[str] = []
    search, inside = haproxy.HAProxy._processes, netns.pids  # pyright: ignore[reportPrivateUsage]

    def searched(one: haproxy.HAProxy) -> list[int]:
        searches.append(one.folder.name)
        return search(one)

    def searched_namespace(name: str) -> list[int]:
        searches.append(name)
        return inside(name)

    monkeypatch.setattr(haproxy.HAProxy, "_processes", searched)
    monkeypatch.setattr(netns, "pids", searched_namespace)
    lb, other = several(cloud, 2)
    ask(cloud, lb)
    settled(cloud, lb)
    ask(cloud, changed(lb, 0, weight=3))
    settled(cloud, lb)
    cloud.delete(lb)
    assert searches == []
    # a process that no file names: killed between its start and the writing of its number
    ask(cloud, other)
    settled(cloud, other)
    folder = cloud.root / other.id
    (stray,) = [int(one) for one in (folder / "haproxy.pid").read_text().split()]
    (folder / "haproxy.starting").touch()
    (folder / "haproxy.pid").unlink()
    cloud.delete(other)
    assert searches == [other.id]
    assert ended(stray)


def test_what_a_reload_left_behind_is_ended_with_the_rest(cloud: Cloud) -> None:
    (lb,) = several(cloud, 1)
    ask(cloud, lb)
    settled(cloud, lb)
    first = cloud.plane(lb).haproxy.pid()
    assert first is not None
    # a connection that goes on keeps the first process
    with netns.inside(cloud.net.ns("10.99.0.100")):
        link = socket.create_connection((lb.vip_address, 80))
    with link:
        ask(cloud, changed(lb, 0, weight=3))
        settled(cloud, lb)
        assert cloud.plane(lb).haproxy.pid() != first
        os.kill(first, 0)
        cloud.delete(lb)
        assert ended(first)
