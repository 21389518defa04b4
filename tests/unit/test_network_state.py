"""`moyai net status`: what a node's kernel and the cloud should have for the mode, and what is missing of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moyai.cloud.model import Router, SourceAddress
from moyai.diagnose.network.cloud_wire import CloudFacts
from moyai.diagnose.network.kernel_facts import Kernel, parse_kernel
from moyai.diagnose.network.state import NodeState, node_states
from moyai.diagnose.network.trace_model import World
from moyai.spec.load import validate
from moyai.spec.model import ClusterSpec
from tests.unit import network_world as w
from tests.unit.test_network_walk import kernel_without, link_changed


def spec(mode: str) -> ClusterSpec:
    network = {"nodeCIDR": w.NODES, "podCIDR": w.PODS, "mode": mode}
    return validate({"metadata": {"name": "demo"}, "spec": {"network": network}}, source="test").spec


def states(mode: str, found: World, **absent: str) -> dict[str, NodeState]:
    made = node_states(spec(mode), found.nodes, kernels=found.kernels, absent=absent, cloud=found.cloud)
    return {one.name: one for one in made}


@pytest.mark.parametrize("mode", ["vxlan", "host-gw", "routes"])
def test_a_whole_cluster_has_no_problems(mode: str) -> None:
    found = states(mode, w.world(mode))
    assert [(one.problems, one.reached, one.others, one.uplink, one.uplink_mtu) for one in found.values()] == [
        ((), 2, 2, "ens3", 1450)
    ] * 3
    assert found["n1"].tunnel == ("flannel.1" if mode == "vxlan" else "")


def test_what_a_kernel_lacks_is_named_and_the_way_is_not_counted() -> None:
    lacking = kernel_without(w.world("vxlan"), 1, part="entries", address="10.8.0.12")
    found = states("vxlan", lacking)["n1"]
    assert found.problems == ("the forwarding entry 02:00:00:00:00:02 → 10.8.0.12 is missing",)
    assert (found.reached, found.others) == (1, 2)
    assert states("vxlan", lacking)["n2"].problems == ()
    found = states("host-gw", kernel_without(w.world("host-gw"), 2, part="routes", destination="10.244.3.0/24"))["n2"]
    assert found.problems == ("the route 10.244.3.0/24 via 10.8.0.13 is missing",)


def test_a_tunnel_of_another_mtu_or_a_lost_one_reaches_nobody() -> None:
    found = states("vxlan", link_changed(w.world("vxlan"), 1, index=w.TUNNEL, mtu=1200))["n1"]
    assert (found.problems, found.reached) == (("device flannel.1 should be up with an MTU of 1400",), 0)
    world = w.world("vxlan")
    links = {index: link for index, link in world.kernels["n1"].links.items() if index != w.TUNNEL}
    found = states("vxlan", w.changed(world, 1, links=links))["n1"]
    assert "device flannel.1 is missing" in found.problems
    assert found.reached == 0


def test_the_routers_routes_and_the_ports_sources_belong_to_it() -> None:
    world = w.world("routes")
    assert world.cloud.router is not None
    fewer = replace(world, cloud=replace(world.cloud, router=Router("r", "r", routes=world.cloud.router.routes[:2])))
    found = states("routes", fewer)
    assert found["n3"].problems == ("the router has no route 10.244.3.0/24 via 10.8.0.13",)
    assert [one.reached for one in found.values()] == [1, 1, 2]
    ports = {**world.cloud.ports, "n2": replace(world.cloud.ports["n2"], send_from=())}
    found = states("routes", replace(world, cloud=replace(world.cloud, ports=ports)))
    assert found["n2"].problems == ("port n2 may not send from 10.244.2.0/24: the cloud drops what its pods send",)


def test_a_cloud_or_a_node_that_nobody_can_ask_is_no_loss_of_the_others() -> None:
    world = replace(w.world("routes"), cloud=CloudFacts(unknown="it does not answer"))
    assert all((one.problems, one.reached) == ((), None) for one in states("routes", world).values())
    kernels = {name: one for name, one in world.kernels.items() if name != "n2"}
    found = states("routes", replace(world, kernels=kernels), n2="the node is not Ready")
    assert found["n2"].problems == ("its kernel cannot be read: the node is not Ready",)
    assert not found["n1"].problems


def test_a_node_without_the_table_of_policies_is_named_unless_they_are_switched_off() -> None:
    world = w.world("routes")
    bare = w.changed(world, 2, tables=w.own_table(bare=True))
    found = states("routes", bare)
    why = "network policies are not enforced: it has no table inet moyai-policy; does its agent run?"
    assert [one.problems for one in found.values()] == [(), (why,), ()]
    assert not states("none", bare)["n2"].problems
    booted = w.changed(world, 2, tables=(*w.own_table(bare=True), w.chain("moyai-policy", "gate", family="inet")))
    why = "its pods have no traffic: its agent has not applied network policies since it booted"
    assert states("routes", booted)["n2"].problems == (why,)


def test_where_the_user_brings_the_network_nobody_knows_who_is_reached() -> None:
    world = w.world("host-gw")
    ports = {name: replace(port, send_from=(SourceAddress(w.PODS),)) for name, port in world.cloud.ports.items()}
    found = states("none", replace(world, cloud=replace(world.cloud, ports=ports)))
    assert [(one.reached, one.problems) for one in found.values()] == [(None, ())] * 3


def test_facts_of_another_version_read_as_empty() -> None:
    found = parse_kernel({"links": [{"index": 1}], "routes": None, "pods": {"10.0.0.1": {}}, "tables": "none"})
    assert isinstance(found, Kernel)
    assert (found.routes, found.forwards, found.tables) == ((), False, ())
