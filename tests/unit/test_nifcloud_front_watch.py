"""What the front sees of the cloud below without being asked, and the loop of its worker."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Never

import pytest

from moyai.cloud.model import Power
from moyai.core.clock import SystemClock
from moyai.nifcloud_front.pace import DURATIONS, FaultOrder, Pace, meet
from moyai.nifcloud_front.worker import Worker
from moyai.nifcloud_front.works.verbs import VERBS
from moyai.nifcloud_front.works.watch import watch_balancers, watch_images, watch_instances
from tests.fakes.nifcloud_front import TestFront


@pytest.fixture
def front(tmp_path: Path) -> TestFront:
    return TestFront(tmp_path, scale=0)


def test_a_machine_that_ends_by_itself_is_stopped(front: TestFront) -> None:
    front.server("web1")
    (below,) = front.cloud.machines.servers()
    front.cloud.machines.stop_server(below.id)
    watch_instances(front.context)
    assert front.shown("web1")["InstanceState"]["Name"] == "stopped"
    front.cloud.machines.delete_server(below.id)
    watch_instances(front.context)
    assert front.shown("web1")["InstanceState"]["Name"] == "warning"


def test_a_machine_that_fails_to_build_is_in_a_warning(front: TestFront) -> None:
    front.cloud.faults.break_next("machines.create_server", "no valid host")
    assert front.server("web1")["InstanceState"]["Name"] == "warning"
    assert front.cloud.machines.servers()[0].power is Power.FAILED
    front.call("StopInstances", InstanceId=["web1"], Force=True)
    front.settle()
    assert front.shown("web1")["InstanceState"]["Name"] in ("stopped", "warning")
    front.call("TerminateInstances", InstanceId=["web1"])
    front.settle()
    assert front.cloud.machines.servers() == []


def test_members_answer_or_not_by_what_the_cloud_says(front: TestFront) -> None:
    front.server("web1")
    ports = {"LoadBalancerName": "web", "LoadBalancerPort": 80, "InstancePort": 30080}
    front.call("CreateLoadBalancer", LoadBalancerName="web", Listeners=[{"LoadBalancerPort": 80, "InstancePort": 30080}])
    front.call("RegisterInstancesWithLoadBalancer", **ports, Instances=[{"InstanceId": "web1"}])
    front.settle()
    watch_balancers(front.context)
    assert front.pairs("web")[0]["HealthCheck"]["InstanceStates"][0]["State"] == "InService"
    front.call("StopInstances", InstanceId=["web1"])
    front.settle()
    # by ICMP: a machine that does not run does not answer
    front.call("UpdateLoadBalancer", LoadBalancerName="web", NetworkVolumeUpdate=20)
    front.settle()
    assert front.pairs("web")[0]["HealthCheck"]["InstanceStates"][0]["State"] == "OutOfService"


@pytest.mark.parametrize("kind", ["lb", "elb"])
def test_members_that_boot_or_end_are_served_without_a_call(front: TestFront, kind: str) -> None:
    """A balancer is given a machine that boots; nobody asks for anything afterwards."""
    front.server("web1")
    (below,) = front.cloud.machines.servers()
    front.cloud.machines.stop_server(below.id)
    watch_instances(front.context)
    balanced(front, kind)
    watch_balancers(front.context)
    front.settle()
    assert members_below(front) == []
    front.cloud.machines.start_server(below.id)
    for members in (1, 0):
        watch_instances(front.context)
        watch_balancers(front.context)
        front.settle()
        assert len(members_below(front)) == members
        front.cloud.machines.stop_server(below.id)


def balanced(front: TestFront, kind: str) -> None:
    pair = {"LoadBalancerPort": 80, "InstancePort": 30080}
    if kind == "lb":
        front.call("CreateLoadBalancer", LoadBalancerName="web", Listeners=[pair])
        front.call("RegisterInstancesWithLoadBalancer", LoadBalancerName="web", **pair, Instances=[{"InstanceId": "web1"}])
    else:
        port = {"Protocol": "TCP", "ElasticLoadBalancerPort": 80, "InstancePort": 30080}
        name, cards = {"ElasticLoadBalancerName": "web"}, [{"NetworkId": "net-COMMON_GLOBAL", "IsVipNetwork": True}]
        zone = front.shown("web1")["Placement"]["AvailabilityZone"]
        front.call("NiftyCreateElasticLoadBalancer", **name, Listeners=[port], NetworkInterface=cards, AvailabilityZones=[zone])
        front.settle()
        front.call("NiftyRegisterInstancesWithElasticLoadBalancer", **name, **port, Instances=[{"InstanceId": "web1"}])
    front.settle()


def members_below(front: TestFront) -> list[str]:
    balancers = front.cloud.load_balancers
    (found,) = balancers.load_balancers()
    return [member.address for one in balancers.get(found.id).listeners if one.pool for member in one.pool.members]


def test_an_image_keeps_its_number(front: TestFront) -> None:
    number = front.image()
    watch_images(front.context)
    assert front.image() == number


def test_the_loop_ends_a_work_without_being_asked(front: TestFront) -> None:
    front.call("CreateSecurityGroup", GroupName="nodes")
    stop, done = threading.Event(), threading.Event()

    def look(_: object) -> None:
        with front.store.transaction() as tx:
            if not tx.works():
                done.set()
                stop.set()

    # real time, and looks that do not wait for it
    context = type(front.context)(front.store, front.cloud, Pace(0, poll=0.001), SystemClock().monotonic)
    with front.store.transaction() as tx:
        for one in tx.works():
            tx.keep(type(one)(one.kind, one.uid, one.verb))
    Worker(context, SystemClock()).run(stop, watches=(look,))
    assert done.is_set()
    assert front.call("DescribeSecurityGroups")["SecurityGroupInfo"][0]["GroupStatus"] == "applied"


def test_a_work_with_a_fault_of_the_front_is_put_off_like_a_refused_one(
    front: TestFront, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> Never:
        raise KeyError("gone")

    front.call("CreateSecurityGroup", GroupName="nodes")
    with front.store.transaction() as tx:
        for one in tx.works():
            tx.keep(type(one)(one.kind, one.uid, one.verb))
    monkeypatch.setitem(VERBS, ("group", "apply"), fails)
    stop = threading.Event()

    def look(_: object) -> None:
        if caplog.records:
            stop.set()

    # real time, and looks that do not wait for it
    context = type(front.context)(front.store, front.cloud, Pace(0, poll=0.001), SystemClock().monotonic)
    Worker(context, SystemClock()).run(stop, watches=(look,))
    with front.store.transaction() as tx:
        (work,) = tx.works()
    assert work.why == "KeyError"
    assert work.refused == len([one for one in caplog.records if one.exc_info])


def test_orders_count_the_calls_of_their_operation() -> None:
    orders = [(1, FaultOrder("RunInstances", nth=2)), (2, FaultOrder("*", times=2))]
    met = meet(orders, "RunInstances")
    assert met.fault == orders[1][1]
    assert met.left == {1: FaultOrder("RunInstances", nth=1), 2: FaultOrder("*", times=1)}
    met = meet([(1, FaultOrder("RunInstances"))], "DescribeInstances")
    assert (met.fault, met.left) == (None, {})


def test_every_duration_belongs_to_a_work() -> None:
    works = {f"{kind}.{verb}" for kind, verb in VERBS}
    assert set(DURATIONS) - works == set()
