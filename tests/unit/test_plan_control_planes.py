"""Plans of clusters with several control planes, and of those with one, which stay as they were."""
# ruff: noqa: E501 (messages are compared whole)

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from moyai.cloud.model import Power
from moyai.core.errors import Terminal, UsageError
from moyai.kube.resources import NODES
from moyai.plan import text
from moyai.plan.cluster import plan_up
from moyai.plan.cluster.control_planes import majority
from moyai.plan.steps import CreatePort
from moyai.spec.load import carried_on, dump, parse
from tests.fakes.cloud import named
from tests.unit.lifecycle_world import World
from tests.unit.test_plan_cluster import EMPTY, NEW

THREE = "spec: {controlPlane: {replicas: 3}, nodePools: [{replicas: 1}]}"
FIVE = "spec: {controlPlane: {replicas: 5}, nodePools: [{replicas: 1}]}"
ONE_OF_MORE = "spec: {controlPlane: {endpoint: vrrp}, nodePools: [{replicas: 1}]}"
ONE = "spec: {nodePools: [{replicas: 1}]}"


def test_the_plan_of_three_control_planes() -> None:
    assert text.lines(plan_up(parse(THREE), EMPTY, recorded=NEW)) == [
        " 1  create network quickstart-network",
        " 2  create subnet quickstart-subnet 10.8.0.0/24  (after 1)",
        " 3  create router quickstart-router",
        " 4  create security group quickstart-control-plane",
        " 5  create security group quickstart-worker",
        " 6  create port quickstart-api 10.8.0.4, the API's virtual address  (after 1, 2)",
        " 7  create floating ip for the API",
        " 8  write the administrator's kubeconfig  (after 7)",
        " 9  create key pair quickstart-0123456789",
        "10  create server group quickstart-control-plane-0123456789, if possible on different hosts",
        "11  create port quickstart-control-plane-0 10.8.0.10, pods 10.244.0.0/24  (after 1, 2, 4)",
        "12  create port quickstart-control-plane-1 10.8.0.11, pods 10.244.1.0/24  (after 1, 2, 4)",
        "13  create port quickstart-control-plane-2 10.8.0.12, pods 10.244.2.0/24  (after 1, 2, 4)",
        "14  create server quickstart-control-plane-0 (m1.medium in az1)  (after 2, 3, 5, 6, 7, 9, 10, 11)",
        "15  create port quickstart-workers-0 10.8.0.13, pods 10.244.3.0/24  (after 1, 2, 5, 14)",
        "16  create server quickstart-control-plane-1 (m1.medium in az2)  (after 2, 3, 5, 6, 7, 9, 10, 12)",
        "17  create server quickstart-control-plane-2 (m1.medium in az1)  (after 2, 3, 5, 6, 7, 9, 10, 13)",
        "18  create server quickstart-workers-0 (m1.small in az1)  (after 9, 15)",
        "19  wait until 4 machines run  (after 14, 16, 17, 18)",
        "20  put the router on the external network  (after 3, 19)",
        "21  put the subnet on the router  (after 2, 3, 19, 20)",
        "22  add 11 rules to security group control-plane  (after 4, 5, 19)",
        "23  add 3 rules to security group worker  (after 4, 5, 19)",
        "24  put the floating ip on port quickstart-api  (after 6, 7, 20, 21)",
        "25  add route 10.244.0.0/24 via 10.8.0.10, add route 10.244.1.0/24 via 10.8.0.11, add route 10.244.2.0/24 via 10.8.0.12, add route 10.244.3.0/24 via 10.8.0.13  (after 3, 21)",
        "26  wait until the Kubernetes API answers  (after 6, 7, 8, 14, 24)",
        "27  wait until 4 nodes are Ready  (after 19, 26)",
        "28  delete the unsealing key from the metadata of server quickstart-control-plane-0  (after 14, 27)",
        "29  delete the unsealing key from the metadata of server quickstart-control-plane-1  (after 16, 27)",
        "30  delete the unsealing key from the metadata of server quickstart-control-plane-2  (after 17, 27)",
        "31  delete the bootstrap token, since all nodes have joined  (after 27)",
        "note: zone az1 has 2 of 3 control planes: without this zone the others are no majority, and the API stops",
    ]


def test_control_planes_take_turns_in_their_zones() -> None:
    observed = replace(EMPTY, zones=("az1", "az2", "az3", "az4"))
    plan = plan_up(parse("spec: {controlPlane: {replicas: 3, zones: [az4, az2, az1]}}"), observed, recorded=NEW)
    assert [node.zone for node in plan.nodes if node.role == "control-plane"] == ["az4", "az2", "az1"]
    assert plan.notes == ()
    with pytest.raises(UsageError, match=r"spec.controlPlane.zones\[1\]: 'az9', cloud moyai has no such zone"):
        plan_up(parse("spec: {controlPlane: {replicas: 3, zones: [az1, az9]}}"), observed, recorded=NEW)


