"""Balancers of the front over a cloud in memory: calls as the existing controllers make them, and the tree that results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moyai.cloud.load_balancers import BalancingAlgorithm, CheckType, LoadBalancer, TrafficProtocol
from moyai.nifcloud_front.store.rows import PairRow
from moyai.nifcloud_front.works.pair_listeners import allowed
from tests.fakes.nifcloud_front import Refused, TestFront

PORTS = {"LoadBalancerName": "web", "LoadBalancerPort": 80, "InstancePort": 30080}
ELASTIC = {"ElasticLoadBalancerName": "elb", "Protocol": "TCP", "ElasticLoadBalancerPort": 443, "InstancePort": 30443}
BUSY = "Server.ResourceIncorrectState.ElasticLoadBalancer.Processing"


@pytest.fixture
def front(tmp_path: Path) -> TestFront:
    front = TestFront(tmp_path)
    front.server("web1")
    return front


def _code(work: Callable[[], Any]) -> str:
    with pytest.raises(Refused) as refused:
        work()
    return refused.value.code


def _tree(front: TestFront) -> LoadBalancer:
    (head,) = front.cloud.load_balancers.load_balancers()
    return front.cloud.load_balancers.get(head.id)


def _create(front: TestFront, **more: Any) -> str:
    listener = {"LoadBalancerPort": 80, "InstancePort": 30080, "BalancingType": 1}
    made = front.call("CreateLoadBalancer", LoadBalancerName="web", Listeners=[listener], NetworkVolume=10, **more)
    return made["CreateLoadBalancerResult"]["DNSName"]


def test_a_balancer_is_made_as_the_controller_makes_it(front: TestFront) -> None:
    vip = _create(front, AccountingType="2", PolicyType="standard")
    assert vip.startswith("198.18.")
    health = {"Target": "TCP:30080", "Interval": 10, "UnhealthyThreshold": 1}
    front.call("ConfigureHealthCheck", **PORTS, HealthCheck=health)
    members = [{"InstanceId": "web1"}]
    front.call("RegisterInstancesWithLoadBalancer", **PORTS, Instances=members)
    entries = [{"IPAddress": "192.0.2.1", "AddOnFilter": True}, {"IPAddress": "198.51.100.0/24", "AddOnFilter": True}]
    front.call("SetFilterForLoadBalancer", **PORTS, FilterType="1", IPAddresses=entries)
    front.settle()
    (shown,) = front.pairs("web")
    assert shown["DNSName"] == vip
    assert shown["HealthCheck"]["Target"] == "TCP:30080"
    assert shown["HealthCheck"]["Timeout"] == 11
    assert shown["HealthCheck"]["InstanceStates"][0]["State"] in ("InService", "OutOfService")
    assert [one["InstanceId"] for one in shown["Instances"]] == ["web1"]
    assert shown["Filter"]["IPAddresses"] == [{"IPAddress": "192.0.2.1"}, {"IPAddress": "198.51.100.0/24"}]
    (listener,) = _tree(front).listeners
    assert (listener.port, set(listener.allowed_cidrs)) == (80, {"192.0.2.1/32", "198.51.100.0/24"})
    assert listener.pool is not None
    assert listener.pool.monitor is not None
    assert (listener.pool.monitor.type, listener.pool.monitor.delay) == (CheckType.TCP, 10)
    assert [one.port for one in listener.pool.members] == [30080]
    twice = _code(lambda: front.call("RegisterInstancesWithLoadBalancer", **PORTS, Instances=members))
    assert twice == "Client.Inoperable.LoadBalancer.HavingRegisteredInstance"
    again = _code(lambda: front.call("SetFilterForLoadBalancer", **PORTS, IPAddresses=entries[:1]))
    assert again == "Client.InvalidParameterDuplicate.IpAddress"


def test_a_port_is_changed_only_in_place_or_after_its_deletion(front: TestFront) -> None:
    _create(front)
    moved = [{"LoadBalancerPort": 80, "InstancePort": 30081}]
    taken = _code(lambda: front.call("RegisterPortWithLoadBalancer", LoadBalancerName="web", Listeners=moved))
    assert taken == "Client.Inoperable.LoadBalancerPort.AlreadyExists"
    update = {"LoadBalancerPort": 80, "InstancePort": 30080, "RequestListener": {"InstancePort": 30081, "BalancingType": 2}}
    front.call("UpdateLoadBalancer", LoadBalancerName="web", ListenerUpdate=update)
    front.settle()
    (listener,) = _tree(front).listeners
    assert listener.pool is not None
    assert listener.pool.algorithm is BalancingAlgorithm.LEAST_CONNECTIONS
    for port in (81, 82):
        more = [{"LoadBalancerPort": port, "InstancePort": 30000 + port}]
        front.call("RegisterPortWithLoadBalancer", LoadBalancerName="web", Listeners=more)
    fourth = [{"LoadBalancerPort": 83, "InstancePort": 30083}]
    assert _code(lambda: front.call("RegisterPortWithLoadBalancer", LoadBalancerName="web", Listeners=fourth)) == (
        "Client.ResourceLimitExceeded.LoadBalancerPort"
    )
    front.settle()
    assert sorted(one.port for one in _tree(front).listeners) == [80, 81, 82]


def test_a_balancer_goes_with_its_last_pair(front: TestFront) -> None:
    _create(front)
    front.call(
        "RegisterPortWithLoadBalancer", LoadBalancerName="web", Listeners=[{"LoadBalancerPort": 81, "InstancePort": 30081}]
    )
    front.call("DeleteLoadBalancer", **PORTS)
    front.settle()
    assert [one.port for one in _tree(front).listeners] == [81]
    front.call("DeleteLoadBalancer", LoadBalancerName="web", LoadBalancerPort=81, InstancePort=30081)
    assert front.pairs("web") == []
    front.settle()
    assert front.cloud.load_balancers.load_balancers() == []
    assert len(front.cloud.addresses.floating_ips()) == 1
    assert _code(lambda: front.call("DeleteLoadBalancer", **PORTS)) == "Client.InvalidParameterNotFound.LoadBalancer"


def test_an_address_that_a_crash_left_without_tags_goes_with_its_balancer(front: TestFront) -> None:
    _create(front)
    front.settle()
    before = front.cloud.addresses.floating_ips()
    for one in before:
        front.cloud.store.floating_ips.put(replace(one, tags=()))
    front.call("DeleteLoadBalancer", **PORTS)
    front.settle()
    assert len(front.cloud.addresses.floating_ips()) == len(before) - 1


def test_a_server_that_goes_is_no_member_any_more(front: TestFront) -> None:
    _create(front)
    front.call("RegisterInstancesWithLoadBalancer", **PORTS, Instances=[{"InstanceId": "web1"}])
    front.settle()
    front.end("web1")
    assert front.pairs("web")[0]["Instances"] == []
    (listener,) = _tree(front).listeners
    assert listener.pool is not None
    assert listener.pool.members == ()


def test_a_balancer_reaches_machines_through_their_firewall(front: TestFront) -> None:
    _create(front)
    group = next(one for one in front.cloud.firewall.security_groups() if one.name == "nifcloud-balancers")
    rules = [one for one in front.cloud.firewall.security_group_rules([group.id]) if one.remote_cidr]
    assert [one.remote_cidr for one in rules] == [f"{_tree(front).vip_address}/32"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"LoadBalancerName": "a-b"}, "Client.InvalidParameter.Value.LoadBalancerName"),
        ({"NetworkVolume": 50}, "Client.InvalidParameter.Value.NetworkVolume"),
        ({"Listeners": []}, "Client.InvalidParameter.Required.Listeners.member.1"),
        (
            {"Listeners": [{"LoadBalancerPort": 0, "InstancePort": 1}]},
            "Client.InvalidParameter.Value.Listeners.member.1.LoadBalancerPort",
        ),
        (
            {"Listeners": [{"LoadBalancerPort": 1, "InstancePort": 1, "BalancingType": 3}]},
            "Client.InvalidParameter.Value.Listeners.member.1.BalancingType",
        ),
    ],
)
def test_a_balancer_that_cannot_be_is_refused(front: TestFront, arguments: dict[str, Any], code: str) -> None:
    usual = {"LoadBalancerName": "web", "Listeners": [{"LoadBalancerPort": 80, "InstancePort": 30080}]}
    assert _code(lambda: front.call("CreateLoadBalancer", **{**usual, **arguments})) == code
    assert front.cloud.load_balancers.load_balancers() == []


def test_what_a_filter_refuses_is_left_out_of_what_may_come_in() -> None:
    pair = PairRow(80, 30080, filter_type="2", filtered=("0.0.0.0/1",))
    assert allowed(pair) == ("128.0.0.0/1",)
    assert allowed(PairRow(80, 30080)) == ()


# ---- elastic balancers


def _elastic(front: TestFront, **more: Any) -> None:
    listener = {"Protocol": "TCP", "ElasticLoadBalancerPort": 443, "InstancePort": 30443, "Description": "moyai"}
    usual = {"ElasticLoadBalancerName": "elb", "AvailabilityZones": ["east-11"], "Listeners": [listener]}
    front.call("NiftyCreateElasticLoadBalancer", **{**usual, **more})


def _shown(front: TestFront) -> dict[str, Any]:
    found = front.call("NiftyDescribeElasticLoadBalancers")["NiftyDescribeElasticLoadBalancersResult"]
    (one,) = found["ElasticLoadBalancerDescriptions"]
    return one


def test_an_elastic_balancer_is_busy_between_two_changes(front: TestFront) -> None:
    _elastic(front)
    assert (_shown(front)["State"], _shown(front)["DNSName"]) == ("pending", "")
    members = [{"InstanceId": "web1"}]
    assert _code(lambda: front.call("NiftyRegisterInstancesWithElasticLoadBalancer", **ELASTIC, Instances=members)) == BUSY
    front.settle()
    assert _shown(front)["State"] == "available"
    wanted = {"Name": "elastic-loadbalancer-name", "ListOfRequestValue": ["other"]}
    found = front.call("NiftyDescribeElasticLoadBalancers", Filter=[wanted])["NiftyDescribeElasticLoadBalancersResult"]
    assert found["ElasticLoadBalancerDescriptions"] == []
    assert _shown(front)["DNSName"].startswith("198.18.")
    front.call("NiftyRegisterInstancesWithElasticLoadBalancer", **ELASTIC, Instances=members)
    assert _shown(front)["State"] == "pending"
    front.settle()
    health = {"Target": "TCP:30443", "Interval": 10, "UnhealthyThreshold": 2}
    front.call("NiftyConfigureElasticLoadBalancerHealthCheck", **ELASTIC, HealthCheck=health)
    front.settle()
    udp = {"Protocol": "UDP", "ElasticLoadBalancerPort": 443, "InstancePort": 30444}
    front.call("NiftyRegisterPortWithElasticLoadBalancer", ElasticLoadBalancerName="elb", Listeners=[udp])
    front.settle()
    tcp = next(one for one in _tree(front).listeners if one.protocol is TrafficProtocol.TCP)
    assert tcp.pool is not None
    assert tcp.pool.monitor is not None
    assert (tcp.pool.monitor.max_retries_down, len(tcp.pool.members)) == (2, 1)
    listeners = _shown(front)["ElasticLoadBalancerListenerDescriptions"]
    assert [one["Listener"]["Protocol"] for one in listeners] == ["TCP", "UDP"]
    for gone in (ELASTIC, {**ELASTIC, "Protocol": "UDP", "InstancePort": 30444}):
        front.call("NiftyDeleteElasticLoadBalancer", **gone)
        front.settle()
    assert front.cloud.load_balancers.load_balancers() == []


def test_an_elastic_balancer_in_a_private_lan_has_an_address_and_two_system_addresses(front: TestFront) -> None:
    front.call("NiftyCreatePrivateLan", PrivateLanName="lan1", CidrBlock="10.20.0.0/24")
    front.settle()
    arm: dict[str, Any] = {"NetworkName": "lan1", "IpAddress": "10.20.0.9"}
    refused = _code(lambda: _elastic(front, NetworkInterface=[arm]))
    assert refused == "Client.InvalidParameter.Required.NetworkInterface.1.SystemIpAddresses.2"
    arm["ListOfRequestSystemIpAddresses"] = [{"SystemIpAddress": "10.20.0.10"}, {"SystemIpAddress": "10.20.0.11"}]
    _elastic(front, NetworkInterface=[arm])
    front.settle()
    assert _shown(front)["DNSName"] == "10.20.0.9"
    assert _tree(front).vip_address == "10.20.0.9"


def test_a_rule_for_a_public_vip_lets_the_balancer_in(front: TestFront) -> None:
    _elastic(front)
    front.call("CreateSecurityGroup", GroupName="nodes")
    front.settle()
    vip = _shown(front)["DNSName"]
    rule = {"IpProtocol": "TCP", "FromPort": 30443, "ListOfRequestIpRanges": [{"CidrIp": vip}]}
    front.call("AuthorizeSecurityGroupIngress", GroupName="nodes", IpPermissions=[rule])
    front.settle()
    group = next(one for one in front.cloud.firewall.security_groups() if one.description == "nodes")
    allowed_from = {one.remote_cidr for one in front.cloud.firewall.security_group_rules([group.id]) if one.remote_cidr}
    assert allowed_from == {f"{vip}/32", f"{_tree(front).vip_address}/32"}
