"""Source ranges of a Service, of one family or of both, on a load balancer that has one address."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from moyai.cloud.model import Port
from moyai.core.errors import UsageError
from moyai.core.ids import ClusterIdentity
from moyai.kube.objects import Service, ServicePort
from moyai.kube.resources import EVENTS, SERVICES
from moyai.plan.announce.access import desired_rules, remarks
from moyai.plan.load_balancer.source_ranges import fitting_ranges
from tests.unit.ccm_world import World, service_object

V4, V6 = "198.51.100.0/24", "2001:db8:7::/48"


def listener_cidrs(world: World) -> tuple[str, ...]:
    (balancer,) = world.store.balancers
    return balancer.listeners[0].allowed_cidrs


def test_the_family_of_the_address_decides_and_nobody_is_let_in_by_an_empty_list() -> None:
    assert fitting_ranges((V4, V6), 4) == ((V4,), (V6,))
    assert fitting_ranges((V4, V6), 6) == ((V6,), (V4,))
    assert fitting_ranges((), 4) == ((), ())
    # everybody of the one family is no limit of it, and says nothing of the other
    assert fitting_ranges(("0.0.0.0/0", V4, V6), 4) == ((), (V6,))
    assert fitting_ranges(("0.0.0.0/0", V6), 6) == ((V6,), ("0.0.0.0/0",))
    for version, only in ((4, V6), (6, V4), (4, "::/0")):
        with pytest.raises(UsageError, match=f"no source range .* is of IPv{version}"):
            fitting_ranges((only,), version)


def test_ranges_that_cannot_be_read_are_left_out_and_the_others_are_as_clouds_write_them() -> None:
    assert fitting_ranges(("10.1.2.3/8", " 10.0.0.0/8", "010.0.0.0/8", "x"), 4) == (("10.0.0.0/8",), ("010.0.0.0/8", "x"))
    with pytest.raises(UsageError, match="no source range"):
        fitting_ranges(("x",), 4)


def test_ranges_of_one_announced_service_that_cannot_be_read_leave_the_others_rules_alone() -> None:
    port = ServicePort("web", "TCP", 80, 0)
    services = [
        Service("red", "odd", "u1", ports=(port,), source_ranges=("x",)),
        Service("red", "bits", "u2", ports=(replace(port, port=81),), source_ranges=("10.1.2.3/8", "010.0.0.0/8")),
        Service("red", "web", "u3", ports=(replace(port, port=82),)),
    ]
    rules = desired_rules(services, ClusterIdentity("quickstart", "u"), group_ids=["g"])
    assert {(one.port_min, one.remote_cidr) for one in rules} == {(81, "10.0.0.0/8"), (82, "0.0.0.0/0")}
    assert [reason for one in services for reason, _ in remarks(one)] == ["SourceRangesLeftOut", "SourceRangesLeftOut"]


@pytest.mark.virtual_time
async def test_ranges_of_both_families_let_in_those_of_the_load_balancers_family_and_an_event_names_the_rest() -> None:
    world = World()
    created = world.cloud.load_balancers.create

    def strict(wanted: Any) -> Any:
        assert not any(":" in one for listener in wanted.listeners for one in listener.allowed_cidrs)
        return created(wanted)

    world.inside.load_balancers.create = strict  # pyright: ignore[reportAttributeAccessIssue]
    world.kube.put(SERVICES, service_object(loadBalancerSourceRanges=[V4, V6]))
    async with world.run():
        await world.until(world.address)
        assert listener_cidrs(world) == (V4,)
        world.pause = 1
        await world.clock.asleep(2000)
        (event,) = [one for one in world.kube.all(EVENTS) if one["reason"] == "SourceRangesLeftOut"]
        assert (event["type"], event["count"]) == ("Warning", 1)
        assert V6 in event["message"]
        assert V4 not in event["message"]
        world.edit(loadBalancerSourceRanges=[V6])
        await world.until(lambda: any("no source range" in one and "SyncLoadBalancerFailed" in one for one in world.events()))
        assert listener_cidrs(world) == (V4,)
        world.edit(loadBalancerSourceRanges=["0.0.0.0/0", "::/0"])
        await world.until(lambda: listener_cidrs(world) == ())


@pytest.mark.virtual_time
async def test_only_ranges_of_the_wrong_family_make_nothing() -> None:
    world = World()
    world.kube.put(SERVICES, service_object(loadBalancerSourceRanges=[V6]))
    async with world.run():
        await world.until(lambda: any("no source range" in one for one in world.events()))
        await world.clock.asleep(2)
        assert not world.store.balancers
        world.edit(loadBalancerSourceRanges=[V6, V4])
        await world.until(world.address)
        assert listener_cidrs(world) == (V4,)


@pytest.mark.virtual_time
async def test_the_family_of_a_given_port_is_read_from_that_port_alone() -> None:
    world = World()
    subnet, ids = world.store.subnets.ids()[0], [str(UUID(int=number)) for number in range(20)]
    for number, identity in enumerate(ids):
        world.store.ports.put(Port(identity, "", "net", "ACTIVE", (f"10.0.0.{50 + number}",), (subnet,)))
    note = {"loadbalancer.openstack.org/port-id": ids[7]}
    world.kube.put(SERVICES, service_object(annotations=note, loadBalancerSourceRanges=[V4]))
    async with world.run():
        await world.until(world.address)
    assert listener_cidrs(world) == (V4,)
    assert world.cloud.answered["networks.ports"] < 20