@pytest.mark.parametrize("mode", ["routes", "host-gw", "vxlan", "none"])
def test_the_ports_of_control_planes_may_send_from_the_virtual_address(mode: str) -> None:
    plan = plan_up(parse(f"spec: {{controlPlane: {{replicas: 3}}, network: {{mode: {mode}}}}}"), EMPTY, recorded=NEW)
    ports = {step.node.name: step.send_from for step in plan.steps if isinstance(step, CreatePort)}
    found = {name for name, sources in ports.items() if "10.8.0.4" in [pair.address for pair in sources]}
    assert found == {f"quickstart-control-plane-{number}" for number in range(3)}


def test_the_floating_address_leads_to_the_port_without_a_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, monkeypatch)
    world.up(THREE)
    (address,) = world.store.floating_ips
    port = named(world.store.ports, "quickstart-api")
    assert (address.port_id, port.fixed_ips, port.device_id) == (port.id, ("10.8.0.4",), "")
    world.down()
    assert world.all_names() == []


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (
            ONE,
            THREE,
            "spec.controlPlane.replicas: 3, should stay 1 while the cluster exists (its API has the address of its only machine, which is in certificates and in every node's configuration)",
        ),
        (
            ONE,
            ONE_OF_MORE,
            "spec.controlPlane.endpoint: 'vrrp', should stay 'auto' while the cluster exists (the API's address is in certificates and in every node's configuration)",
        ),
    ],
)
def test_what_a_cluster_cannot_become_is_refused(
    before: str, after: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, monkeypatch)
    world.up(before)
    changes = world.mortal.changes
    with pytest.raises(UsageError) as caught:
        world.up(after)
    assert str(caught.value).startswith(message)
    assert world.mortal.changes == changes


def test_a_cluster_that_was_made_before_there_was_a_choice_is_carried_on() -> None:
    past = dump(parse(ONE))
    for field in ("endpoint", "zones"):
        del past["spec"]["controlPlane"][field]
    cluster = carried_on(parse(ONE), past)
    assert plan_up(cluster, EMPTY, recorded=NEW, before=past).changes == ()
    with pytest.raises(UsageError, match="should stay 1 while the cluster exists"):
        plan_up(carried_on(parse(THREE), past), EMPTY, recorded=NEW, before=past)


@pytest.mark.parametrize("spec", [ONE, "spec: {controlPlane: {endpoint: single}, nodePools: [{replicas: 1}]}"])
def test_a_word_that_means_the_same_is_no_change(spec: str) -> None:
    past = dump(parse(ONE))
    assert plan_up(carried_on(parse(spec), past), EMPTY, recorded=NEW, before=past).changes == ()


@pytest.mark.parametrize("spec", [THREE, "spec: {controlPlane: {replicas: 3, endpoint: vrrp}, nodePools: [{replicas: 1}]}"])
def test_a_control_plane_with_a_virtual_address_grows(spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, monkeypatch)
    world.up(ONE_OF_MORE)
    world.up(spec)
    assert sorted(one for one in world.kube().names(NODES) if "control-plane" in one) == [
        f"quickstart-control-plane-{n}" for n in range(3)
    ]
    assert not world.preview(spec).steps
    # what is left to moyai stays as the cluster has it
    assert not world.preview(THREE).steps


def test_a_lost_control_plane_is_replaced_while_the_api_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, monkeypatch)
    world.up(THREE)
    world.fail("quickstart-control-plane-0", "its host is gone")
    plan = world.preview(THREE)
    lines = text.lines(plan)
    assert any("delete server quickstart-control-plane-0: its host is gone" in line for line in lines)
    (made,) = [step for step in plan.steps if "create server" in step.text]
    assert not getattr(made, "first", True), "it joins the others"
    world.up(THREE)
    assert not world.preview(THREE).steps


def test_without_a_majority_nothing_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, monkeypatch)
    world.up(THREE)
    for number in (0, 1):
        world.fail(f"quickstart-control-plane-{number}", "its host is gone")
    world.power("quickstart-control-plane-2", Power.OFF)
    with pytest.raises(Terminal, match="etcd has no majority of its 3 members"):
        world.preview(THREE)


def test_a_silent_control_plane_is_restarted_only_while_all_others_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, monkeypatch)
    world.up(THREE)
    world.silence("quickstart-control-plane-0", minutes=20)
    assert any("restart server quickstart-control-plane-0" in line for line in text.lines(world.preview(THREE)))
    world.silence("quickstart-control-plane-1", minutes=20)
    assert not any("restart server" in line for line in text.lines(world.preview(THREE)))


def test_majorities() -> None:
    assert [majority(members) for members in (1, 2, 3, 4, 5)] == [1, 2, 2, 3, 3]


def test_a_cloud_that_keeps_ports_to_their_own_address_has_no_virtual_one() -> None:
    message = (
        "spec.controlPlane.endpoint: 'auto', should be 'load-balancer', or 'single' with one control plane: "
        "cloud moyai does not let ports send"
    )
    with pytest.raises(UsageError, match=message):
        plan_up(
            parse("spec: {controlPlane: {replicas: 3}, network: {mode: vxlan}}"),
            replace(EMPTY, sources_allowed=False),
            recorded=NEW,
        )
