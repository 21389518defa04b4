"""The daemon killed before each program that it runs: the next one finishes the work, and nothing is doubled or left."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from moyai.cloud.memory import Killed
from moyai.linux import haproxy, netns, nft
from moyai.localcloud.drivers.octavia import balancer_tree as m
from moyai.localcloud.drivers.octavia.keeper import Call, Keeper, Surroundings
from moyai.localcloud.drivers.octavia.udp_checks import UdpChecks
from moyai.localcloud.drivers.octavia.vip_link import namespace
from tests.netns.lb_cloud import changed, tree
from tests.netns.lb_world import MEMBERS, FakeStore, World, world

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces")
APPLY, FOUND = Call("apply"), Call("found")


@dataclass
class Descriptors:
    """What a keeper holds; a process that dies closes all of it."""

    held: list[int] = field(default_factory=list[int])

    def hold(self, balancer_id: str, verb: str, *, descriptor: int) -> None:
        self.held.append(descriptor)

    def release(self, balancer_id: str) -> None:
        for one in self.held:
            os.close(one)
        self.held.clear()


class Daemon:
    """A keeper that lives until its n-th program."""

    def __init__(self, store: FakeStore, root: Path) -> None:
        self.store, self.root = store, root

    def work(self, balancer_id: str, call: Call) -> None:
        watches = Descriptors()
        around = Surroundings(
            store=self.store,
            root=self.root,
            checks=UdpChecks(lambda one: None),
            watches=watches,
            stopping=threading.Event(),
            again=lambda one, call: None,
            later=lambda one: None,
            taken=lambda one: frozenset(),
        )
        try:
            Keeper(balancer_id, around).work(frozenset({call}))
        finally:
            watches.release(balancer_id)


def killed_at(monkeypatch: pytest.MonkeyPatch, number: int, *, work: Callable[[], None], after: bool) -> bool:
    """Let the work be killed before or ``after`` its n-th program. Returns whether it had so many."""
    count = 0
    with monkeypatch.context() as patch:
        for module in (haproxy, netns, nft):
            run: Any = module.run  # pyright: ignore[reportPrivateImportUsage]

            def counted(argv: Sequence[object], run: Any = run, **options: Any) -> Any:
                nonlocal count
                count += 1
                if count == number and not after:
                    raise Killed
                done = run(argv, **options)
                if count == number:
                    raise Killed
                return done

            patch.setattr(module, "run", counted)
        try:
            work()
        except Killed:
            return True
    return False


@pytest.mark.parametrize("after", [False, True])
def test_a_kill_at_any_program_loses_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, after: bool
) -> None:
    monkeypatch.setattr("moyai.localcloud.drivers.octavia.vip_link.WIRED_WITHIN", 1.0)  # nobody else wires it here
    with world(tmp_path) as net:
        net.start(MEMBERS[0])
        store, root = FakeStore(), tmp_path / "lb"
        daemon = Daemon(store, root)
        number, more = 0, True
        while more:
            number += 1
            lb = changed(tree(listener={"allowed_cidrs": ("10.99.0.0/24",)}), 1, enabled=False)
            # an address of its own: the client remembers where the last one was
            lb = replace(lb, vip_address=f"10.99.0.{150 + number}", status="PENDING_CREATE")
            store.addresses[lb.vip_port_id] = (netns.LinkAddress(lb.vip_address, 24),)
            store.want(lb)
            more = killed_at(monkeypatch, number, work=lambda one=lb.id: daemon.work(one, APPLY), after=after)
            daemon.work(lb.id, FOUND)
            assert store.provisioning[lb.id] == m.ACTIVE, number
            assert f"name={MEMBERS[0]}" in net.curl(to=lb.vip_address), number
            more |= _changed_and_deleted(monkeypatch, number, scene=(daemon, net, lb), after=after)
        assert number > 8  # it was really killed so often


def _changed_and_deleted(
    monkeypatch: pytest.MonkeyPatch, number: int, *, scene: tuple[Daemon, World, m.LoadBalancer], after: bool
) -> bool:
    daemon, net, lb = scene
    store = daemon.store
    store.want(replace(changed(lb, 0, weight=7), status=m.ACTIVE))
    more = killed_at(monkeypatch, number, work=lambda: daemon.work(lb.id, APPLY), after=after)
    daemon.work(lb.id, FOUND)
    assert store.provisioning[lb.id] == m.ACTIVE, number
    assert f"name={MEMBERS[0]}" in net.curl(to=lb.vip_address), number
    assert len(_listening(lb)) == 1, number
    store.provisioning[lb.id] = m.PENDING_DELETE
    more |= killed_at(monkeypatch, number, work=lambda: daemon.work(lb.id, APPLY), after=after)
    if lb.id in store.trees:
        daemon.work(lb.id, FOUND)
    assert lb.id not in store.trees, number
    assert set(store.released) >= {lb.vip_port_id}, number
    assert not netns.exists(namespace(lb.id)), number
    assert not netns.link_exists(f"tap{lb.vip_port_id[:11]}"), number
    assert not _processes(str(daemon.root / lb.id)), number
    assert [one.name for one in daemon.root.iterdir()] == [], number
    return more


def _listening(balancer: m.LoadBalancer) -> list[str]:
    """The sockets that listen on the VIP: two would mean that two processes share its clients."""
    with netns.inside(namespace(balancer.id)):
        lines = Path("/proc/thread-self/net/tcp").read_text().splitlines()
    address = "".join(f"{int(one):02X}" for one in reversed(balancer.vip_address.split(".")))
    return [line for line in lines if line.split()[1].startswith(address) and line.split()[3] == "0A"]


def _processes(word: str) -> list[int]:
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
                if word in (entry / "cmdline").read_text() and state not in "ZX":
                    found.append(int(entry.name))
            except OSError:
                continue
    return found
