"""How many more nodes fit into a pod network, and the warning before none does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moyai.cloud.model import Port, Route, Router, SourceAddress
from moyai.core.errors import Terminal
from moyai.plan.cluster import plan_up
from moyai.plan.route_budget import foreign_routes, route_budget
from moyai.spec.load import parse, validate
from moyai.spec.model import ClusterSpec
from tests.unit.test_plan_cluster import EMPTY, NEW, TAG


def spec(**network: object) -> ClusterSpec:
    return validate({"metadata": {"name": "demo"}, "spec": {"network": network}}, source="test").spec


@pytest.mark.parametrize(
    ("nodes", "foreign", "left", "begins"),
    [
        (3, 0, 27, ""),
        (27, 0, 3, "3 more nodes fit into the pod network: 27 of 30 routes of the router"),
        (26, 3, 1, "1 more node fits into the pod network: 29 of 30 routes"),
        (30, 0, 0, "no more nodes fit into the pod network: 30 of 30 routes"),
    ],
)
def test_the_routers_routes_bound_the_nodes_and_the_warning_comes_before(
    nodes: int, foreign: int, left: int, begins: str
) -> None:
    found = route_budget(spec(), nodes=nodes, foreign_routes=foreign)
    assert found.nodes_left == left
    warnings = list(found.warnings())
    assert [one[: len(begins)] for one in warnings] == ([begins] if begins else [])
    assert all("host-gw, bgp and vxlan need no routes" in one for one in warnings)


def test_other_modes_are_bound_by_the_ranges_alone() -> None:
    found = route_budget(spec(mode="vxlan"), nodes=30, foreign_routes=0)
    assert (found.nodes_left, list(found.warnings())) == (88, [])
    found = route_budget(spec(mode="vxlan", podCIDR="10.244.0.0/22"), nodes=3, foreign_routes=0)
    assert found.nodes_left == 1
    assert list(found.warnings()) == [
        "1 more node fits into the pod network: 3 of 4 node addresses and pod ranges are used; "
        "nodeCIDR 10.8.0.0/24 and podCIDR 10.244.0.0/22 cannot change"
    ]


def test_a_ports_source_addresses_are_counted_but_bound_no_nodes() -> None:
    ports = [
        Port("p", name, "net", "ACTIVE", send_from=tuple(SourceAddress(f"10.0.{one}.0/24") for one in range(count)))
        for name, count in (("n1", 1), ("n2", 9))
    ]
    assert list(route_budget(spec(mode="host-gw"), nodes=2, foreign_routes=0, ports=ports).warnings()) == []
    found = route_budget(spec(mode="host-gw"), nodes=2, foreign_routes=0, ports=ports, sources_of_port=10)
    assert found.nodes_left == 116
    assert list(found.warnings()) == ["9 of 10 further source addresses of port n2 are used"]


def test_routes_within_the_pod_range_are_the_clusters_own() -> None:
    router = Router("r", "r", routes=(Route("10.244.7.0/24", "10.8.0.9"), Route("192.0.2.0/24", "10.8.0.9")))
    assert foreign_routes((router,), spec()) == (Route("192.0.2.0/24", "10.8.0.9"),)


def test_a_plan_warns_before_the_router_is_full_and_counts_what_others_have_put_there() -> None:
    cluster = parse("spec: {network: {maxRoutes: 5}}")
    assert any(one.startswith("2 more nodes fit") for one in plan_up(cluster, EMPTY, recorded=NEW).notes)
    foreign = Router("r", "quickstart-router", routes=(Route("192.0.2.0/24", "10.8.0.99"),), tags=TAG)
    taken = replace(EMPTY, routers=(foreign,))
    assert any(one.startswith("1 more node fits") for one in plan_up(cluster, taken, recorded=NEW).notes)
    assert not any("fit" in one for one in plan_up(parse(""), EMPTY, recorded=NEW).notes)
    with pytest.raises(Terminal, match="3 nodes need 3 routes in one router, cloud moyai allows 2"):
        plan_up(parse("spec: {network: {maxRoutes: 2}}"), EMPTY, recorded=NEW)
