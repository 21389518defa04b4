"""Load balancers of NIFCLOUD, L4 and elastic, over the SDK's own wire."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moyai.cloud.nifcloud.balancer_model import (
    AddPair,
    BalancerArm,
    HealthCheck,
    MovePair,
    PairBalancer,
    PortPair,
    balancer_steps,
    problems,
)
from moyai.cloud.nifcloud.nifcloud_limits import ELB, L4
from moyai.core.errors import Terminal
from tests.fakes.nifcloud_wire import NifcloudWire

NAME = "0123456789abcde"
MEMBERS = frozenset({"node1", "node2"})


def pair(port: int, node_port: int, **other: object) -> PortPair:
    made = PortPair("TCP", port, node_port, HealthCheck(f"TCP:{node_port}"), members=MEMBERS)
    return replace(made, **other)  # pyright: ignore[reportArgumentType]


WANTED = PairBalancer(NAME, (pair(80, 30080), pair(443, 30443)))
ELASTIC = replace(WANTED, zone="east-11", arms=(BalancerArm("net-COMMON_GLOBAL", vip=True),))


@pytest.fixture
def wire() -> NifcloudWire:
    made = NifcloudWire()
    for name in ("node1", "node2", "node3"):
        made.account.server(name)
    return made


def reads_as(found: PairBalancer, wanted: PairBalancer) -> bool:
    return set(found.pairs) == set(wanted.pairs) and (found.volume, found.accounting) == (wanted.volume, wanted.accounting)


def test_an_l4_balancer_is_made_whole_and_then_left_alone(wire: NifcloudWire) -> None:
    l4 = wire.cloud().l4
    found = l4.ensure(WANTED)
    assert reads_as(found, WANTED)
    assert found.address == "198.51.100.7"
    before = len(wire.calls)
    l4.ensure(WANTED)
    assert {call.operation for call in wire.calls[before:]} == {"DescribeLoadBalancers"}
    assert l4.names() == [NAME]
    l4.delete(NAME)
    l4.delete(NAME)
    assert wire.account.balancers == {}


OPERATIONS = (
    "CreateLoadBalancer",
    "RegisterPortWithLoadBalancer",
    "ConfigureHealthCheck",
    "RegisterInstancesWithLoadBalancer",
    "SetFilterForLoadBalancer",
)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("done", [True, False], ids=["done", "not done"])
def test_a_lost_reply_at_any_step_is_found_out(wire: NifcloudWire, operation: str, done: bool) -> None:
    wanted = replace(WANTED, pairs=(*WANTED.pairs[:1], pair(443, 30443, allowed=frozenset({"192.0.2.0/24"}))))
    wire.lose(operation, done=done)
    assert reads_as(wire.cloud().l4.ensure(wanted), wanted)


@pytest.mark.parametrize("operation", OPERATIONS[1:])
def test_a_half_made_balancer_is_completed(wire: NifcloudWire, operation: str) -> None:
    wanted = replace(WANTED, volume=20, pairs=(*WANTED.pairs[:1], pair(443, 30443, allowed=frozenset({"192.0.2.1"}))))
    wire.refuse(operation, "Client.Died.Here")
    with pytest.raises(Terminal):
        wire.cloud().l4.ensure(wanted)
    assert reads_as(wire.cloud().l4.ensure(wanted), wanted)


def test_changed_node_ports_move_in_place_even_with_three_ports(wire: NifcloudWire) -> None:
    three = replace(WANTED, pairs=(*WANTED.pairs, pair(8080, 31000)))
    cloud = wire.cloud()
    cloud.l4.ensure(three)
    moved = replace(three, pairs=tuple(pair(one.port, one.node_port + 1) for one in three.pairs))
    assert reads_as(cloud.l4.ensure(moved), moved)
    assert (wire.count["DeleteLoadBalancer"], wire.count["CreateLoadBalancer"]) == (0, 1)


def test_other_ports_keep_the_address(wire: NifcloudWire) -> None:
    cloud = wire.cloud()
    cloud.l4.ensure(WANTED)
    other = replace(WANTED, pairs=(pair(5432, 30432),))
    assert reads_as(cloud.l4.ensure(other), other)
    assert wire.count["CreateLoadBalancer"] == 1


def test_no_nodes_never_means_all_servers(wire: NifcloudWire) -> None:
    cloud = wire.cloud()
    cloud.l4.ensure(WANTED)
    empty = replace(WANTED, pairs=tuple(replace(one, members=frozenset()) for one in WANTED.pairs))
    assert reads_as(cloud.l4.ensure(empty), empty)
    assert all(one.get("Instances.member.1.InstanceId") for one in wire.sent("RegisterInstancesWithLoadBalancer"))


def test_a_vanished_node_blocks_nobody(wire: NifcloudWire) -> None:
    wanted = replace(WANTED, pairs=(pair(80, 30080, members=frozenset({"node1", "vanished", "node3"})),))
    found = wire.cloud().l4.ensure(wanted)
    assert found.pairs[0].members == {"node1", "node3"}


def test_a_member_whose_server_is_gone_does_not_keep_the_others_from_changing(wire: NifcloudWire) -> None:
    cloud = wire.cloud()
    cloud.l4.ensure(WANTED)
    del wire.account.instances["node2"]
    wanted = replace(WANTED, pairs=(pair(80, 30080, members=frozenset({"node1", "node3"})), WANTED.pairs[1]))
    found = cloud.l4.ensure(wanted)
    assert found.pairs[0].members >= {"node1", "node3"}


def test_filters_follow_both_ways(wire: NifcloudWire) -> None:
    cloud = wire.cloud()
    for allowed in ({"192.0.2.0/24", "198.51.100.1"}, {"192.0.2.0/24", "203.0.113.0/24"}, set[str]()):
        wanted = replace(WANTED, pairs=(pair(80, 30080, allowed=frozenset(allowed)),))
        assert cloud.l4.ensure(wanted).pairs[0].allowed == allowed


def test_volume_balancing_and_check_are_reconciled(wire: NifcloudWire) -> None:
    cloud = wire.cloud()
    cloud.l4.ensure(WANTED)
    changed = replace(
        WANTED, volume=200, pairs=(pair(80, 30080, balancing=2, check=HealthCheck("ICMP", interval=30, threshold=3)),)
    )
    assert reads_as(cloud.l4.ensure(changed), changed)


def test_an_elastic_balancer_waits_between_two_changes(wire: NifcloudWire) -> None:
    elastic = wire.cloud().elastic
    found = elastic.ensure(ELASTIC)
    assert reads_as(found, ELASTIC)
    assert (found.address, found.zone, found.arms) == ("198.51.100.8", "east-11", ELASTIC.arms)
    moved = replace(ELASTIC, volume=100, pairs=(pair(80, 31111), replace(pair(53, 30053), protocol="UDP")))
    assert reads_as(elastic.ensure(moved), moved)
    # a change of a balancer that is busy would have been refused, and asked again
    assert wire.count["NiftyModifyElasticLoadBalancerAttributes"] <= 3
    elastic.delete(NAME)
    assert wire.account.elbs == {}


@pytest.mark.parametrize("done", [True, False], ids=["done", "not done"])
@pytest.mark.parametrize("operation", ["NiftyCreateElasticLoadBalancer", "NiftyRegisterInstancesWithElasticLoadBalancer"])
def test_a_lost_reply_doubles_no_elastic_balancer(wire: NifcloudWire, operation: str, done: bool) -> None:
    wire.lose(operation, done=done)
    assert reads_as(wire.cloud().elastic.ensure(ELASTIC), ELASTIC)
    assert len(wire.account.elbs) == 1


PRIVATE = BalancerArm("net-00000001", "10.0.0.9", ("10.0.0.10", "10.0.0.11"), vip=True)


def test_a_private_arm_has_its_addresses(wire: NifcloudWire) -> None:
    found = wire.cloud().elastic.ensure(replace(ELASTIC, arms=(PRIVATE,)))
    assert found.arms == (PRIVATE,)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (replace(WANTED, pairs=tuple(pair(port, 30000 + port) for port in (1, 2, 3, 4))), "at most 3 ports, 4"),
        (replace(WANTED, pairs=()), "at least one port"),
        (replace(WANTED, volume=50), "no network volume 50"),
        (replace(WANTED, accounting="3"), "accounting type '3'"),
        (replace(WANTED, pairs=(replace(pair(53, 30053), protocol="UDP"),)), "carry TCP, port 53 is UDP"),
        (replace(WANTED, pairs=(pair(80, 0),)), "port 80 has no node port"),
        (replace(WANTED, pairs=(pair(80, 30080, balancing=3),)), "no balancing type 3"),
        (replace(WANTED, pairs=(pair(80, 30080, check=HealthCheck("ICMP", 4)),)), "interval is 5 to 300"),
        (replace(WANTED, pairs=(pair(80, 30080, check=HealthCheck("ICMP", 10, 11)),)), "threshold is 1 to 10"),
        (
            replace(WANTED, pairs=(pair(80, 30080, allowed=frozenset(f"192.0.2.{n}" for n in range(31))),)),
            "at most 30 addresses and ranges, port 80 names 31",
        ),
    ],
)
def test_what_an_l4_balancer_cannot_be_is_said_in_one_line(wire: NifcloudWire, wanted: PairBalancer, words: str) -> None:
    assert words in "; ".join(problems(wanted, L4))
    with pytest.raises(Terminal):
        wire.cloud().l4.ensure(wanted)
    assert wire.calls == []


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (replace(ELASTIC, volume=600), "no network volume 600"),
        (replace(ELASTIC, zone=""), "made in a zone"),
        (replace(ELASTIC, pairs=(pair(80, 30080, allowed=frozenset({"192.0.2.1"})),)), "let everybody in"),
        (replace(ELASTIC, arms=(replace(PRIVATE, system_addresses=("10.0.0.10",)),)), "exactly two system addresses"),
        (replace(ELASTIC, arms=(replace(PRIVATE, network="net-COMMON_PRIVATE"),)), "none can be named"),
    ],
)
def test_what_an_elastic_balancer_cannot_be_is_said(wanted: PairBalancer, words: str) -> None:
    assert words in "; ".join(problems(wanted, ELB))
    assert list(problems(ELASTIC, ELB)) == []


def test_a_port_that_goes_gives_its_place_to_one_that_comes() -> None:
    found = replace(WANTED, pairs=(pair(80, 30080), pair(443, 30443), pair(8080, 31000)))
    wanted = replace(WANTED, pairs=(pair(80, 30081), pair(443, 30443), pair(22, 30022)))
    moves = balancer_steps(wanted, found)
    assert moves == [MovePair(found.pairs[0], wanted.pairs[0]), MovePair(found.pairs[2], wanted.pairs[2])]
    assert balancer_steps(WANTED, replace(WANTED, pairs=WANTED.pairs[:1])) == [AddPair(WANTED.pairs[1])]
    # a pair never takes a clients' port that another pair has
    swapped = replace(WANTED, pairs=(pair(443, 31443), pair(8080, 31080)))
    moves = balancer_steps(swapped, WANTED)
    assert moves == [MovePair(WANTED.pairs[1], swapped.pairs[0]), MovePair(WANTED.pairs[0], swapped.pairs[1])]
