"""Machines that were made with something else than the spec has: replaced some at a time, and never fewer than the spec has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moyai.cloud.model import Image, Power
from moyai.core.errors import Terminal, UsageError
from moyai.core.ids import TEMPLATE_KEY
from moyai.kube.objects import parse_node
from moyai.kube.resources import NODES
from moyai.lifecycle import up as building
from moyai.plan import text
from moyai.plan.graph import Plan
from moyai.plan.machine_template import differences, machine_template
from moyai.spec.load import parse
from tests.fakes.cloud import named
from tests.unit.lifecycle_world import World

PLANE, FIRST, SECOND, THIRD = "quickstart-control-plane-0", *(f"quickstart-workers-{number}" for number in range(3))
LIMITED = "security: {podPidsLimit: 2000}"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


class MachineCounts:
    """What becomes of the machines: the most and the fewest that run at a time, and the order in which machines go."""

    def __init__(self, world: World) -> None:
        self.world, self.most, self.fewest, self.gone = world, 0, 99, list[str]()
        self.made: list[str] = []
        world.store.servers.watch(self._server)

    def _server(self, before: Any, after: Any) -> None:
        running = sum(one.power is Power.RUNNING for one in self.world.store.servers)
        self.most, self.fewest = max(self.most, running), min(self.fewest, running)
        if before is None:
            self.made.append(after.name)
        elif after is None:
            self.gone.append(before.name)


def machines(world: World) -> list[str]:
    return sorted(one.name for one in world.store.servers)


def steps(plan: Plan) -> list[str]:
    return [step.text for step in plan.steps]


def test_the_plan_shows_what_is_replaced_now_and_what_later(world: World) -> None:
    world.up()
    assert text.lines(world.preview(f"spec: {{{LIMITED}}}")) == [
        "change spec.security.podPidsLimit: 4096 → 2000 (rolling: a kubelet is configured when its machine is made)",
        f"replace {FIRST}: kubelet settings",
        f"then replace {SECOND}: kubelet settings",
        f" 1  create port {THIRD} 10.8.0.13, pods 10.244.3.0/24",
        " 2  renew the bootstrap token for the machines that join",
        f" 3  create server {THIRD} (m1.small in az1)  (after 1, 2)",
        " 4  add route 10.244.3.0/24 via 10.8.0.13",
        " 5  wait until 3 machines run  (after 3)",
        " 6  wait until 3 nodes are Ready  (after 5)",
        " 7  delete the bootstrap token, since all nodes have joined  (after 2, 6)",
        " 8  wait until moyai-cloud-controller-manager, coredns, kube-proxy run  (after 6)",
        " 9  wait until moyai-agent run  (after 6)",
        "10  wait until csi-memory-controllerplugin, snapshot-controller, csi-memory-nodeplugin run  (after 6)",
        f"11  exclude node {FIRST} from load balancers  (after 6, 8, 9, 10)",
        f"12  wait until load balancers and their connections have left node {FIRST}  (after 6, 8, 9, 10, 11)",
        f"13  drain node {FIRST}  (after 6, 8, 9, 10, 11, 12)",
        f"14  delete server {FIRST}  (after 6, 8, 9, 10, 11, 12, 13)",
        "15  remove route 10.244.1.0/24 via 10.8.0.11  (after 14)",
        f"16  delete node {FIRST}  (after 6, 8, 9, 10, 14)",
        f"17  delete port {FIRST}  (after 6, 8, 9, 10, 11, 12, 13, 14, 15, 16)",
        f"note: control plane {PLANE} keeps what it was made with (kubelet settings): the API has its address, so no other "
        "machine can take its place",
    ]


def test_workers_are_replaced_one_at_a_time(world: World) -> None:
    world.up()
    watched = MachineCounts(world)
    assert world.up(f"spec: {{{LIMITED}}}").changed
    assert machines(world) == [PLANE, FIRST, THIRD]
    assert (watched.fewest, watched.most, watched.gone) == (3, 4, [FIRST, SECOND])
    assert watched.made == [THIRD, FIRST]
    assert not world.up(f"spec: {{{LIMITED}}}").changed
    # a new worker is where the old one was
    assert sorted(one.zone for one in world.store.servers if "workers" in one.name) == ["az1", "az2"]


@pytest.mark.parametrize(
    ("rolling", "fewest", "most"), [("maxSurge: 3", 5, 8), ("maxSurge: 0, maxUnavailable: 2", 3, 5), ("maxSurge: 1", 5, 6)]
)
def test_as_many_at_a_time_as_the_pool_says(world: World, rolling: str, fewest: int, most: int) -> None:
    pool = f"nodePools: [{{replicas: 4, rollingUpdate: {{{rolling}}}}}]"
    world.up(f"spec: {{{pool}}}")
    before = {one.id for one in world.store.servers if "workers" in one.name}
    watched = MachineCounts(world)
    world.up(f"spec: {{{pool}, {LIMITED}}}")
    assert (watched.fewest, watched.most) == (fewest, most)
    assert len(machines(world)) == 5
    assert before.isdisjoint(one.id for one in world.store.servers)


def test_one_pool_after_the_other(world: World) -> None:
    pools = "nodePools: [{replicas: 1}, {name: big, replicas: 1}]"
    world.up(f"spec: {{{pools}}}")
    watched = MachineCounts(world)
    world.up(f"spec: {{{pools}, {LIMITED}}}")
    assert watched.made == [SECOND, "quickstart-big-1"]
    assert watched.gone == [FIRST, "quickstart-big-0"]


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ("nodePools: [{flavor: m1.medium}]", "flavor m1.small → m1.medium"),
        ("nodePools: [{labels: {a: b}}]", "labels"),
        ("nodePools: [{taints: [{key: a, effect: NoSchedule}]}]", "taints"),
        ("image: other", "image"),
        ("security: {seccompDefault: false}", "kubelet settings"),
    ],
)
def test_what_makes_a_machine_out_of_date(world: World, changed: str, why: str) -> None:
    world.store.images.put(Image("other", "other", "ACTIVE"))
    world.up()
    plan = world.preview(f"spec: {{{changed}}}")
    assert [(one.node, one.why, one.now) for one in plan.replacements] == [(FIRST, why, True), (SECOND, why, False)]


def test_machines_in_a_zone_that_their_pool_has_left_are_replaced(world: World) -> None:
    world.up()
    plan = world.preview("spec: {nodePools: [{zones: [az1]}]}")
    assert [(one.node, one.why) for one in plan.replacements] == [(SECOND, "zone az2")]
    world.up("spec: {nodePools: [{zones: [az1]}]}")
    assert {one.zone for one in world.store.servers if "workers" in one.name} == {"az1"}


@pytest.mark.parametrize(("replicas", "most"), [(1, 2), (3, 4)])
def test_control_planes_are_replaced_first_and_one_at_a_time(world: World, replicas: int, most: int) -> None:
    planes = f"controlPlane: {{replicas: {replicas}, endpoint: vrrp}}, nodePools: [{{replicas: 1}}]"
    world.up(f"spec: {{{planes}}}")
    before = {one.id for one in world.store.servers}
    watched = MachineCounts(world)
    world.up(f"spec: {{{planes}, {LIMITED}}}")
    assert before.isdisjoint(one.id for one in world.store.servers)
    assert (watched.fewest, watched.most) == (replicas + 1, most + 1)
    assert ["control-plane" in name for name in watched.gone] == [True] * replicas + [False]
    assert world.kube().etcd.broken == []
    assert len(world.kube().etcd.members) == replicas


def test_a_control_plane_with_another_flavor_is_replaced_where_another_machine_can_take_its_place(world: World) -> None:
    flavor = "controlPlane: {flavor: m1.large, endpoint: ENDPOINT}"
    world.store.flavors["large"] = replace(
        next(iter(world.store.flavors.values())), id="large", name="m1.large", memory_mb=9000
    )
    world.up("spec: {controlPlane: {endpoint: vrrp}}")
    world.up(f"spec: {{{flavor.replace('ENDPOINT', 'vrrp')}}}")
    assert named(world.store.servers, "quickstart-control-plane-1").flavor_name == "m1.large"
    assert PLANE not in machines(world)
    world.down()
    world.up()
    with pytest.raises(UsageError, match=r"^spec\.controlPlane\.flavor: 'm1\.large', should stay 'm1\.medium'"):
        world.up(f"spec: {{{flavor.replace('ENDPOINT', 'single')}}}")


def test_no_control_plane_is_replaced_while_one_is_not_well(world: World) -> None:
    planes = "controlPlane: {replicas: 3}"
    world.up(f"spec: {{{planes}}}")
    world.silence(PLANE, minutes=1)
    plan = world.preview(f"spec: {{{planes}, {LIMITED}}}")
    assert [one.now for one in plan.replacements] == [False] * 5
    assert not [step for step in steps(plan) if "create" in step or "delete" in step]


def test_nothing_is_replaced_while_the_api_does_not_answer(world: World) -> None:
    world.up()
    world.kube().mute = True
    plan = world.preview(f"spec: {{{LIMITED}}}")
    assert [one.now for one in plan.replacements] == [False, False]
    assert not [step for step in steps(plan) if "create" in step or "delete server" in step]


def test_the_old_machine_stays_while_the_new_one_does_not_come(world: World) -> None:
    world.up()
    world.store.faults.break_next("machines.create_server", "No valid host was found", name=THIRD)
    with pytest.raises(Terminal):
        world.up(f"spec: {{{LIMITED}}}")
    assert {FIRST, SECOND} <= set(machines(world))
    assert world.kube().cordoned == []
    # the way back: what was made for the change leaves
    world.up()
    assert machines(world) == [PLANE, FIRST, SECOND]
    assert not world.up().changed


def test_a_change_that_is_taken_back_halfway_brings_back_what_was_begun(world: World) -> None:
    world.up()
    world.kube().pod("web", node=FIRST)
    world.kube().protected.add("web")
    with pytest.raises(Terminal, match="could not be drained"):
        world.up(f"spec: {{{LIMITED}}}")
    assert parse_node(world.kube().get(NODES, FIRST)).cordoned
    world.up()
    assert machines(world) == [PLANE, FIRST, SECOND]
    assert not parse_node(world.kube().get(NODES, FIRST)).cordoned
    assert not world.up().changed


def test_a_machine_that_does_not_say_what_it_was_made_with_is_replaced_by_a_change_alone(world: World) -> None:
    """A machine of an older moyai."""
    world.up()
    for server in list(world.store.servers):
        world.store.servers.put(replace(server, metadata={k: v for k, v in server.metadata.items() if k != TEMPLATE_KEY}))
    assert not world.up().changed
    plan = world.preview(f"spec: {{{LIMITED}}}")
    assert [(one.node, one.why) for one in plan.replacements] == [
        (FIRST, "security.podPidsLimit"),
        (SECOND, "security.podPidsLimit"),
    ]
    world.up(f"spec: {{{LIMITED}}}")
    assert machines(world) == [PLANE, FIRST, THIRD]
    assert not world.up(f"spec: {{{LIMITED}}}").changed


@pytest.mark.parametrize(("before", "after"), [(3, 1), (1, 3), (2, 0)])
def test_a_pool_changes_its_size_and_its_machines_at_once(world: World, before: int, after: int) -> None:
    world.up(f"spec: {{nodePools: [{{replicas: {before}}}]}}")
    old = {one.id for one in world.store.servers if "workers" in one.name}
    watched = MachineCounts(world)
    world.up(f"spec: {{nodePools: [{{replicas: {after}}}], {LIMITED}}}")
    assert len(machines(world)) == after + 1
    assert old.isdisjoint(one.id for one in world.store.servers)
    assert watched.fewest == min(before, after) + 1


def test_a_pool_whose_numbers_have_a_gap_grows_and_shrinks(world: World) -> None:
    world.up()
    world.up(f"spec: {{{LIMITED}}}")
    assert machines(world) == [PLANE, FIRST, THIRD]
    world.up(f"spec: {{{LIMITED}, nodePools: [{{replicas: 3}}]}}")
    assert machines(world) == [PLANE, FIRST, SECOND, THIRD]
    world.up(f"spec: {{{LIMITED}, nodePools: [{{replicas: 1}}]}}")
    assert machines(world) == [PLANE, FIRST]


def test_a_broken_machine_is_made_again_with_what_the_spec_has_now(world: World) -> None:
    world.up()
    world.fail(FIRST, "its host is gone")
    plan = world.preview(f"spec: {{{LIMITED}}}")
    assert [one.node for one in plan.replacements] == [SECOND]
    world.up(f"spec: {{{LIMITED}}}")
    assert len(machines(world)) == 3
    assert not world.up(f"spec: {{{LIMITED}}}").changed


def test_where_there_is_no_room_for_one_more_the_plan_is_refused_before_anything_is_done(world: World) -> None:
    world.up()
    world.store.limits["instances"] = 3
    with pytest.raises(Terminal, match="1 servers are needed and 0 are free"):
        world.up(f"spec: {{{LIMITED}}}")
    pool = "nodePools: [{rollingUpdate: {maxSurge: 0, maxUnavailable: 1}}]"
    world.up(f"spec: {{{LIMITED}, {pool}}}")
    assert len(machines(world)) == 3


# ---- what a machine says that it was made with


def test_a_template_that_knows_less_or_more_is_no_difference() -> None:
    made = machine_template(parse("").spec, pool="workers")
    assert list(differences(made, f"{made},later=1")) == []
    assert list(differences(f"{made},later=1", made)) == []
    assert list(differences("", made)) == []
    assert list(differences(made.replace("kubernetes=1.37.1", "kubernetes=1.36.3"), made)) == ["Kubernetes 1.36.3 → 1.37.1"]


def test_the_order_of_taints_is_no_difference() -> None:
    taints = ["{key: a, effect: NoSchedule}", "{key: b, effect: NoExecute, value: c}"]
    specs = [parse(f"spec: {{nodePools: [{{taints: [{', '.join(order)}]}}]}}").spec for order in (taints, taints[::-1])]
    assert len({machine_template(spec, pool="workers") for spec in specs}) == 1


@given(st.text())
def test_any_text_is_a_template(made: str) -> None:
    list(differences(made, machine_template(parse("").spec, pool="workers")))


def test_a_template_fits_into_a_clouds_metadata() -> None:
    """Nova takes 255 characters."""
    labels = ", ".join(f"l{number}: v" for number in range(100))
    spec = parse(f"spec: {{image: {'i' * 255}, nodePools: [{{labels: {{{labels}}}}}]}}").spec
    assert len(machine_template(spec, pool="workers")) < 200


# ---- versions


def test_a_cluster_keeps_its_version_where_the_spec_names_none(world: World) -> None:
    """A later moyai has another default."""
    old = Image("old", "moyai-node-1.36.3", "ACTIVE", properties={"moyai_kubernetes_version": "1.36.3"})
    world.store.images.put(old)
    world.up("spec: {kubernetesVersion: '1.36.3'}")
    assert not world.up().changed
    assert building.version_of(parse(""), world.paths) == "1.36.3"
    with pytest.raises(UsageError, match="`moyai upgrade --to"):
        building.version_of(parse("spec: {kubernetesVersion: '1.37.1'}"), world.paths)
    assert building.version_of(parse("metadata: {name: other}"), world.paths) == "1.37.1"
