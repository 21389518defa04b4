"""`moyai net status` of a cluster whose nodes announce Services: who answers for which address, and where nobody does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from moyai.cloud.model import SourceAddress
from moyai.diagnose.network.announcements import AnnouncedState, announced_states
from moyai.diagnose.network.state import NetworkState, node_states
from moyai.kube.objects import Ingress, Node, Service, parse_lease
from moyai.plan.announce.metallb_words import FROM_POOL
from moyai.plan.route_budget import Limit, RouteBudget
from moyai.spec.load import validate
from tests.unit import network_world as w

NODES = (Node("a", "a", ready=True), Node("b", "b", ready=False))


def service(name: str, address: str = "10.8.0.96", **fields: Any) -> Service:
    made = Service("default", name, name, type="LoadBalancer", annotations={FROM_POOL: "main"}, ingress=(Ingress(address),))
    return replace(made, **fields)


def states(*services: Service, **holders: str) -> tuple[AnnouncedState, ...]:
    leases = [
        parse_lease({"metadata": {"name": f"announced-10-8-0-{number[1:]}"}, "spec": {"holderIdentity": holder}})
        for number, holder in holders.items()
    ]
    return announced_states(services, leases, nodes=NODES)


def test_the_owner_of_an_address_is_the_holder_of_its_lease() -> None:
    assert states(service("web"), service("api", "10.8.0.97"), n96="a", n97="a") == (
        AnnouncedState("default/api", "10.8.0.97", "main", "a"),
        AnnouncedState("default/web", "10.8.0.96", "main", "a"),
    )


@pytest.mark.parametrize(
    "other",
    [
        service("cloud", annotations={}),
        service("waiting", ingress=()),
        service("inner", type="ClusterIP"),
    ],
)
def test_other_services_are_not_announced(other: Service) -> None:
    assert states(other, n96="a") == ()


@pytest.mark.parametrize("holders", [{}, {"n96": ""}])
def test_an_address_that_nobody_has_is_a_problem(holders: dict[str, str]) -> None:
    (found,) = states(service("web"), **holders)
    assert found.problem.startswith("no node answers for 10.8.0.96 of Service default/web")


@pytest.mark.parametrize("holder", ["b", "gone"])
def test_an_owner_that_is_lost_and_that_nobody_follows_is_a_problem(holder: str) -> None:
    (found,) = states(service("web"), n96=holder)
    assert found.problem == f"node {holder} has 10.8.0.96 of Service default/web, is not Ready, and no other took over"


def test_a_port_that_may_not_send_from_announced_addresses_is_a_problem() -> None:
    network = {"nodeCIDR": w.NODES, "podCIDR": w.PODS, "mode": "vxlan"}
    announce = {"announce": {"ranges": ["10.8.0.96/28"]}}
    spec = validate({"metadata": {"name": "d"}, "spec": {"network": network, "services": announce}}, source="t").spec
    world = w.world("vxlan")
    ports = {name: replace(port, send_from=(SourceAddress("10.8.0.96/28"),)) for name, port in world.cloud.ports.items()}
    ports["n2"] = replace(ports["n2"], send_from=())
    cloud = replace(world.cloud, ports=ports)
    found = {one.name: one.problems for one in node_states(spec, world.nodes, kernels=world.kernels, absent={}, cloud=cloud)}
    said = "port n2 may not send from 10.8.0.96/28: the cloud drops answers for announced addresses"
    assert found == {"n1": (), "n2": (said,), "n3": ()}


def test_where_nothing_is_announced_the_answer_is_as_before() -> None:
    state = NetworkState(
        "demo",
        "vxlan",
        "",
        policy=True,
        pod_range="10.244.0.0/16",
        nodes=(),
        budget=RouteBudget((Limit("node addresses", 1, 2),)),
    )
    assert "announced" not in state.data()
    assert replace(state, announced=states(service("web"), n96="a")).data()["announced"][0]["node"] == "a"
