"""The care of etcd: what is reported of its members, and in which order they are defragmented."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from moyai.cli import cluster as commands
from moyai.cli.main import run
from moyai.core.errors import Terminal
from moyai.core.progress import Reporter
from moyai.kube.resources import PODS
from moyai.lifecycle import clusters, etcd_care
from moyai.lifecycle.etcd_care import EtcdStatus, all_notes, all_problems, parse_status, quantile, read_etcd
from tests.unit.lifecycle_world import World
from tests.unit.test_plan_control_planes import THREE

PLANES = [f"quickstart-control-plane-{number}" for number in range(3)]
MIB, GIB = 1 << 20, 1 << 30


def told(**numbers: Any) -> Any:
    """What etcdctl 3.7 prints for ``endpoint status``."""
    header = {"cluster_id": 1, "member_id": 7, "revision": 1, "raft_term": 2}
    status = {"header": header, "version": "3.7.3", "dbSize": 20480, "leader": 7, "dbSizeInUse": 16384, "dbSizeQuota": 2 * GIB}
    return [{"Endpoint": "https://127.0.0.1:2379", "Status": {**status, **numbers}}]


def member(size: int, in_use: int, **more: Any) -> EtcdStatus:
    return EtcdStatus("a", "3.7.3", leader=True, size=size, in_use=in_use, quota=2 * GIB, **more)


def test_a_member_as_etcdctl_prints_it() -> None:
    assert parse_status("a", told()) == EtcdStatus("a", "3.7.3", leader=True, size=20480, in_use=16384, quota=2 * GIB)
    alarmed = parse_status("a", told(leader=8, errors=["memberID:7 alarm:NOSPACE "]))
    assert (alarmed.leader, alarmed.alarms) == (False, ("NOSPACE",))


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (member(100 * MIB, 90 * MIB), ""),
        (member(1638 * MIB, 100 * MIB), ""),
        (member(1700 * MIB, 100 * MIB), "1700 of 2048 MiB, and takes no writes once it is full: `moyai etcd def"),
        (member(1700 * MIB, 1690 * MIB), "is full: delete objects that are not needed, then `moyai etcd defragment`"),
        (member(1, 1, alarms=("NOSPACE",)), "etcd of a has raised an alarm: NOSPACE"),
    ],
)  # fmt: skip
def test_what_comes_near_the_quota_is_reported(found: EtcdStatus, said: str) -> None:
    problems = list(all_problems([found]))
    assert (len(problems), said in "".join(problems)) == (bool(said), True)


def test_the_time_of_99_of_100_syncs_is_read_from_etcds_metrics() -> None:
    head = 'etcd_disk_wal_fsync_duration_seconds_bucket{le="%s"} %d\n'
    metrics = "# HELP x\n" + "".join(head % one for one in [("0.001", 900), ("0.064", 989), ("0.128", 990), ("+Inf", 1000)])
    assert (quantile(metrics, 0.99), quantile(metrics, 0.5), quantile("", 0.99)) == (0.128, 0.001, None)
    assert quantile(metrics, 0.999) == float("inf")
    (note,) = all_notes([member(1, 1, sync_p99=0.128)])
    assert note.startswith("the disk of a is slow for etcd: one of 100 syncs takes 128 ms or more")
    assert list(all_notes([member(1, 1, sync_p99=0.064), member(1, 1)])) == []


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path, monkeypatch)
    made.up(THREE)
    return made


def defragment(world: World, planes: list[str] = PLANES) -> tuple[EtcdStatus, ...]:
    return etcd_care.defragment(world.api(), planes, clock=world.clock, reporter=Reporter(clock=world.clock))


def test_the_leader_is_defragmented_last_once_another_one_leads(world: World) -> None:
    etcd = world.kube().etcd
    etcd.leader = PLANES[0]
    etcd.sizes = dict.fromkeys(PLANES, 500 * MIB)
    after = defragment(world)
    assert (etcd.defragmented, etcd.broken, etcd.moves) == ([PLANES[1], PLANES[2], PLANES[0]], [], 1)
    assert [one.size for one in after] == [MIB] * 3


def test_a_single_member_is_defragmented_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, monkeypatch)
    world.up()
    defragment(world, PLANES[:1])
    assert (world.kube().etcd.defragmented, world.kube().etcd.moves) == (PLANES[:1], 0)


def test_no_member_is_taken_away_from_others_that_are_no_majority(world: World) -> None:
    etcd = world.kube().etcd
    with pytest.raises(Terminal, match="etcd has members whose control planes are not Ready: quickstart-control-plane-2"):
        defragment(world, PLANES[:2])
    etcd.running.discard(PLANES[2])
    with pytest.raises(Terminal, match="was not defragmented: waited 60 s: 1 of the 2 other members are healthy"):
        defragment(world)
    etcd.members[PLANES[2]].learner = True
    with pytest.raises(Terminal, match="another control plane is joining etcd"):
        defragment(world)
    assert etcd.defragmented == []


def test_syncs_are_read_through_a_pod_of_the_machines_network(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    kube, asked = world.kube(), list[str]()
    execute = kube.execute

    def answer(namespace: str, pod: str, *, command: list[str], timeout: float) -> str:
        if command[0] != "python3":
            return execute(namespace, pod, command=command, timeout=timeout)
        asked.append(pod)
        return 'etcd_disk_wal_fsync_duration_seconds_bucket{le="0.5"} 4\n'

    monkeypatch.setattr(kube, "execute", answer)
    for name, host in (("in-pods-network", False), ("helper", True)):
        meta = {"name": name, "namespace": "kube-system", "labels": {"app.kubernetes.io/name": "moyai-agent"}}
        spec = {"nodeName": PLANES[0], "hostNetwork": host}
        kube.store.put(PODS, {"metadata": meta, "spec": spec, "status": {"phase": "Running"}})
    found = read_etcd(world.api(), PLANES)
    assert ([one.sync_p99 for one in found], asked) == ([0.5, None, None], ["helper"])


def test_the_command_shows_and_defragments(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MOYAI_STATE_DIR", str(world.paths.state))
    monkeypatch.delenv(commands.CLUSTER_VARIABLE, raising=False)
    monkeypatch.setattr(clusters, "open_api", world.open_api)
    world.kube().etcd.sizes[PLANES[1]] = 1900 * MIB
    with pytest.raises(SystemExit, match="1"):
        run(["etcd", "status"])
    assert "! etcd's database on quickstart-control-plane-1 has 1900 of 2048 MiB" in capsys.readouterr().out
    assert run(["etcd", "defragment", "--output", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["problems"] == []
    assert run(["etcd", "status"]) == 0
