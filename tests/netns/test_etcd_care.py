"""The care of etcd with real etcds and the real etcdctl: what they print is read, and members are defragmented in turn."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from moyai.core.clock import SystemClock
from moyai.core.errors import Terminal
from moyai.core.progress import Event, Reporter
from moyai.kube.quick import KubeApi
from moyai.kube.resources import Json, Resource
from moyai.lifecycle.etcd_care import all_problems, defragment, read_etcd
from moyai.lifecycle.etcd_members import Etcd
from tests.netns.lb_world import until
from tests.netns.test_etcd_member import ADDRESSES, Machine, Make, ask, etcd, first, make, members

__all__ = ["etcd", "make"]


class Pods:
    """The pods of etcd: their programs run here, each beside its own etcd. Certificates are left out."""

    def __init__(self, machines: Sequence[Machine], *, etcdctl: Path) -> None:
        self._addresses = {f"etcd-{one.name}": one.address for one in machines}
        self._etcdctl = etcdctl

    def execute(self, namespace: str, pod: str, *, command: Sequence[str], timeout: float) -> str:
        words = [word for word in command[1:] if not word.startswith(("--cacert", "--cert", "--key"))]
        argv = [self._etcdctl, f"--endpoints=http://{self._addresses[pod]}:2379", *words]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False)
        if done.returncode:
            raise Terminal(done.stderr.strip().splitlines()[-1])
        return done.stdout

    def list(self, resource: Resource, *, namespace: str | None = None, fields: str = "") -> list[Json]:
        return []


def test_three_members_are_defragmented_and_the_leader_comes_last(make: Make, etcd: str) -> None:
    machines = first(make), make(1), make(2)
    for machine in machines[1:]:
        machine.joined()
    until("all are voters", lambda: set(members(ADDRESSES[2]).values()) == {"voter"}, within=20)
    for _ in range(60):
        ask(ADDRESSES[0], "/v3/kv/put", key="YQ==", value="YmJi" * 20_000)
    revision = ask(ADDRESSES[0], "/v3/kv/put", key="YQ==", value="bGFzdA==")["header"]["revision"]
    ask(ADDRESSES[0], "/v3/kv/compaction", revision=revision, physical=True)
    api = cast("KubeApi", Pods(machines, etcdctl=Path(etcd).with_name("etcdctl")))
    names = [one.name for one in machines]

    def compacted() -> bool:
        # a member counts the pages that it has freed with its next write
        ask(ADDRESSES[0], "/v3/kv/put", key="YQ==", value="bGFzdA==")
        return all(one.size > 2 * one.in_use for one in read_etcd(api, names))

    until("all have compacted", compacted, within=60)
    before = read_etcd(api, names)
    leader = next(one.name for one in before if one.leader)
    assert list(all_problems(before)) == []
    seen: list[Event] = []
    after = defragment(api, names, clock=SystemClock(), reporter=Reporter(seen.append))
    done = [event.step.rpartition(" ")[2] for event in seen if event.kind == "finished"]
    assert (sorted(done), done[-1]) == (names, leader)
    assert next(one.name for one in after if one.leader) != leader
    assert all(new.size < old.size // 2 for old, new in zip(before, after, strict=True))
    assert ask(ADDRESSES[1], "/v3/kv/range", key="YQ==")["kvs"][0]["value"] == "bGFzdA=="
    assert len(Etcd(api, names).healthy(Etcd(api, names).members())) == 3


def test_a_full_database_is_reported_and_takes_writes_again_once_there_is_room(make: Make, etcd: str) -> None:
    machine = make(0)
    machine.start("--initial-cluster", f"{machine.name}=http://{machine.address}:2380", "--quota-backend-bytes", str(1 << 20))
    until("the first etcd", machine.answers, within=60)
    api = cast("KubeApi", Pods([machine], etcdctl=Path(etcd).with_name("etcdctl")))

    def full() -> bool:
        try:
            ask(machine.address, "/v3/kv/put", key="YQ==", value="YmJi" * 50_000)
        except OSError:
            return True
        return False

    until("no room", full, within=30)
    (found,) = read_etcd(api, [machine.name])
    assert (found.alarms, found.quota) == (("NOSPACE",), 1 << 20)
    alarm, size = all_problems([found])
    assert alarm == "etcd of plane-0 has raised an alarm: NOSPACE"
    assert "takes no writes once it is full" in size

    revision = ask(machine.address, "/v3/kv/range", key="YQ==")["header"]["revision"]
    ask(machine.address, "/v3/kv/compaction", revision=revision, physical=True)
    (after,) = defragment(api, [machine.name], clock=SystemClock(), reporter=Reporter())
    assert after.alarms == ()
    ask(machine.address, "/v3/kv/put", key="YQ==", value="bGFzdA==")
