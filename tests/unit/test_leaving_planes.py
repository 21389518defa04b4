"""Control planes that leave a cluster that works on, for good or for others: in which order, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moyai.core.errors import Terminal, UsageError
from moyai.kube.resources import NODES, PODS
from moyai.lifecycle.drain import note_stopped
from moyai.lifecycle.etcd_members import EtcdMember, may_leave, parse_member
from moyai.lifecycle.leaving_planes import leaving_pod
from moyai.lifecycle.record import Record
from moyai.plan import text
from moyai.plan.cluster.control_planes import majority
from moyai.plan.steps import CreateServer
from tests.unit.lifecycle_world import World
from tests.unit.test_plan_control_planes import FIVE, ONE_OF_MORE, THREE

PLANES = [f"quickstart-control-plane-{number}" for number in range(5)]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path, monkeypatch)
    made.up(THREE)
    return made


def planes(world: World) -> list[str]:
    return sorted(one for one in world.kube().names(NODES) if "control-plane" in one)


def members(world: World) -> list[str]:
    return sorted(world.kube().etcd.members)


def test_the_plan_from_three_to_one(world: World) -> None:
    assert text.lines(world.preview(ONE_OF_MORE)) == [
        "change spec.controlPlane.replicas: 3 → 1 (live: machines are made or removed)",
        " 1  exclude node quickstart-control-plane-2 from load balancers",
        " 2  wait until load balancers and their connections have left node quickstart-control-plane-2  (after 1)",
        " 3  drain node quickstart-control-plane-2  (after 1, 2)",
        " 4  move etcd's leadership away from quickstart-control-plane-2, once etcd can lose it  (after 1, 2, 3)",
        " 5  hand the API's address on, and end the API server of quickstart-control-plane-2  (after 1, 2, 3, 4)",
        " 6  remove quickstart-control-plane-2 from etcd's members, once etcd can lose it  (after 1, 2, 3, 4, 5)",
        " 7  delete server quickstart-control-plane-2  (after 1, 2, 3, 5, 6)",
        " 8  delete node quickstart-control-plane-2  (after 7)",
        " 9  exclude node quickstart-control-plane-1 from load balancers  (after 6, 7, 8)",
        "10  wait until load balancers and their connections have left node quickstart-control-plane-1  (after 6, 7, 8, 9)",
        "11  drain node quickstart-control-plane-1  (after 6, 7, 8, 9, 10)",
        "12  move etcd's leadership away from quickstart-control-plane-1, once etcd can lose it  (after 6, 7, 8, 9, 10, 11)",
        "13  hand the API's address on, and end the API server of quickstart-control-plane-1  (after 6, 7, 8, 9, 10, 11, 12)",
        "14  remove quickstart-control-plane-1 from etcd's members, once etcd can lose it  (after 6, 7, 8, 9, 10, 11, 12, 13)",
        "15  delete server quickstart-control-plane-1  (after 9, 10, 11, 13, 14)",
        "16  remove route 10.244.1.0/24 via 10.8.0.11, remove route 10.244.2.0/24 via 10.8.0.12  (after 7, 15)",
        "17  delete port quickstart-control-plane-2  (after 1, 2, 3, 5, 6, 7, 8, 16)",
        "18  delete node quickstart-control-plane-1  (after 15)",
        "19  delete port quickstart-control-plane-1  (after 9, 10, 11, 13, 14, 15, 16, 18)",
        "20  set the copies of deployment moyai-cloud-controller-manager to 1",
        "21  set the copies of deployment csi-memory-controllerplugin to 1",
        "22  set the copies of deployment snapshot-controller to 1",
        "23  wait until moyai-cloud-controller-manager, coredns, kube-proxy run  (after 20)",
        "24  wait until csi-memory-controllerplugin, snapshot-controller, csi-memory-nodeplugin run  (after 21, 22)",
    ]


def test_the_leader_that_has_the_address_leaves_without_a_gap(world: World) -> None:
    etcd = world.kube().etcd
    etcd.leader = etcd.holder = PLANES[2]
    world.up(ONE_OF_MORE)
    assert etcd.broken == []
    assert (planes(world), members(world), etcd.holder) == ([PLANES[0]], [PLANES[0]], PLANES[0])
    assert etcd.moves == 1, "the leadership goes to a member that stays"
    assert world.kube().names(PODS) == []
    assert not world.preview(ONE_OF_MORE).steps
    assert [one.name for one in world.store.ports if "control-plane" in one.name] == [PLANES[0]]


def test_the_address_may_go_to_one_that_leaves_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, monkeypatch)
    world.up(FIVE)
    etcd = world.kube().etcd
    etcd.leader = etcd.holder = PLANES[3]
    world.up(THREE)
    assert (members(world), etcd.broken) == (PLANES[:3], [])
    assert etcd.holder in PLANES[:3]


def test_five_become_three_and_three_become_five_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, monkeypatch)
    world.up(FIVE)
    world.up(THREE)
    assert (planes(world), members(world)) == (PLANES[:3], PLANES[:3])
    world.up(FIVE)
    assert (planes(world), members(world), world.kube().etcd.broken) == (PLANES, PLANES, [])


def test_the_machines_that_work_stay(world: World) -> None:
    world.fail(PLANES[0], "its host is gone")
    world.up(ONE_OF_MORE)
    assert (planes(world), members(world), world.kube().etcd.broken) == ([PLANES[1]], [PLANES[1]], [])


def test_a_machine_that_is_gone_leaves_a_member_behind_which_goes(world: World) -> None:
    """Its Node and its port went with it, so only the record and etcd know of it."""
    for server in [one for one in world.store.servers if one.name == PLANES[2]]:
        world.cloud.machines.delete_server(server.id)
    world.store.settle()
    for port in [one for one in world.store.ports if one.name == PLANES[2]]:
        world.cloud.networks.delete_port(port.id)
    world.kube().delete(NODES, PLANES[2])
    assert members(world) == PLANES[:3]
    world.up(ONE_OF_MORE)
    assert (members(world), world.kube().etcd.broken) == ([PLANES[0]], [])
    record = Record.open(world.paths, "quickstart", clock=world.clock)
    assert record
    assert PLANES[2] not in record.recorded().allocations
    assert not world.preview(ONE_OF_MORE).steps


def test_a_removal_that_is_called_off_leaves_what_still_works(world: World) -> None:
    """The API server of one has ended: it does not come back, and another machine takes its place."""
    note_stopped(world.api(), PLANES[2])
    world.kube().etcd.holder = PLANES[0]
    world.kube().etcd.execute(f"leave-{PLANES[2]}", ["python3", "servers"])
    world.up(THREE)
    assert (planes(world), members(world)) == ([PLANES[0], PLANES[1], PLANES[3]],) * 2
    assert world.kube().etcd.broken == []


def test_nothing_leaves_while_the_api_does_not_answer(world: World) -> None:
    world.kube().mute = True
    with pytest.raises(Terminal, match="are to leave, and the API does not answer: only a cluster that works lets one go"):
        world.up(ONE_OF_MORE)
    assert len(world.store.servers) == 4


def test_nothing_leaves_where_no_majority_would_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, monkeypatch)
    world.up(FIVE)
    # the kubelets of two that stay do not answer
    world.kube().etcd.running -= set(PLANES[:2])
    with pytest.raises(
        Terminal, match="control plane quickstart-control-plane-4 cannot leave: waited 60 s: 2 of the 4 etcd members"
    ):
        world.up(THREE)
    assert members(world) == PLANES
    assert world.kube().etcd.broken == []
    assert PLANES[4] in world.kube().etcd.serving


def test_an_address_that_nobody_takes_keeps_the_machine(world: World) -> None:
    etcd = world.kube().etcd
    etcd.holder, etcd.serving = PLANES[2], {PLANES[1], PLANES[2]}
    with pytest.raises(Terminal, match="no API server of a control plane that stays works"):
        world.up(ONE_OF_MORE)
    assert etcd.serving == {PLANES[1], PLANES[2]}


def test_the_pod_that_helps_a_machine_goes_with_its_node() -> None:
    pod = leaving_pod("leave-x", {"metadata": {"name": "x", "uid": "u"}}, image="i")
    assert pod["metadata"]["ownerReferences"] == [{"apiVersion": "v1", "kind": "Node", "name": "x", "uid": "u"}]
    assert pod["spec"]["nodeName"] == "x"


def test_members_as_etcdctl_prints_them() -> None:
    found = {"ID": 10276657743932975437, "name": "a", "peerURLs": ["https://10.8.0.10:2380"], "clientURLs": []}
    assert parse_member(found) == EtcdMember(10276657743932975437, "a", "10.8.0.10")
    assert parse_member(found).hex == "8e9e05c52164694d"
    assert parse_member({"ID": 1, "peerURLs": ["https://10.8.0.11:2380"], "isLearner": True}).learner


@given(voters=st.integers(1, 5), learners=st.integers(0, 1), data=st.data())
def test_no_removal_takes_the_majority(voters: int, learners: int, data: st.DataObject) -> None:
    listed = [
        EtcdMember(number, f"p{number}", f"10.8.0.{number}", learner=number >= voters) for number in range(voters + learners)
    ]
    healthy = data.draw(st.sets(st.sampled_from([one.id for one in listed])))
    goes = data.draw(st.sampled_from(listed))
    if may_leave(listed, goes.address, healthy=healthy):
        return
    stay = [one for one in listed if one != goes and not one.learner]
    if not goes.learner:
        assert learners == 0, "another change is under way"
        assert len([one for one in stay if one.id in healthy]) >= majority(len(stay))
        assert stay


def test_a_member_that_is_gone_may_be_removed_again() -> None:
    assert may_leave([EtcdMember(1, "a", "10.8.0.10")], "10.8.0.11", healthy=[]) == ""


# ---- one in the place of another


def test_a_control_plane_that_works_is_replaced_by_one_that_joins_first(world: World) -> None:
    etcd = world.kube().etcd
    etcd.leader = etcd.holder = PLANES[0]
    steps = {str(step.id): {str(one) for one in step.after} for step in world.preview(THREE, replaced=PLANES[0]).steps}
    assert "control planes Ready" in steps["drain node quickstart-control-plane-0"]
    assert f"server {PLANES[3]}" in steps["machines boot"]
    world.up(THREE, replaced=PLANES[0])
    assert (planes(world), members(world), etcd.broken) == (PLANES[1:4], PLANES[1:4], [])
    assert not world.preview(THREE).steps
    # names alternate: the lowest number is free again
    world.up(THREE, replaced=PLANES[3])
    assert (planes(world), members(world), etcd.broken) == (PLANES[:3], PLANES[:3], [])


def test_the_only_control_plane_is_replaced_if_its_api_has_a_virtual_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, monkeypatch)
    world.up(ONE_OF_MORE)
    made = [one for one in world.preview(ONE_OF_MORE, replaced=PLANES[0]).steps if isinstance(one, CreateServer)]
    assert [(one.node.name, one.first, one.peers) for one in made] == [(PLANES[1], False, ("10.8.0.10",))]
    world.up(ONE_OF_MORE, replaced=PLANES[0])
    assert (planes(world), members(world), world.kube().etcd.broken) == ([PLANES[1]], [PLANES[1]], [])
    assert not world.preview(ONE_OF_MORE).steps


def test_the_new_machine_stands_where_the_old_one_stood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, monkeypatch)
    spec = "spec: {controlPlane: {replicas: 3, zones: [az1, az2]}, nodePools: [{replicas: 1}]}"
    world.up(spec)
    (step,) = [one for one in world.preview(spec, replaced=PLANES[1]).steps if isinstance(one, CreateServer)]
    assert (step.node.name, step.node.zone) == (PLANES[3], "az2")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("quickstart-workers-0", "node quickstart-workers-0 of cluster quickstart is none of its control planes"),
        ("other", "node other of cluster quickstart is none of its control planes"),
        (PLANES[1], "node quickstart-control-plane-1 of cluster quickstart cannot be replaced: its machine does not run"),
        (PLANES[2], "node quickstart-control-plane-2 of cluster quickstart cannot be replaced: the API does not answer"),
    ],
)
def test_what_cannot_be_replaced_is_refused(world: World, name: str, message: str) -> None:
    world.fail(PLANES[1], "its host is gone")
    world.kube().mute = name == PLANES[2]
    with pytest.raises(UsageError) as caught:
        world.up(THREE, replaced=name)
    assert str(caught.value).startswith(message)


def test_a_single_address_keeps_its_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, monkeypatch)
    world.up("spec: {nodePools: [{replicas: 1}]}")
    with pytest.raises(UsageError, match="cannot be replaced: the API has its address"):
        world.up("spec: {nodePools: [{replicas: 1}]}", replaced=PLANES[0])
