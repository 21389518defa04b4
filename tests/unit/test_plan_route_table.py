"""The planner of the router's route table: own routes follow the nodes, foreign ones stay."""

from __future__ import annotations

from moyai.cloud.model import Port, Route, SourceAddress
from moyai.kube.objects import Node, NodeAddress
from moyai.plan.route_table import RoutePlan, missing_sources, plan_routes

PODS = ("10.244.0.0/16",)


def node(number: int, *, deleting: bool = False) -> Node:
    address = (NodeAddress("InternalIP", f"10.0.0.{number}"),)
    return Node(f"n{number}", f"u{number}", pod_cidrs=(f"10.244.{number}.0/24",), addresses=address, deleting=deleting)


def route(number: int) -> Route:
    return Route(f"10.244.{number}.0/24", f"10.0.0.{number}")


def test_all_missing_ones_are_added_together_and_what_is_there_is_left() -> None:
    plan = plan_routes([node(1), node(2), node(3)], [route(2)], ranges=PODS)
    assert plan.add == (route(1), route(3))
    assert plan.remove == ()
    assert plan.nodes == ("n1", "n2", "n3")


def test_foreign_routes_stay() -> None:
    foreign = [Route("192.168.0.0/24", "10.0.0.77"), Route("10.0.0.0/8", "10.0.0.78"), Route("0.0.0.0/0", "10.0.0.79")]
    assert plan_routes([], foreign, ranges=PODS) == RoutePlan()


def test_a_route_to_a_machine_that_has_no_node_yet_stays() -> None:
    assert plan_routes([], [route(5)], ranges=PODS, live_hops={"10.0.0.5"}) == RoutePlan()
    assert plan_routes([], [route(5)], ranges=PODS).remove == (route(5),)
    assert plan_routes([node(1, deleting=True)], [route(1)], ranges=PODS).remove == (route(1),)


def test_a_pod_range_that_moved_to_another_node_is_replaced_even_if_the_old_machine_lives() -> None:
    old = Route("10.244.1.0/24", "10.0.0.9")
    plan = plan_routes([node(1)], [old], ranges=PODS, live_hops={"10.0.0.9"})
    assert (plan.add, plan.remove) == ((route(1),), (old,))


def test_a_node_outside_of_the_range_or_of_another_family_gets_none() -> None:
    outside = Node("x", "u", pod_cidrs=("10.99.0.0/24", "fd00::/64"), addresses=(NodeAddress("InternalIP", "10.0.0.1"),))
    assert plan_routes([outside], [], ranges=(*PODS, "fd00::/48")) == RoutePlan()


def test_pairs_are_added_to_others() -> None:
    port = Port("p", "p", "n", "ACTIVE", send_from=(SourceAddress("10.9.0.1"),))
    assert missing_sources(port, ["10.244.1.0/24"]) == (SourceAddress("10.9.0.1"), SourceAddress("10.244.1.0/24"))
    assert missing_sources(port, ["10.9.0.1"]) is None
